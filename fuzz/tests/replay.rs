//! Every kept script, on stable Rust.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use rvm_fuzz::TARGETS;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_target_withstands_what_was_kept_for_it() {
    for (name, target) in TARGETS {
        let kept = corpus(name);
        assert!(kept.len() >= 3, "{name} has {} scripts", kept.len());
        kept.iter().for_each(|path| target(&fs::read(path).unwrap()));
    }
}

#[test]
fn every_target_withstands_the_scripts_of_all_others() {
    let scripts: Vec<_> = TARGETS.iter().flat_map(|(name, _)| corpus(name)).collect();
    for (_, target) in TARGETS {
        scripts.iter().for_each(|path| target(&fs::read(path).unwrap()));
    }
}

#[test]
fn there_is_a_folder_for_each_target_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    folders.sort();
    names.sort();
    assert_eq!(folders, names);
    assert!(names.len() >= 18);
}
