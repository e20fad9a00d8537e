//! The rules about files and folders as such.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Problem;

/// Words that say nothing about what is in a file or folder.
const EMPTY_WORDS: [&str; 9] = [
    "util",
    "utils",
    "common",
    "helper",
    "helpers",
    "manager",
    "managers",
    "misc",
    "miscellaneous",
];

/// All files of the project, relative to `root`, sorted; without hidden folders and what cargo builds.
pub fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(folder) = left.pop() {
        let entries = fs::read_dir(root.join(&folder));
        for entry in entries.with_context(|| format!("cannot read the folder {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') || (folder.as_os_str().is_empty() && name == "target")
            {
                continue;
            }
            let path = folder.join(name);
            match entry.file_type()?.is_dir() {
                true => left.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Checks names, and that folders have a README.
pub fn check(files: &[PathBuf]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for folder in folders_to_explain(files) {
        let readme = folder.join("README.md");
        if files.binary_search(&readme).is_err() {
            problems.push(Problem::new(&folder, 0, "this folder has no README.md"));
        }
    }
    for path in files
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
    {
        if let Some(word) = empty_word(path) {
            problems.push(Problem::new(
                path,
                0,
                format!("`{word}` says nothing about what is in here"),
            ));
        }
    }
    problems
}

/// The project itself, its top-level folders and its crates.
fn folders_to_explain(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::from([PathBuf::new()]);
    for path in files {
        let mut parts = path.components();
        if let (Some(top), Some(_)) = (parts.next(), parts.next()) {
            folders.insert(PathBuf::from(top.as_os_str()));
        }
        if path.file_name().is_some_and(|name| name == "Cargo.toml") {
            folders.extend(path.parent().map(Path::to_owned));
        }
    }
    folders
}

fn empty_word(path: &Path) -> Option<String> {
    let parts = path.with_extension("");
    let words = parts.components().flat_map(|part| {
        let part = part.as_os_str().to_string_lossy().to_lowercase();
        part.split(['_', '-']).map(str::to_owned).collect::<Vec<_>>()
    });
    words
        .into_iter()
        .find(|word| EMPTY_WORDS.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_says_nothing_is_found_in_any_part_of_a_path() {
        assert_eq!(
            empty_word(Path::new("vmm/common/src/lib.rs")).as_deref(),
            Some("common")
        );
        assert_eq!(
            empty_word(Path::new("vmm/src/disk_helper.rs")).as_deref(),
            Some("helper")
        );
        assert_eq!(empty_word(Path::new("vmm/src/commons.rs")), None);
    }
}
