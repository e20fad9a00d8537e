//! A cluster whose pods run: its control plane in the network of a real node, with a scheduler, controllers and kubelet.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rvm_guests::{Cache, kube_node};

use super::programs::{PORT_ON_NODE, start_apiserver_on, start_scheduler};
use super::{Cluster, kubeconfig_text};
use crate::certificates::Names;
use crate::node::{self, Lead, NODE, Node};
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
        fs::copy(self.authority.certificate(), folder.join("ca.crt"))?;
        let kubelet = Names {
            common: &format!("system:node:{NODE}"),
            organization: Some("system:nodes"),
            hosts: &[node::ADDRESS, NODE],
        };
        self.write_credentials(&folder, "kubelet", kubelet)?;
        let proxy = Names {
            common: PROXY,
            ..Names::default()
        };
        self.write_credentials(&folder, "proxy", proxy)?;
        self.node()?.join()?;
        self.await_ready()
    }

    fn write_credentials(&self, folder: &Path, name: &str, names: Names<'_>) -> Result<()> {
        let pair = self.authority.issue(&format!("node-{name}"), names)?;
        let (certificate, key) = (
            folder.join(format!("{name}.crt")),
            folder.join(format!("{name}.key")),
        );
        fs::copy(&pair.certificate, &certificate)?;
        fs::copy(&pair.key, &key)?;
        let server = format!("https://{}:{PORT_ON_NODE}", node::ADDRESS);
        let user = format!(
            "client-certificate: '{}', client-key: '{}'",
            shown(&certificate),
            shown(&key)
        );
        let text = kubeconfig_text(&server, folder, &user);
        Ok(fs::write(folder.join(format!("{name}.conf")), text)?)
    }

    fn await_ready(&mut self) -> Result<()> {
        let (kubectl, node) = (&self.kubectl, self.node.as_mut().context("no node")?);
        let condition = "jsonpath={.status.conditions[?(@.type==\"Ready\")]}";
        let ready = eventually("Ready node", || {
            node.must_live()?;
            let seen = kubectl.run(&["get", "node", NODE, "-o", condition])?;
            let is_ready = seen.text().contains("\"status\":\"True\"");
            Ok(Look::of(is_ready.then_some(()), || {
                seen.text() + &seen.error_text()
            }))
        });
        ready.map_err(|error| node.complaint(&error))
    }
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
