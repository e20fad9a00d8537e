//! What a handler without VMIs must not have: machines' folders, disks, unfinished files, processes, mounts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::handler::Handler;

/// What is being made has a name that begins so, in every folder of a handler.
const UNFINISHED: &str = ".new-";

impl Handler {
    /// The paths of all that lies in its folders now.
    ///
    /// # Errors
    /// The file system's.
    pub fn paths(&self) -> Result<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        walk(&self.run_dir(), &mut paths)?;
        walk(&self.state_dir(), &mut paths)?;
        Ok(paths)
    }

    /// What is left of machines, one line each.
    ///
    /// # Errors
    /// The file system's.
    pub fn leavings(&self) -> Result<Vec<String>> {
        let machines = fs::read_dir(self.run_dir())?.flatten().map(|entry| entry.path());
        let mut left: BTreeSet<PathBuf> = machines.filter(|path| path.is_dir()).collect();
        walk(&self.state_dir().join("disks"), &mut left)?;
        let unfinished = self.paths()?.into_iter().filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(UNFINISHED)
        });
        left.extend(unfinished);
        let mut lines: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
        let folder = self.run_dir().parent().unwrap_or(Path::new("/")).to_owned();
        let folder = folder.display().to_string();
        lines.extend(processes_about(&folder)?);
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mounts = mounts.lines().filter(|line| line.contains(&folder));
        lines.extend(mounts.map(str::to_owned));
        Ok(lines)
    }
}

/// Adds what is in a folder. What goes while it is looked at is not there.
fn walk(folder: &Path, paths: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, paths)?;
        }
        paths.insert(path);
    }
    Ok(())
}

/// The machines' processes, rvmm and QEMU, that were started with a path in this folder and still run.
fn processes_about(folder: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let program = words.split(' ').next().unwrap_or_default();
        let is_machine = program.ends_with("/rvmm") || words.contains("qemu-system");
        if is_machine && words.contains(folder) {
            found.push(format!("process {}: {words}", entry.file_name().display()));
        }
    }
    Ok(found)
}
