//! A client that others wrote: Debian's `fence_kubevirt`, on Kubernetes' client library for Python, lists, starts, reads, restarts and stops
//! machines, as high-availability clusters have it do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rvm_e2e::guest::NAME;
use rvm_e2e::machines::{await_word, machine};
use rvm_guests::{Cache, fence};
use rvm_harness::tools::shown;
use rvm_harness::{Api, Cluster, HandlerSetup, Kubectl, Tools};
use serde_json::json;
use tempfile::TempDir;

/// How long the agent waits for a machine to be on or off, in seconds. It waits no longer than that takes.
const PATIENCE: u32 = 240;

/// What the agent's status is where the machine is off.
const OFF: i32 = 2;

struct Agent {
    tools: Arc<Tools>,
    program: PathBuf,
    kubeconfig: String,
    /// Where it keeps what it found out of the API.
    folder: TempDir,
}

// === impl Agent ===

impl Agent {
    fn new(tools: &Arc<Tools>, kubeconfig: &Path) -> Self {
        Self {
            tools: Arc::clone(tools),
            program: fence::agent(&Cache::open().unwrap()).unwrap(),
            kubeconfig: shown(kubeconfig),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// How it ends that is told this, and what it says.
    fn does(&self, action: &str) -> (Option<i32>, String) {
        let (kubeconfig, patience) = (
            format!("--kubeconfig={}", self.kubeconfig),
            format!("--power-timeout={PATIENCE}"),
        );
        let (plug, action) = (format!("--plug={NAME}"), format!("--action={action}"));
        let program = shown(&self.program);
        let argv = [
            program.as_str(),
            &kubeconfig,
            "--namespace=default",
            &patience,
            &plug,
            &action,
        ];
        let folder = ("TMPDIR".to_owned(), shown(self.folder.path()));
        let output = self.tools.run(&argv, &[folder], "").unwrap();
        (output.status(), output.text() + &output.error_text())
    }

    /// It does this and says so.
    fn must(&self, action: &str, status: i32, word: &str) {
        let (ended, said) = self.does(action);
        assert!(
            ended == Some(status) && said.contains(word),
            "{action}: {ended:?}, {said}"
        );
    }
}

/// All that the agent is for.
fn is_switched(kubectl: &Kubectl, agent: &Agent) {
    let quick = machine("Halted").unwrap().with(|vm| {
        vm["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(0);
    });
    kubectl.apply(&[quick]).unwrap();
    await_word(kubectl, "Stopped").unwrap();
    agent.must("list", 0, &format!("{NAME},"));
    agent.must("status", OFF, "Status: OFF");
    agent.must("on", 0, "Success: Powered ON");
    agent.must("status", 0, "Status: ON");
    let before = kubectl.vmi(NAME).unwrap()["metadata"]["uid"].clone();
    agent.must("reboot", 0, "Success: Rebooted");
    let after = kubectl.vmi(NAME).unwrap();
    assert_ne!(after["metadata"]["uid"], before);
    assert_eq!(after["status"]["phase"], "Running");
    agent.must("off", 0, "Success: Powered OFF");
    let vm = await_word(kubectl, "Stopped").unwrap();
    assert_eq!(vm["spec"]["runStrategy"], "Halted");
    agent.must("status", OFF, "Status: OFF");
    kubectl.ok(&["delete", "vm", NAME, "--timeout=120s"]).unwrap();
    let (ended, said) = agent.does("status");
    assert!(
        ended.is_some_and(|status| status != 0 && status != OFF) && said.contains("doesn't exist"),
        "{ended:?}, {said}"
    );
}

#[test]
fn a_fence_agent_switches_machines_in_local_mode() {
    let tools = Tools::open().unwrap();
    let handler = HandlerSetup::local().start(&tools).unwrap();
    let kubeconfig = handler.rvm(&["kubeconfig"]).unwrap().ok().unwrap();
    let agent = Agent::new(&tools, Path::new(kubeconfig.trim()));
    is_switched(&handler.kubectl().unwrap(), &agent);
}

#[test]
fn a_fence_agent_switches_machines_in_a_cluster() {
    let tools = Tools::open().unwrap();
    let mut cluster = Cluster::start(&tools).unwrap();
    cluster.run_controllers(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").with(&["--grpc-listen", "127.0.0.1:0"]);
    let _node = node.start(&tools).unwrap();
    let _api = Api::start(&tools, &cluster).unwrap();
    let agent = Agent::new(&tools, &cluster.kubeconfig());
    is_switched(cluster.kubectl(), &agent);
}
