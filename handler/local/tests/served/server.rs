//! The local API as a process of its own, with a state folder that lives as long as the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kube::config::{KubeConfigOptions, Kubeconfig};

/// A running server; it ends with the test.
pub struct Server {
    process: Child,
    pub kubeconfig: PathBuf,
}

impl Server {
    /// Starts a server on a state folder and waits until it can be asked.
    pub fn start(state: &Path) -> Self {
        let mut process = command(state).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            process,
            kubeconfig: PathBuf::from(line.trim_end()),
        }
    }

    /// SIGKILL: no chance to finish anything.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn read_kubeconfig(&self) -> Kubeconfig {
        Kubeconfig::read_from(&self.kubeconfig).unwrap()
    }

    /// A client that goes through TLS, as other programs do.
    pub async fn client(&self) -> kube::Client {
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(self.read_kubeconfig(), &options)
            .await
            .unwrap();
        kube::Client::try_from(config).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone where the test killed it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's command line, not yet started.
pub fn command(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rvm-local"));
    command.arg(state);
    command
}
