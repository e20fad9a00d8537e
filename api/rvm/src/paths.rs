//! Where local mode keeps its socket and its kubeconfig.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The folder of what lives as long as the machines run: `RVM_RUN`, `/run/rvm` for root, `$XDG_RUNTIME_DIR/rvm`.
fn run() -> Result<PathBuf> {
    if let Some(run) = variable("RVM_RUN") {
        return Ok(run);
    }
    if is_root() {
        return Ok("/run/rvm".into());
    }
    let runtime = variable("XDG_RUNTIME_DIR")
        .context("neither RVM_RUN nor XDG_RUNTIME_DIR is set; name a server with --server")?;
    Ok(runtime.join("rvm"))
}

/// The folder of what stays: `RVM_STATE`, `/var/lib/rvm` for root, `$XDG_STATE_HOME/rvm` or `~/.local/state/rvm`.
fn state() -> Result<PathBuf> {
    if let Some(state) = variable("RVM_STATE") {
        return Ok(state);
    }
    if is_root() {
        return Ok("/var/lib/rvm".into());
    }
    if let Some(state) = variable("XDG_STATE_HOME") {
        return Ok(state.join("rvm"));
    }
    let home = variable("HOME").context("neither XDG_STATE_HOME nor HOME is set")?;
    Ok(home.join(".local/state/rvm"))
}

/// The socket of this machine's `rvm-handler --local`.
pub fn socket() -> Result<PathBuf> {
    Ok(run()?.join("rvm.sock"))
}

/// The kubeconfig that `rvm-handler --local` has written.
pub fn kubeconfig() -> Result<PathBuf> {
    let path = state()?.join("kubeconfig");
    if !path.is_file() {
        bail!(
            "{} is not there; `rvm-handler --local` writes it when it starts",
            path.display()
        );
    }
    Ok(path)
}

/// The address of local mode's web console, with its token, as `rvm-handler --local` has written it down.
pub fn web_console() -> Result<String> {
    let path = state()?.join("web/address");
    match std::fs::read_to_string(&path) {
        Ok(address) => Ok(address.trim_end().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "{} is not there; `rvm-handler --local` writes it when it starts, unless with --web-listen none",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

/// The kubeconfig that kubectl reads where none is named, if it is there.
pub fn kubectls_own() -> Option<PathBuf> {
    let path = variable("HOME")?.join(".kube/config");
    path.is_file().then_some(path)
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
