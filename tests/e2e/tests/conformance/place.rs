//! Where a case is carried out: an API with one node behind it, and what its users have in hand.

use anyhow::{Context, Result};
use rvm_e2e::guest::NAME;
use rvm_e2e::lab_node::{LabNode, NodeSetup};
use rvm_guests::{Cache, images};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Api, Cluster, Handler, HandlerSetup, Kubectl, Manifest, Plain, Registry, Tools};
use rvm_outer::Output;
use serde_json::{Value, json};

pub const SUBRESOURCES: &str = "/apis/subresources.kubevirt.io/v1/namespaces/default";

/// VMIs, in paths.
pub const INSTANCES: &str = "virtualmachineinstances";

/// KubeVirt's image of a kernel, and what of it boots. Ours has no guest agent.
const KERNEL_BOOT: &str = "registry:5000/kubevirt/alpine-ext-kernel-boot-demo:devel";
pub const KERNEL: &str = "/boot/vmlinuz-virt";
const INITRD: &str = "/boot/initramfs-virt";

/// An API with one node.
pub struct Place {
    /// Its administrator's.
    pub kubectl: Kubectl,
    node: Node,
}

/// What is behind the API. What comes first ends first.
enum Node {
    /// Local mode.
    Local { _handler: Box<Handler> },
    /// A node of this machine.
    Here { _node: Box<(Handler, Api, Cluster)> },
    /// A node with KVM.
    Lab { _node: Box<(Api, LabNode, Registry)> },
}

impl Place {
    /// Local mode.
    ///
    /// # Errors
    /// It does not start.
    pub fn local() -> Result<Self> {
        Self::local_with(&[])
    }

    /// The same, with a handler that is told more.
    ///
    /// # Errors
    /// It does not start.
    pub fn local_with(arguments: &[String]) -> Result<Self> {
        let tools = Tools::open()?;
        let setup = HandlerSetup::local().with_all(arguments);
        let node = furnished(setup)?.start(&tools)?;
        Ok(Self {
            kubectl: node.kubectl()?,
            node: Node::Local {
                _handler: Box::new(node),
            },
        })
    }

    /// A cluster.
    ///
    /// # Errors
    /// It does not start.
    pub fn cluster() -> Result<Self> {
        Self::cluster_with(&[])
    }

    /// The same, with a handler that is told more.
    ///
    /// # Errors
    /// It does not start.
    pub fn cluster_with(arguments: &[String]) -> Result<Self> {
        let tools = Tools::open()?;
        let mut cluster = Cluster::start(&tools)?;
        cluster.run_controllers(&tools)?;
        cluster.add_node("n1")?;
        let setup = HandlerSetup::on_node(&cluster, "n1").with(&["--grpc-listen", "127.0.0.1:0"]);
        let setup = setup.with_all(arguments);
        let node = furnished(setup)?.start(&tools)?;
        let api = Api::start(&tools, &cluster)?;
        Ok(Self {
            kubectl: Kubectl::new(&tools, &cluster.kubeconfig())?,
            node: Node::Here {
                _node: Box::new((node, api, cluster)),
            },
        })
    }

    /// A cluster whose node is an emulated host with KVM, and a registry from which it has its images.
    ///
    /// # Errors
    /// It does not start.
    pub fn lab() -> Result<Self> {
        let tools = Tools::open()?;
        let registry = Registry::start()?;
        registry.push(&tools.demo().image(), "library/alpine:3.23")?;
        let (_, kernel_boot) = KERNEL_BOOT.split_once('/').context("no registry")?;
        registry.push(&images::kernel_boot(&Cache::open()?)?, kernel_boot)?;
        let setup = NodeSetup::new(&tools)?
            .mirror("docker.io", &registry)
            .mirror("registry:5000", &registry);
        let mut node = setup.behind_api()?.start()?;
        node.cluster.run_controllers(&tools)?;
        let api = Api::start(&tools, &node.cluster)?;
        Ok(Self {
            kubectl: Kubectl::new(&tools, &node.cluster.kubeconfig())?,
            node: Node::Lab {
                _node: Box::new((api, node, registry)),
            },
        })
    }

    /// Applies these, which has to go well.
    pub fn apply(&self, manifests: &[Manifest]) {
        self.kubectl.apply(manifests).unwrap();
    }

    /// Applies the VMI and waits until its guest runs.
    pub fn run(&self, vmi: Manifest) -> Value {
        self.apply(&[vmi]);
        let running = self.kubectl.await_phase(NAME, "Running").unwrap();
        self.must_be_as_promised(&running);
        running
    }

    /// Where there is KVM nothing is emulated.
    fn must_be_as_promised(&self, running: &Value) {
        let emulated = condition(running, "SoftwareEmulation")["status"] == "True";
        let has_kvm = matches!(self.node, Node::Lab { .. });
        assert!(!(emulated && has_kvm), "{running}");
    }

