//! A node of a real cluster in the lab: `rvm-handler` runs VMIs there under its KVM, and their consoles are reached from here.
//!
//! ```text
//!   this machine                                  the lab
//!   kube-apiserver, registry ◄── 10.0.2.2 ─────── rvm-handler ─► rvmm ─► guest (KVM)
//!   rvm console or rvm-api ── a forwarded port, TLS ►
//! ```

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rvm_harness::tools::{Environment, shown};
use rvm_harness::{Cluster, Manifest, Names, PATIENCE, Registry, Tools};
use rvm_outer::{Host, Lab, Profile, Session, Setup, Signal};
use serde_json::{Value, json};

use crate::guest;

/// The node's name.
const NAME: &str = "lab";

/// Where its handler serves gRPC.
const GRPC: u16 = 9443;

/// Below this folder host disks may lie.
pub const HOST_DISKS: &str = "/var/lib/disks";

/// Where firmware lies, for whoever puts some there.
const FIRMWARE: &str = "/lab/firmware";

const HANDLER: &str = "rvm-handler --node lab --kubeconfig /etc/rvm/kubeconfig --guests /demo --run-dir /run/rvm \
                       --state-dir /var/lib/rvm --host-disk-dir /var/lib/disks --pod-network none";

/// How viewers get in, by certificates of ours.
const DOOR: &str = "--grpc-listen 0.0.0.0:9443 --tls-cert /etc/rvm/tls.crt --tls-key /etc/rvm/tls.key --client-ca /etc/rvm/ca.crt";

/// A lab that is about to be a node.
pub struct NodeSetup {
    tools: Arc<Tools>,
    cluster: Cluster,
    lab: Setup,
    door: String,
    arguments: Vec<String>,
}

/// The node. It ends with its lab.
pub struct LabNode {
    /// Its cluster.
    pub cluster: Cluster,
    /// Where it runs.
    pub lab: Lab,
    tools: Arc<Tools>,
    handler: Session,
}

// === impl NodeSetup ===

impl NodeSetup {
    /// A cluster, and a lab with the handler and with what boots ordinary images.
    ///
    /// # Errors
    /// Something of it cannot be built or does not start.
    pub fn new(tools: &Arc<Tools>) -> Result<Self> {
        let cluster = Cluster::start(tools)?;
        cluster.add_node(NAME)?;
        let names = Names {
            common: "handler",
            hosts: &["127.0.0.1"],
            ..Names::default()
        };
        let pair = cluster.authority().issue("handler", names)?;
        let mut lab = Setup::new(Profile::AIA)
            .built("rvmm", "rvmm")?
            .built("rvm-handler", "rvm-handler")?
            .forward(GRPC)
            .file(
                &format!("{}/about", HOST_DISKS.trim_start_matches('/')),
                0o600,
                "",
            );
        let server = format!("https://10.0.2.2:{}", cluster.port());
        for (name, content) in cluster.kubeconfig_for(&server, Path::new("/etc/rvm"))? {
            lab = lab.file(&format!("etc/rvm/{name}"), 0o600, content);
        }
        for (name, path) in [("tls.crt", &pair.certificate), ("tls.key", &pair.key)] {
            lab = lab.file(&format!("etc/rvm/{name}"), 0o600, fs::read(path)?);
        }
        // Whoever fetches images wants the system to know some authority, also where TLS is not spoken.
        let authority = fs::read(cluster.authority().certificate())?;
        lab = lab.file("etc/ssl/certs/ca-certificates.crt", 0o644, authority);
        for name in ["Image", "init.cpio"] {
            let content = fs::read(tools.demo().folder.join(name))?;
            lab = lab.file(&format!("demo/{name}"), 0o644, content);
        }
        Ok(Self {
            tools: Arc::clone(tools),
            cluster,
            lab,
            door: DOOR.to_owned(),
            arguments: Vec::new(),
        })
    }

