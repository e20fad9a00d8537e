//! Where machines run, and by which program.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;

use super::absolute;

/// Where machines run, as it is typed.
#[derive(Debug, clap::Args)]
pub(super) struct Launching {
    /// Where machines run: as processes of this handler (process), or each in the pod that rvm-api has made for it (pod)
    #[arg(long, value_enum, default_value_t, conflicts_with = "local")]
    launcher: LauncherArg,
    /// With --launcher pod: where the kubelet keeps pods' volumes and devices
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// The VMM of machines that are processes [default: rvmm beside this program, then on the path]
    #[arg(long, value_name = "PATH")]
    rvmm: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LauncherArg {
    #[default]
    Process,
    Pod,
}

// === impl Launching ===

impl Launching {
    /// The VMM, and the kubelet's folder where machines run in pods, which bring the VMM themselves.
    ///
    /// # Errors
    /// There is no VMM, or we may not work in pods.
    pub(super) fn resolve(self, root: bool) -> Result<(PathBuf, Option<PathBuf>)> {
        if self.launcher == LauncherArg::Process {
            return Ok((self.rvmm.map_or_else(find_rvmm, absolute)?, None));
        }
        ensure!(
            root,
            "--launcher pod needs root: it works in pods' networks and gives their users files"
        );
        Ok((PathBuf::new(), Some(absolute(self.kubelet_dir)?)))
    }
}

fn find_rvmm() -> Result<PathBuf> {
    let beside = env::current_exe().ok().map(|own| own.with_file_name("rvmm"));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|dir| dir.join("rvmm"));
    match beside
        .into_iter()
        .chain(on_path)
        .find(|candidate| candidate.is_file())
    {
        Some(found) => absolute(found),
        None => bail!("rvmm is neither beside rvm-handler nor on the path; say where with --rvmm"),
    }
}