    /// Applies the VM and waits for this word of its status.
    pub fn run_vm(&self, vm: Manifest) -> Value {
        self.apply(&[vm]);
        let running = self.await_word("Running");
        self.must_be_as_promised(&self.vmi());
        running
    }

    /// What a subresource answers to a PUT.
    pub fn put(&self, kind: &str, action: &str) -> Output {
        self.put_with(kind, action, &json!({}))
    }

    /// The same, with this in it.
    pub fn put_with(&self, kind: &str, action: &str, options: &Value) -> Output {
        let path = format!("{SUBRESOURCES}/{kind}/{NAME}/{action}");
        self.kubectl
            .feed(&["replace", "--raw", &path, "-f", "-"], &options.to_string())
            .unwrap()
    }

    /// Has something done with the VM, which has to go well.
    pub fn act(&self, action: &str) {
        self.put("virtualmachines", action).ok().unwrap();
    }

    /// Has something done with the VMI, which has to go well.
    pub fn act_on_vmi(&self, action: &str) {
        self.put(INSTANCES, action).ok().unwrap();
    }

    /// Waits until the agent of the VMI's guest listens.
    pub fn await_agent(&self) {
        self.await_that("vmi", "agent", |vmi| {
            condition(vmi, "AgentConnected")["status"] == "True"
        });
    }

    /// The path of the VMI's console.
    pub fn console_path(&self) -> String {
        format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/console")
    }

    /// The VMI's console, as virtctl opens it.
    pub fn console(&self) -> Plain {
        Plain::open(&self.kubectl, &self.console_path()).unwrap()
    }

    /// The VMI.
    pub fn vmi(&self) -> Value {
        self.kubectl.vmi(NAME).unwrap()
    }

    /// Waits until the VM's status says this.
    pub fn await_word(&self, word: &str) -> Value {
        self.await_that("vm", word, |vm| vm["status"]["printableStatus"] == word)
    }

    /// Waits until what is said of an object holds, and returns the object.
    pub fn await_that(&self, kind: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let story = || {
            let events = self.kubectl.run(&["get", "events"]);
            events.map_or_else(|error| error.to_string(), |output| output.text())
        };
        let found = eventually(what, || {
            let object = self.kubectl.get(&[kind, NAME])?;
            let status = object["status"].to_string();
            Ok(Look::of(holds(&object).then_some(object), || status))
        });
        found.with_context(story).unwrap()
    }

    /// Waits until another instance than that of this UID runs.
    pub fn await_another(&self, uid: &str) -> Value {
        let found = eventually("another instance", || {
            let vmi = self.kubectl.get(&["vmi"])?["items"][0].clone();
            let runs = vmi["status"]["phase"] == "Running" && vmi["metadata"]["uid"] != uid;
            let status = vmi["status"].to_string();
            Ok(Look::of(runs.then_some(vmi), || status))
        });
        found.unwrap()
    }

    /// Nothing went wrong on the way, as far as events tell.
    pub fn no_warnings(&self) {
        let events = self.kubectl.events(NAME).unwrap();
        assert!(events.iter().all(|(kind, _)| kind == "Normal"), "{events:?}");
    }
}

/// A node that can have KubeVirt's image of a kernel.
fn furnished(setup: HandlerSetup) -> Result<HandlerSetup> {
    let image = images::kernel_boot(&Cache::open()?)?;
    Ok(setup.with(&["--mirror", &format!("{KERNEL_BOOT}=oci:{}", image.display())]))
}

/// The demo: its guest has an agent and a shell on its console.
pub fn vmi() -> Manifest {
    Manifest::demo().unwrap()
}

/// A VMI of a small guest that has a shell, and no agent that could be asked anything.
pub fn mute() -> Manifest {
    let container = json!({"image": KERNEL_BOOT, "kernelPath": KERNEL, "initrdPath": INITRD});
    Manifest(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": NAME},
        "spec": {"domain": {
            "devices": {}, "memory": {"guest": "128Mi"},
            "firmware": {"kernelBoot": {"container": container, "kernelArgs": "console=ttyS0"}},
        }},
    }))
}

/// A VM with this strategy, made from a VMI.
pub fn vm(strategy: &str, vmi: Manifest) -> Manifest {
    let Manifest(vmi) = vmi;
    let annotations = &vmi["metadata"]["annotations"];
    let metadata = json!({"annotations": annotations, "labels": {"kubevirt.io/vm": NAME}});
    Manifest(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": NAME},
        "spec": {"runStrategy": strategy, "template": {"metadata": metadata, "spec": vmi["spec"]}},
    }))
}

/// An object's UID.
pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap()
}

/// The condition of this kind, null where there is none.
pub fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == kind));
    found.cloned().unwrap_or_default()
}
