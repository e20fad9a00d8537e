//! rvm as an operator installs it: by its chart, from its images, on a real node that has all that it needs in a registry.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context, Result};
use rvm_guests::{Cache, helm};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Cluster, Console, Helm, Kubectl, Node, Riscv64Node, Tools, images};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guest;

/// What the demo's manifest names, in the node's registry.
const ALPINE: &str = "library/alpine:3.23";
const API: &str = "rvm-api";
/// All of ours.
const IMAGES: [&str; 4] = [API, "rvm-handler", "rvmm", "rvmm-qemu"];
/// The release and its namespace.
pub const RELEASE: &str = "rvm";
/// What helm is told to take it away.
pub const UNINSTALL: [&str; 7] = [
    "uninstall",
    RELEASE,
    "--namespace",
    RELEASE,
    "--wait",
    "--timeout",
    "3m",
];
/// How long helm may wait.
const TIMEOUT: &str = "4m";

/// A cluster of one node with the chart's release.
#[derive(Debug)]
pub struct Installed {
    cluster: Cluster,
    helm: Helm,
    tools: Arc<Tools>,
    /// With the values that every release of the tests has.
    folder: TempDir,
}

// === impl Installed ===

impl Installed {
    /// Installs it with these values over the chart's own; the node emulates.
    ///
    /// # Errors
    /// It does not come up; the error has what is known of it.
    pub fn start(values: &[&str]) -> Result<Self> {
        let installed = Self::prepare()?;
        installed.install(values)?;
        Ok(installed)
    }

    /// A cluster whose registry has everything, and nothing is installed yet.
    ///
    /// # Errors
    /// The cluster does not start.
    pub fn prepare() -> Result<Self> {
        Self::prepare_with(|tools, node| images::push(tools, node, &IMAGES).map(drop))
    }

    /// The same with a node of riscv64 besides, which has KVM. The registry has these images for both, and rvm-api at least for
    /// this machine's architecture.
    ///
    /// # Errors
    /// As for [`Installed::prepare`].
    pub fn prepare_mixed(for_both: &[&str]) -> Result<(Self, Riscv64Node)> {
        let installed = Self::prepare_with(|tools, node| {
            if !for_both.contains(&API) {
                images::push(tools, node, &[API])?;
            }
            images::push_for_both(tools, node, for_both).map(drop)
        })?;
        let far = installed.cluster.start_riscv64_node()?;
        Ok((installed, far))
    }

    fn prepare_with(push: impl FnOnce(&Tools, &Node) -> Result<()>) -> Result<Self> {
        let tools = Tools::open()?;
        let cluster = Cluster::start_bare_on_node(&tools)?;
        let node = cluster.node()?;
        push(&tools, node)?;
        node.push(&tools.demo().image(), ALPINE)?;
        let installed = Self {
            helm: Helm::of(&tools, &cluster)?,
            folder: tempfile::tempdir()?,
            cluster,
            tools,
        };
        fs::write(installed.folder.path().join("values.json"), values().to_string())?;
        Ok(installed)
    }

    /// Installs the chart, with these values besides.
    ///
    /// # Errors
    /// As for [`Installed::start`].
    pub fn install(&self, values: &[&str]) -> Result<()> {
        self.release(&["install", "--create-namespace"], values)?;
        self.await_served()
    }

    fn await_served(&self) -> Result<()> {
        let served = ["wait", "--for=condition=Available", "--timeout=120s"];
        let served = [&served[..], &["apiservice/v1.subresources.kubevirt.io"]].concat();
        self.kubectl().ok(&served).with_context(|| self.story())?;
        self.await_handlers()
    }

    /// The same without helm: applies what `make manifests` writes, and returns it.
    ///
    /// # Errors
    /// As for [`Installed::start`].
    pub fn apply_manifests(&self) -> Result<String> {
        let own = self.folder.path().join("values.json").display().to_string();
        let manifests = helm::manifests(&Cache::open()?, &["-f".to_owned(), own])?;
        let manifests = String::from_utf8(manifests)?;
        self.kubectl().feed(&["apply", "-f", "-"], &manifests)?.ok()?;
        self.await_served()?;
        Ok(manifests)
    }

    /// Has the node's registry know the same images by another tag.
    ///
    /// # Errors
    /// The registry's.
    pub fn push_again(&self, tag: &str) -> Result<()> {
        images::push_as(&self.tools, self.cluster.node()?, &IMAGES, tag)
    }

    /// Upgrades it: what is not said again is the chart's own.
    ///
    /// # Errors
    /// As for [`Installed::start`].
    pub fn upgrade(&self, values: &[&str]) -> Result<()> {
        self.release(&["upgrade"], values)?;
        self.await_handlers()
    }

    fn release(&self, verb: &[&str], values: &[&str]) -> Result<()> {
        let (chart, own) = (self.helm.chart(RELEASE), self.folder.path().join("values.json"));
        let own = own.display().to_string();
        let common = [
            RELEASE,
            &chart,
            "--namespace",
            RELEASE,
            "--wait",
            "--timeout",
            TIMEOUT,
        ];
        let values = values.iter().flat_map(|value| ["--set", value]);
        let words: Vec<&str> = verb
            .iter()
            .chain(&common)
            .copied()
            .chain(["-f", &own])
            .chain(values)
            .collect();
        self.helm.ok(&words).map(drop).with_context(|| self.story())
    }

    /// Says to the KubeVirt whether nodes without KVM may emulate.
    ///
    /// # Errors
    /// kubectl's.
    pub fn allow_emulation(&self, is_so: bool) -> Result<()> {
        let patch = json!({"spec": {"configuration": {"developerConfiguration": {"useEmulation": is_so}}}});
        let patch = patch.to_string();
        let what = ["patch", "kubevirt", "kubevirt", "-n", "kubevirt"];
        let how = ["--type=merge", "-p", &patch];
        self.kubectl().ok(&[&what[..], &how].concat()).map(drop)
    }

