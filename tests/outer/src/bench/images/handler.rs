//! A handler of this machine in local mode, and what it says of the machines that it is asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::here::{self, Server};

/// Where the programs are that are measured, and what they need.
#[derive(Debug, Clone)]
pub struct Programs {
    /// rvm-handler, rvm and rvmm, as they are shipped.
    pub folder: PathBuf,
    /// What has to be in their environment.
    pub environment: Vec<(&'static str, std::ffi::OsString)>,
    /// The folder with the guests' kernel and init.
    pub guests: PathBuf,
}

/// A running handler with a folder of its own.
#[derive(Debug)]
pub struct Handler {
    server: Server,
    folder: TempDir,
    programs: Programs,
}

// === impl Handler ===

impl Handler {
    /// Starts one that takes images as `mirror` says and runs machines by this program.
    pub fn start(programs: &Programs, mirror: &str, rvmm: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rvm-bench-").tempdir()?;
        let mut command = Command::new(programs.folder.join("rvm-handler"));
        command
            .args([
                "--local",
                "--node",
                "bench",
                "--log-format",
                "json",
                "--mirror",
                mirror,
            ])
            .arg("--rvmm")
            .arg(rvmm)
            .arg("--guests")
            .arg(&programs.guests)
            .envs(programs.environment.iter().map(|(name, value)| (name, value)))
            .env("RVM_RUN", folder.path().join("run"))
            .env("RVM_STATE", folder.path().join("state"))
            .env_remove("KUBECONFIG");
        let mut server = Server::start(&mut command, folder.path().join("log"))?;
        server.line(&["the local API serves kubectl"])?;
        server.line(&["rvm-handler serves"])?;
        Ok(Self {
            server,
            folder,
            programs: programs.clone(),
        })
    }

    /// Where its machines' folders are.
    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Applies the VMI of this name that has this image as its root file system.
    pub fn apply(&self, name: &str, image: &str) -> Result<()> {
        let path = self.folder.path().join("vmi.yaml");
        fs::write(&path, manifest(name, image))?;
        self.rvm(&["apply", "-f", &path.display().to_string()])
    }

    /// Deletes a VMI and waits until nothing of it is left.
    pub fn delete(&self, name: &str, machine: &Path) -> Result<()> {
        self.rvm(&["delete", name])?;
        here::gone(machine)
    }

    fn rvm(&self, arguments: &[&str]) -> Result<()> {
        let mut rvm = Command::new(self.programs.folder.join("rvm"));
        rvm.args(arguments)
            .env("RVM_RUN", self.run_dir())
            .env("RVM_STATE", self.folder.path().join("state"));
        let output = rvm.output().context("cannot run rvm")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "rvm {arguments:?}: {said}");
        Ok(())
    }

    /// When it said this of a VMI, in seconds since 1970.
    pub fn when(&mut self, name: &str, message: &str) -> Result<f64> {
        let (vm, message) = (
            format!("\"vm\":\"default/{name}\""),
            format!("\"message\":\"{message}\""),
        );
        self.server.when(&[&vm, &message])
    }

    /// The processors' time that it has had, and the processes that it started and that have ended.
    pub fn cpu(&self) -> Result<f64> {
        here::cpu(&self.server.id().to_string())
    }
}

fn manifest(name: &str, image: &str) -> String {
    format!(
        "apiVersion: kubevirt.io/v1\n\
         kind: VirtualMachineInstance\n\
         metadata: {{name: {name}, annotations: {{rvm/root-filesystem: root}}}}\n\
         spec:\n  \
           terminationGracePeriodSeconds: 0\n  \
           domain: {{memory: {{guest: 256Mi}}, devices: {{disks: [{{name: root, disk: {{bus: virtio}}}}]}}}}\n  \
           volumes: [{{name: root, containerDisk: {{image: '{image}'}}}}]\n"
    )
}
