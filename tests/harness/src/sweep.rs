//! Takes away what is left when a test is over, even one that is killed: folders, and the machines of a handler, which it
//! leaves as it should.
//!
//! A shell in a session of its own waits for the end of a pipe that only the test holds open. Then it kills whoever holds the
//! locks in the run directories, by the process number that stands in the locked file, and removes the folder.

use std::io::{PipeWriter, pipe};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::tools::shown;

/// `$1` is the folder; its `run` has the run directories. A machine that is about to run holds its log and has no number yet.
const SCRIPT: &str = r#"
read -r end
rounds=200
while [ $rounds -gt 0 ]; do
    rounds=$((rounds - 1))
    held=
    for file in "$1"/run/*/pid "$1"/run/*/rvmm.log; do
        [ -e "$file" ] || continue
        flock --nonblock --shared "$file" true && continue
        held=yes
        # Asked, it takes its own folder away; who does not listen is killed.
        [ $rounds -gt 150 ] && signal=TERM || signal=KILL
        case $file in */pid) kill -$signal "$(cat "$file")" ;; esac
    done
    # What still dies may still write.
    [ "$held" ] || { rm -rf "$1" && break; }
    sleep 0.1
done
"#;

/// Ends machines and removes their folder when it is dropped, or when this process ends.
#[derive(Debug)]
pub struct Sweeper {
    shell: Child,
    end: Option<PipeWriter>,
}

impl Sweeper {
    /// For a folder, and the machines in its `run`, if any.
    ///
    /// # Errors
    /// No shell.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_by(SCRIPT, &[&shown(folder)])
    }

    /// For what a script of its own takes away, once it has read the end of its input.
    pub(crate) fn start_by(script: &str, words: &[&str]) -> Result<Self> {
        let (reader, end) = pipe()?;
        let shell = Command::new("setsid")
            .args(["sh", "-c", script, "sweeper"])
            .args(words)
            .stdin(reader)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run setsid (package util-linux)")?;
        Ok(Self {
            shell,
            end: Some(end),
        })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.end.take());
        // It ends by itself, and its status says nothing that could still be acted on.
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::{Look, eventually};
    use rvmm_control::{Liveness, RunDir};

    #[test]
    fn who_holds_a_run_directory_is_killed_and_who_does_not_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::new(folder.path().join("run/held"));
        let stale = RunDir::new(folder.path().join("run/stale"));
        run.create().unwrap();
        stale.create().unwrap();
        // A number in a file without a lock may be anybody's by now: here, ours.
        std::fs::write(stale.path().join("pid"), std::process::id().to_string()).unwrap();
        let sweeper = Sweeper::start(folder.path()).unwrap();
        let pid = run.path().join("pid");
        let hold = format!(
            "echo $$ >{0}; exec 9<{0}; flock 9; exec sleep 1000",
            pid.display()
        );
        let mut holder = Command::new("sh").args(["-c", &hold]).spawn().unwrap();
        eventually("holder", || {
            let held = matches!(run.liveness()?, Liveness::Alive(Some(_)));
            Ok(Look::of(held.then_some(()), || "no lock".to_owned()))
        })
        .unwrap();

        drop(sweeper);
        assert!(!holder.wait().unwrap().success());
        assert!(!folder.path().exists());
    }
}