    /// Helm takes a DaemonSet for ready as long as enough of it is, and of one node that is none.
    ///
    /// # Errors
    /// One does not come.
    pub fn await_handlers(&self) -> Result<()> {
        let rolled = [
            "rollout",
            "status",
            "-n",
            RELEASE,
            "ds/rvm-handler",
            // An emulated node is slow to fetch its image.
            "--timeout=240s",
        ];
        self.kubectl().ok(&rolled).map(drop).with_context(|| self.story())
    }

    /// Its administrator's kubectl.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Where charts are installed from.
    #[must_use]
    pub fn helm(&self) -> &Helm {
        &self.helm
    }

    /// Every program of the test.
    #[must_use]
    pub fn tools(&self) -> &Arc<Tools> {
        &self.tools
    }

    /// Waits until a VMI runs.
    ///
    /// # Errors
    /// It does not; the error has what is known of it.
    pub fn await_running(&self, name: &str) -> Result<Value> {
        let running = self.kubectl().await_phase(name, "Running");
        running.with_context(|| self.story())
    }

    /// At the demo's console, by kube-apiserver and rvm-api, as any user of kubectl is.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn console(&self) -> Result<Console> {
        let viewer = self
            .kubectl()
            .on_terminal(&["rvm", "console", guest::NAME], &[])?;
        guest::answers(viewer).with_context(|| self.story())
    }

    /// What a server at an address of the cluster's answers to who asks for its first page by HTTP, or why there is no answer.
    ///
    /// # Errors
    /// The way there is not to be had.
    pub fn page(&self, address: &str) -> Result<String> {
        let lead = self.cluster.node()?.lead(address)?;
        let mut answer = String::new();
        let asked = TcpStream::connect(("127.0.0.1", lead.port())).and_then(|mut stream| {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        Ok(match asked {
            Ok(_) => answer,
            Err(error) => error.to_string(),
        })
    }

    /// The pods of machines.
    ///
    /// # Errors
    /// kubectl's.
    pub fn pods(&self) -> Result<Vec<Value>> {
        let pods = self
            .kubectl()
            .get(&["pods", "-A", "-l", "kubevirt.io=virt-launcher"])?;
        Ok(pods["items"].as_array().cloned().unwrap_or_default())
    }

    /// The one pod that a machine has.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn pod(&self) -> Result<Value> {
        let pods = self.pods()?;
        let [pod] = <[Value; 1]>::try_from(pods).map_err(|pods| anyhow::anyhow!("{} pods", pods.len()))?;
        Ok(pod)
    }

    /// Waits until no machine has a pod.
    ///
    /// # Errors
    /// One stays.
    pub fn await_no_pods(&self) -> Result<()> {
        eventually("end of all machines' pods", || {
            let pods = self.pods()?;
            Ok(Look::of(pods.is_empty().then_some(()), || self.story()))
        })
    }

    /// The names of all in the cluster that an installation may bring and that is in no namespace.
    ///
    /// # Errors
    /// kubectl's.
    pub fn objects(&self) -> Result<BTreeSet<String>> {
        let kinds = "crd,apiservice,clusterrole,clusterrolebinding,namespace,priorityclass,mutatingwebhookconfiguration,\
                     validatingwebhookconfiguration";
        let mut names: BTreeSet<String> = BTreeSet::new();
        for more in [&[kinds][..], &["rolebinding", "-n", "kube-system"]] {
            let said = self.kubectl().ok(&[&["get", "-o", "name"], more].concat())?;
            names.extend(said.lines().map(str::to_owned));
        }
        Ok(names)
    }

    /// Whether `kubectl drain` empties a node of machines, and what it says. The node takes new ones again afterwards.
    ///
    /// # Errors
    /// kubectl's.
    pub fn drain(&self, node: &str) -> Result<(bool, String)> {
        let words = [
            "drain",
            node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--pod-selector=kubevirt.io=virt-launcher",
            "--timeout=40s",
        ];
        let said = self.kubectl().run(&words)?;
        self.kubectl().ok(&["uncordon", node])?;
        Ok((said.status() == Some(0), said.text() + &said.error_text()))
    }

    /// What is known of all that runs, for an error.
    #[must_use]
    pub fn story(&self) -> String {
        let said = |words: &[&str]| self.kubectl().run(words).map(|said| said.text());
        let all = [
            said(&["get", "pods", "-A", "-o", "wide"]),
            said(&["describe", "pods", "-n", RELEASE]),
            said(&["describe", "pods", "-n", "default"]),
            said(&["logs", "-n", RELEASE, "-l", "app=rvm-api", "--tail", "30"]),
            said(&["logs", "-n", RELEASE, "-l", "app=rvm-handler", "--tail", "30"]),
            said(&[
                "logs",
                "-n",
                "default",
                "-l",
                "kubevirt.io=virt-launcher",
                "--tail",
                "30",
            ]),
        ];
        let told = all.map(|said| said.unwrap_or_else(|error| format!("{error:#}")));
        told.join("\n")
    }
}

/// What makes a release that of the tests: our images, and a node that emulates and asks its own registry for everything.
fn values() -> Value {
    // Whatever images of guests are called, they are in the one registry that there is.
    let registries = ["docker.io", "registry:5000", "198.18.0.1:5000"].map(|prefix| {
        format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"198.18.0.1:5000\"\ninsecure = true\n")
    });
    json!({
        "images": {"registry": rvm_harness::node::REGISTRY, "tag": images::TAG},
        "useEmulation": true,
        "api": {"replicas": 1},
        "handler": {"registries": registries.concat()},
    })
}