    /// With a door for an rvm-api of this machine alone, by certificates that it hands over: at the address that the node's object says,
    /// so at the same port here and there.
    ///
    /// # Errors
    /// kubectl's; or there is no port.
    pub fn behind_api(mut self) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let here = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
        let words = [
            "patch",
            "node",
            NAME,
            "--subresource=status",
            "--type=merge",
            "-p",
        ];
        let kubectl = self.cluster.kubectl();
        kubectl.ok(&[&words[..], &[&here.to_string()]].concat())?;
        self.lab = self.lab.forward_same(port);
        self.door = format!("--grpc-listen 0.0.0.0:{port}");
        Ok(self)
    }

    /// With this registry of this machine in the place of another.
    #[must_use]
    pub fn mirror(mut self, name: &str, registry: &Registry) -> Self {
        let mirror = format!("{name}=http://10.0.2.2:{}", registry.port());
        self.arguments.extend(["--mirror".to_owned(), mirror]);
        self
    }

    /// With this firmware.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn firmware(mut self, files: &[PathBuf]) -> Result<Self> {
        for file in files {
            let name = file.file_name().context("firmware without a name")?;
            let place = format!("{}/{}", FIRMWARE.trim_start_matches('/'), name.display());
            self.lab = self.lab.file(&place, 0o644, fs::read(file)?);
        }
        Ok(self)
    }

    /// Starts the lab and its handler.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(self) -> Result<LabNode> {
        let lab = self.lab.start()?;
        let firmware = format!("RVM_FIRMWARE={FIRMWARE}");
        let mut argv = vec!["env", firmware.as_str()];
        argv.extend(HANDLER.split_whitespace().chain(self.door.split_whitespace()));
        argv.extend(self.arguments.iter().map(String::as_str));
        let mut handler = lab.spawn(&argv)?;
        handler.expect("rvm-handler serves", PATIENCE)?;
        Ok(LabNode {
            cluster: self.cluster,
            lab,
            tools: self.tools,
            handler,
        })
    }
}

// === impl LabNode ===

impl LabNode {
    /// Makes objects, waits until the VMI among them runs, and returns it. It runs by KVM.
    ///
    /// # Errors
    /// It does not; with what the handler said.
    pub fn run(&self, name: &str, manifests: &[Manifest]) -> Result<Value> {
        let kubectl = self.cluster.kubectl();
        kubectl.apply(manifests)?;
        let running = kubectl.await_phase(name, "Running");
        let vmi = running.with_context(|| self.handler.said())?;
        let emulated = guest::condition_of(&vmi, "SoftwareEmulation");
        ensure!(emulated.is_none(), "{name} is emulated: {vmi}");
        Ok(vmi)
    }

    /// What a program of this machine is told to reach the node, as somebody whom the node knows.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn environment(&self) -> Result<Environment> {
        let names = Names {
            common: "viewer",
            ..Names::default()
        };
        let authority = self.cluster.authority();
        let viewer = authority.issue("viewer", names)?;
        let server = format!("https://{}", self.lab.forwarded(GRPC)?);
        let environment = [
            ("RVM_SERVER", server),
            ("RVM_CA", shown(&authority.certificate())),
            ("RVM_CERT", shown(&viewer.certificate)),
            ("RVM_KEY", shown(&viewer.key)),
        ];
        Ok(environment.map(|(name, value)| (name.to_owned(), value)).to_vec())
    }

    /// A viewer of a guest's console, on this machine.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn console(&self, name: &str) -> Result<Session> {
        self.tools
            .start_on_terminal(&["rvm", "console", name], &self.environment()?)
    }

    /// Deletes a VMI, after which no machine is left, and has the handler end.
    ///
    /// # Errors
    /// Something is left, or the handler does not end well.
    pub fn end(mut self, name: &str) -> Result<()> {
        self.cluster
            .kubectl()
            .ok(&["delete", "vmi", name, "--timeout=120s"])?;
        let left = self.lab.run(&["pidof", "rvmm"])?.text();
        ensure!(left.trim().is_empty(), "rvmm lives on: {left}");
        self.handler.kill(Signal::TERM)?;
        self.handler.wait(PATIENCE)?.ok()?;
        Ok(())
    }
}
