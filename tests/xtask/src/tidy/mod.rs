//! The house rules that a program can check. A rule that is not checked here is not a rule.
//!
//! | rule | limit |
//! | --- | --- |
//! | a file says in `//!` what it is for | every `.rs` file, from its first line |
//! | a file fits into a head | 400 lines outside tests |
//! | a function fits on a screen | 60 lines outside tests |
//! | nothing is unwrapped | outside tests; `expect` says why it cannot fail |
//! | a name says what a thing is | no util, common, helper, manager, misc |
//! | the machine's architecture matters in one place | `target_arch` in `vmm/hypervisor` and `guests/init` only |
//! | a folder has a README | every top-level folder, every crate |

mod folders;
mod source;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use source::Source;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    path: PathBuf,
    line: usize,
    text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &self.path
        };
        write!(f, "{}:{}: {}", path.display(), self.line, self.text)
    }
}

impl Problem {
    fn new(path: &Path, line: usize, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            text: text.into(),
        }
    }
}

/// Checks the project in `root`; no problems is the good outcome.
pub fn check(root: &Path) -> Result<Vec<Problem>> {
    let files = folders::files(root)?;
    let mut problems = folders::check(&files);
    let mut sources = Vec::new();
    for path in files {
        let is_rust = path.extension().is_some_and(|ending| ending == "rs");
        let is_manifest = path.file_name().is_some_and(|name| name == "Cargo.toml");
        if !is_rust && !is_manifest {
            continue;
        }
        let text = fs::read_to_string(root.join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        if is_manifest {
            problems.extend(source::check_manifest(&path, &text));
            continue;
        }
        match Source::parse(path.clone(), text) {
            Ok(source) => sources.push(source),
            Err(error) => problems.push(Problem::new(&path, error.span().start().line, error.to_string())),
        }
    }
    let tests: Vec<PathBuf> = sources.iter().flat_map(Source::modules_for_tests).collect();
    problems.extend(sources.iter().flat_map(|source| source.check(&tests)));
    problems.sort();
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project of these files, and what is wrong with it.
    fn problems_of(files: &[(&str, &str)]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        check(root.path())
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_sound_project_has_no_problems() {
        let files = [
            ("README.md", ""),
            ("Cargo.toml", "[workspace]"),
            ("vmm/README.md", ""),
            ("vmm/src/lib.rs", "//! Fine.\n#[cfg(test)]\nmod driver;\n"),
            (
                "vmm/src/driver.rs",
                "//! A test's other end.\nfn f() { g().unwrap(); }\n",
            ),
            ("target/debug/junk.rs", "no rust at all"),
        ];
        assert_eq!(problems_of(&files), Vec::<String>::new());
    }

    #[test]
    fn missing_readmes_and_names_that_say_nothing_are_found() {
        let files = [
            ("README.md", ""),
            ("vmm/spec/Cargo.toml", ""),
            ("vmm/spec/src/vm_utils.rs", "//! x\n"),
        ];
        let expected = [
            "vmm:0: this folder has no README.md",
            "vmm/spec:0: this folder has no README.md",
            "vmm/spec/src/vm_utils.rs:0: `utils` says nothing about what is in here",
        ];
        assert_eq!(problems_of(&files), expected);
    }

    #[test]
    fn a_file_that_is_not_rust_is_a_problem_and_not_a_panic() {
        let found = problems_of(&[("README.md", ""), ("vmm/README.md", ""), ("vmm/a.rs", "fn {")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("vmm/a.rs:1: "), "{found:?}");
    }

    #[test]
    fn the_architecture_is_not_asked_for_in_a_manifest_either() {
        let manifest = "[target.'cfg(target_arch = \"riscv64\")'.dependencies]\n";
        let files = [
            ("README.md", ""),
            ("api/README.md", ""),
            ("api/Cargo.toml", manifest),
        ];
        let expected = "api/Cargo.toml:1: `target_arch` belongs in vmm/hypervisor and guests/init only";
        assert_eq!(problems_of(&files), [expected]);
    }
}
