//! Runs programs of the Debian release on a machine that may have another one: a script starts each through the
//! loader and the libraries that were unpacked with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A root folder in the cache whose programs are to be run.
pub struct Foreign {
    name: String,
    loader: String,
    libraries: String,
}

impl Foreign {
    /// The programs of `unpacked`, an entry of the cache that holds a C library.
    pub fn of(unpacked: &Path) -> Result<Self> {
        let name = unpacked
            .file_name()
            .context("the unpacked packages have no name")?
            .to_string_lossy();
        let (loader, libraries) = (loader(unpacked)?, libraries(unpacked)?);
        Ok(Self {
            name: name.into_owned(),
            loader,
            libraries,
        })
    }

    /// Writes `script`, in a folder `bin` of another cache entry, that runs `program` of the root. `before` are shell
    /// lines and `arguments` go before the user's; both may say `$root` and, in `before`, `$libraries`.
    pub fn write_script(&self, script: &Path, program: &str, before: &str, arguments: &str) -> Result<()> {
        let Self {
            name,
            loader,
            libraries,
        } = self;
        let called = script
            .file_name()
            .context("a script needs a name")?
            .to_string_lossy();
        let text = format!(
            "#!/bin/sh\n\
             # {called} with the loader, libraries and data that belong to it.\n\
             root=$(dirname \"$(readlink -f \"$0\")\")/../../{name}\n\
             libraries=$root/{libraries}\n\
             {before}\n\
             exec \"$root/{loader}\" --argv0 {called} --library-path \"$libraries:$root/usr/lib\" \\\n    \
             \"$root/{program}\" {arguments} \"$@\"\n"
        );
        fs::create_dir_all(script.parent().context("a script lies in a folder")?)?;
        fs::write(script, text)?;
        Ok(fs::set_permissions(script, fs::Permissions::from_mode(0o755))?)
    }
}

/// Where the loader lies below the root: in `usr/lib64` or `usr/lib`, by architecture.
fn loader(unpacked: &Path) -> Result<String> {
    for folder in ["usr/lib64", "usr/lib"] {
        if let Some(name) = first(&unpacked.join(folder), |path| starts_with(path, "ld-linux-")) {
            return Ok(format!("{folder}/{name}"));
        }
    }
    bail!("{} holds no loader", unpacked.display())
}

/// The folder of the libraries, which is named after the architecture: `usr/lib/x86_64-linux-gnu`.
fn libraries(unpacked: &Path) -> Result<String> {
    let folder = first(&unpacked.join("usr/lib"), |path| path.join("libc.so.6").exists());
    let folder = folder.with_context(|| format!("{} holds no C library", unpacked.display()))?;
    Ok(format!("usr/lib/{folder}"))
}

fn first(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Option<String> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.sort();
    let found = found.into_iter().find(|path| wanted(path))?;
    Some(found.file_name()?.to_string_lossy().into_owned())
}

fn starts_with(path: &Path, prefix: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_runs_the_program_with_the_libraries_beside_it() {
        let cache = tempfile::tempdir().unwrap();
        let root = cache.path().join("root-1");
        fs::create_dir_all(root.join("usr/lib/some-linux-gnu")).unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/lib/some-linux-gnu/libc.so.6"), "").unwrap();
        // A loader that shows what it is given.
        let loader = root.join("usr/lib/ld-linux-some.so.1");
        fs::write(&loader, "#!/bin/sh\necho \"$MARK $@\"\n").unwrap();
        fs::set_permissions(&loader, fs::Permissions::from_mode(0o755)).unwrap();
        let script = cache.path().join("tools-1/bin/tool");
        let foreign = Foreign::of(&root).unwrap();
        foreign
            .write_script(
                &script,
                "usr/bin/tool",
                "export MARK=marked",
                "-L \"$root/usr/share\"",
            )
            .unwrap();
        let said = crate::command::output(std::process::Command::new(&script).arg("a b")).unwrap();
        let bin = script.parent().unwrap().canonicalize().unwrap();
        let at = format!("{}/../../root-1", bin.display());
        let expected = format!(
            "marked --argv0 tool --library-path {at}/usr/lib/some-linux-gnu:{at}/usr/lib {at}/usr/bin/tool -L {at}/usr/share a b\n"
        );
        assert_eq!(String::from_utf8(said).unwrap(), expected);
    }

    #[test]
    fn a_root_without_a_c_library_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let error = Foreign::of(root.path()).map(drop).unwrap_err().to_string();
        assert!(error.ends_with("holds no loader"), "{error}");
    }
}
