//! The resident memory of processes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Bytes that a process has in memory, what it shares with others included.
pub fn of(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let text = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: f64 = text.context("a process without memory")?.parse()?;
    Ok(kibibytes * 1024.0)
}

/// The same of all processes that were started with a path in this folder, but for those of one program.
pub fn of_those_in(folder: &Path, without: &OsStr) -> Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir("/proc")? {
        let Ok(process) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // Some end while we look.
        let Ok(words) = fs::read(format!("/proc/{process}/cmdline")) else {
            continue;
        };
        let mut words = words
            .split(|byte| *byte == 0)
            .map(OsStr::from_bytes)
            .map(Path::new);
        let is_other = words.next().and_then(Path::file_name) != Some(without);
        if is_other && words.any(|word| word.starts_with(folder)) {
            sum += of(process).unwrap_or_default();
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvm_harness::patience::{Look, eventually};

    #[test]
    fn processes_are_known_by_what_they_were_started_with() {
        assert!(of(std::process::id()).unwrap() > 1e5);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let mut follower = std::process::Command::new("tail")
            .arg("-f")
            .arg(&file)
            .spawn()
            .unwrap();
        // A process that was just started has no words for a moment.
        let all = eventually("process", || {
            let all = of_those_in(folder.path(), OsStr::new("none"))?;
            Ok(Look::of((all > 0.0).then_some(all), || all.to_string()))
        });
        let others = of_those_in(folder.path(), OsStr::new("tail")).unwrap();
        follower.kill().unwrap();
        follower.wait().unwrap();
        assert!(all.is_ok(), "{all:?}");
        assert!(others < 1.0, "{others}");
    }
}
