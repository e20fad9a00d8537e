//! A cluster whose pods run: its control plane in the network of a real node, with a scheduler, controllers and kubelet.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rvm_guests::{Cache, kube_node};

use super::programs::{PORT_ON_NODE, start_apiserver_on, start_scheduler};
use super::{Cluster, kubeconfig_text};
use crate::certificates::Names;
use crate::kubectl::Kubectl;
use crate::node::{self, Lead, NODE, Node, Riscv64Node, riscv64};
use crate::patience::{Look, eventually};
use crate::process::Process;
use crate::tools::{Tools, shown};

/// How kube-scheduler and kube-proxy are called.
const SCHEDULER: &str = "system:kube-scheduler";
const PROXY: &str = "system:kube-proxy";

impl Cluster {
    /// Starts one with a node that is Ready, and our CRDs and roles; `kubectl` and every other client reach it from here
    /// by [`Cluster::kubeconfig`].
    ///
    /// # Errors
    /// It does not start; only root can have one.
    pub fn start_on_node(tools: &Arc<Tools>) -> Result<Self> {
        let mut cluster = Self::start_bare_on_node(tools)?;
        cluster.install(tools)?;
        Ok(cluster)
    }

    /// The same with nothing of ours in it: where an installation is what is tested.
    ///
    /// # Errors
    /// As for [`Cluster::start_on_node`].
    pub fn start_bare_on_node(tools: &Arc<Tools>) -> Result<Self> {
        let node = Node::start(tools)?;
        let mut cluster = Self::control_plane(tools, false, Some(node))?;
        cluster.run_controllers(tools)?;
        cluster.run_scheduler()?;
        cluster.join()?;
        Ok(cluster)
    }

    /// Its node.
    ///
    /// # Errors
    /// It was started without one.
    pub fn node(&self) -> Result<&Node> {
        self.node.as_ref().context("this cluster has no node")
    }

    fn run_scheduler(&mut self) -> Result<()> {
        let kubeconfig = self.write_kubeconfig_of(SCHEDULER)?;
        let programs = kube_node::here(&Cache::open()?)?.programs;
        self.scheduler = Some(start_scheduler(&programs, self.folder.path(), &kubeconfig)?);
        Ok(())
    }

    /// Gives the node its credentials and waits until it is Ready.
    fn join(&mut self) -> Result<()> {
        let folder = self.node()?.folder().to_owned();
        for (name, content) in self.credentials(NODE, node::ADDRESS, &folder)? {
            fs::write(folder.join(name), content)?;
        }
        self.node()?.join()?;
        let (kubectl, node) = (&self.kubectl, self.node.as_mut().context("no node")?);
        let ready = await_ready(kubectl, NODE, || node.must_live());
        ready.map_err(|error| node.complaint(&error))
    }

    /// What kubelet and kube-proxy of a node are known by, as file names and contents; the files will be in `folder` there.
    fn credentials(&self, name: &str, address: &str, folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = vec![("ca.crt".to_owned(), fs::read(self.authority.certificate())?)];
        let kubelet = Names {
            common: &format!("system:node:{name}"),
            organization: Some("system:nodes"),
            hosts: &[address, name],
        };
        let proxy = Names {
            common: PROXY,
            ..Names::default()
        };
        let server = format!("https://{}:{PORT_ON_NODE}", node::ADDRESS);
        for (program, names) in [("kubelet", kubelet), ("proxy", proxy)] {
            let pair = self.authority.issue(&format!("{name}-{program}"), names)?;
            let [certificate, key] = ["crt", "key"].map(|kind| format!("{program}.{kind}"));
            let user = format!(
                "client-certificate: '{}', client-key: '{}'",
                shown(&folder.join(&certificate)),
                shown(&folder.join(&key))
            );
            let text = kubeconfig_text(&server, folder, &user);
            files.push((certificate, fs::read(&pair.certificate)?));
            files.push((key, fs::read(&pair.key)?));
            files.push((format!("{program}.conf"), text.into_bytes()));
        }
        Ok(files)
    }

    /// Starts a second node beside the first: a whole machine of riscv64 with KVM, emulated. It is Ready when this returns.
    ///
    /// # Errors
    /// It does not start, or this cluster has no node of its own.
    pub fn start_riscv64_node(&self) -> Result<Riscv64Node> {
        let (name, address) = (riscv64::NODE, riscv64::ADDRESS);
        let credentials = self.credentials(name, address, Path::new(riscv64::FOLDER))?;
        let mut node = Riscv64Node::start(self.node()?, credentials)?;
        match await_ready(&self.kubectl, name, || node.must_live()) {
            Ok(()) => Ok(node),
            Err(error) => Err(node.complaint(&error)),
        }
    }
}

fn await_ready(kubectl: &Kubectl, name: &str, mut must_live: impl FnMut() -> Result<()>) -> Result<()> {
    let condition = "jsonpath={.status.conditions[?(@.type==\"Ready\")]}";
    eventually("Ready node", || {
        must_live()?;
        let seen = kubectl.run(&["get", "node", name, "-o", condition])?;
        let is_ready = seen.text().contains("\"status\":\"True\"");
        Ok(Look::of(is_ready.then_some(()), || {
            seen.text() + &seen.error_text()
        }))
    })
}

/// Starts the apiserver on a node; also says where it is reached from here.
pub(super) fn start_apiserver(
    node: &Node,
    tools: &Tools,
    folder: &Path,
) -> Result<(Process, u16, Option<Lead>)> {
    let apiserver = start_apiserver_on(node, tools, folder)?;
    let lead = node.lead(&format!("{}:{PORT_ON_NODE}", node::ADDRESS))?;
    Ok((apiserver, lead.port(), Some(lead)))
}
