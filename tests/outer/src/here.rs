//! This machine as a host: the same commands and the same assertions as in the lab, without the lab.
//!
//! The agent is a thread of the test. Commands get a folder of their own that goes with the host, the toolbox's emulator
//! and the programs that cargo has just built, and are killed when the test ends, however it does.

use std::env;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use rvm_guests::{Cache, Kernel, Toolbox, bench, tiny};
use rvm_outer_agent::serve;
use tempfile::TempDir;

use crate::host::{Assets, Host};

/// Stands before every command: the thread that serves it ends with the test, and a test that runs in a shell's background
/// ignores SIGINT, which its commands on terminals are to obey.
const LAUNCHER: [&str; 6] = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    "--",
    "env",
    "--default-signal=INT,QUIT",
];

/// This machine.
#[derive(Debug)]
pub struct Here {
    folder: TempDir,
    path: String,
    assets: Assets,
}

impl Here {
    /// This machine with the guests and the emulator of the cache.
    pub fn start() -> Result<Self> {
        let cache = Cache::open()?;
        let shown = |path: PathBuf| path.display().to_string();
        let assets = Assets {
            kernel: shown(Kernel::debian(&cache)?.image),
            tiny: shown(tiny::build(&cache)?),
            bench: shown(bench::build(&cache)?),
        };
        Self::with(&[Toolbox::open(&cache)?.bin_dir(), built_programs()?], assets)
    }

    /// This machine with `folders` first in `PATH`.
    pub fn with(folders: &[PathBuf], assets: Assets) -> Result<Self> {
        let machine = env::var_os("PATH").unwrap_or_default();
        let folders = folders.iter().cloned().chain(env::split_paths(&machine));
        let path = env::join_paths(folders)?
            .into_string()
            .ok()
            .context("PATH is not UTF-8")?;
        Ok(Self {
            folder: tempfile::tempdir()?,
            path,
            assets,
        })
    }
}

impl Host for Here {
    fn name(&self) -> &'static str {
        "this machine"
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn assets(&self) -> &Assets {
        &self.assets
    }

    fn has_kvm(&self) -> bool {
        false
    }

    fn environment(&self) -> Vec<(String, String)> {
        vec![("PATH".to_owned(), self.path.clone())]
    }

    fn connect(&self) -> Result<File> {
        let (ours, theirs) = UnixStream::pair()?;
        thread::spawn(move || {
            // A client that leaves early is no concern of ours; it knows.
            let _ = serve::serve(File::from(OwnedFd::from(theirs)), &LAUNCHER);
        });
        Ok(File::from(OwnedFd::from(ours)))
    }
}

/// Where our own programs for this machine lie: `RVM_BIN_DIR`, or beside this test.
pub fn built_programs() -> Result<PathBuf> {
    if let Some(named) = env::var_os("RVM_BIN_DIR") {
        return Ok(named.into());
    }
    let own = env::current_exe().context("cannot find this program")?;
    let folder = own.parent().context("this program lies nowhere")?;
    Ok(if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder).to_owned()
    } else {
        folder.to_owned()
    })
}
