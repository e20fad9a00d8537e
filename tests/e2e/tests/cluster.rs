//! A VMI in a real cluster: from `kubectl apply` to a console and to its end, on a node that is this machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rvm_e2e::brief::{self, Brief};
use rvm_e2e::guest::{self, NAME};
use rvm_e2e::lab_node::NodeSetup;
use rvm_harness::patience::Look;
use rvm_harness::{
    Cluster, Console, Handler, HandlerSetup, Kubectl, Manifest, PATIENCE, Registry, Tools, eventually, runs,
};

/// A cluster with one node.
fn cluster_with_a_node() -> (Arc<Tools>, Cluster, Handler) {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").start(&tools).unwrap();
    (tools, cluster, node)
}

fn uid(vmi: &serde_json::Value) -> String {
    vmi["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[test]
fn a_vmi_goes_from_its_manifest_to_a_console_and_leaves_nothing() {
    let (tools, cluster, node) = cluster_with_a_node();
    let kubectl = cluster.kubectl();
    let manifest = tools.source("guests/vmi-alpine.yaml");
    kubectl.ok(&["apply", "-f", manifest.to_str().unwrap()]).unwrap();

    // This one names a node that is not there.
    let elsewhere = Manifest::demo()
        .unwrap()
        .named("elsewhere")
        .on("kubernetes.io/hostname", "n2");
    kubectl.apply(&[elsewhere]).unwrap();

    let vmi = kubectl.await_phase(NAME, "Running").unwrap();
    assert_eq!(vmi["status"]["nodeName"], "n1");
    assert_eq!(
        guest::phases(kubectl).unwrap(),
        ["Pending", "Scheduling", "Scheduled", "Running"]
    );
    assert_eq!(
        guest::condition(kubectl, "Ready").unwrap().as_deref(),
        Some("True")
    );
    assert_eq!(
        guest::condition(kubectl, "SoftwareEmulation").unwrap().as_deref(),
        Some("True")
    );

    let console = guest::answers(node.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    for plugin in ["rvm", "virt"] {
        let viewer = kubectl
            .on_terminal(&[plugin, "console", NAME], &node.environment())
            .unwrap();
        let mut console = Console::at_prompt(viewer, guest::PROMPT).unwrap();
        let question = format!("echo by {plugin} $((7 * 8))");
        assert_eq!(console.ask(&question).unwrap(), format!("by {plugin} 56"));
        assert_eq!(console.leave().unwrap().status(), Some(0));
    }
    assert_eq!(
        kubectl.events(NAME).unwrap(),
        [
            ("Normal".into(), "Created".into()),
            ("Normal".into(), "Started".into())
        ]
    );

    let elsewhere = kubectl.vmi("elsewhere").unwrap();
    assert_eq!(elsewhere["status"]["nodeName"], serde_json::Value::Null);
    assert!(["", "Pending"].contains(&elsewhere["status"]["phase"].as_str().unwrap_or_default()));

    let uid = uid(&vmi);
    let pid = node.pid(&uid).unwrap();
    assert!(runs(pid));
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=60s"]).unwrap();
    assert_eq!(kubectl.phase(NAME).unwrap(), None);
    assert!(!runs(pid));
    assert!(!node.run_dir_entries().unwrap().contains(&uid));
    assert_eq!(node.disks().unwrap(), [""; 0]);
}

#[test]
fn a_restarted_handler_takes_its_machines_over_and_knows_the_dead_from_the_living() {
    let (tools, cluster, mut node) = cluster_with_a_node();
    let kubectl = cluster.kubectl();
    let doomed = Manifest::demo().unwrap().named("doomed");
    kubectl.apply(&[Manifest::demo().unwrap(), doomed]).unwrap();
    let living = uid(&kubectl.await_phase(NAME, "Running").unwrap());
    let dead = uid(&kubectl.await_phase("doomed", "Running").unwrap());
    let mut console = guest::answers(node.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap();
    let before = guest::uptime(&mut console).unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));

    let (pid, victim) = (node.pid(&living).unwrap(), node.pid(&dead).unwrap());
    node.kill().unwrap();
    // Its socket stays behind, dead, and its pid is now somebody else's.
    tools
        .run(&["kill", "-9", &victim.to_string()], &[], "")
        .unwrap()
        .ok()
        .unwrap();
    let ended = || {
        Ok(Look::of((!runs(victim)).then_some(()), || {
            format!("process {victim} runs")
        }))
    };
    eventually("dead machine", ended).unwrap();
    assert!(node.machine(&dead).control_socket().exists());
    let mut other = tools
        .start(&["sh", "-c", "echo pid=$$.; exec sleep 1000"], &[])
        .unwrap();
    let said = other.expect(".", PATIENCE).unwrap();
    let stranger: u32 = said
        .trim_start_matches("pid=")
        .trim_end_matches('.')
        .parse()
        .unwrap();
    fs::write(node.machine(&dead).path().join("pid"), format!("{stranger}\n")).unwrap();
    // One whose VMI went while nobody looked, and one that was made for another cluster.
    let (orphan, foreign) = (
        "00000000-0000-4000-8000-000000000001",
        "00000000-0000-4000-8000-000000000002",
    );
    leave_copy(&node, &dead, orphan, |_| {});
    leave_copy(&node, &dead, foreign, |owner| owner["home"] = "elsewhere".into());

    node.start().unwrap();
    kubectl.await_phase("doomed", "Failed").unwrap();
    eventually("end of the orphan", || {
        let left = node.run_dir_entries()?;
        Ok(Look::of(
            (!left.iter().any(|name| name == orphan)).then_some(()),
            || node.log(),
        ))
    })
    .unwrap();
    assert!(node.run_dir_entries().unwrap().iter().any(|name| name == foreign));
    assert!(runs(stranger), "who has a reused pid is left alone");
    assert_eq!(kubectl.vmi(NAME).unwrap()["status"]["phase"], "Running");
    assert_eq!(node.pid(&living).unwrap(), pid);
    let viewer = node.rvm_on_terminal(&["console", NAME]).unwrap();
    let mut console = Console::at_prompt(viewer, guest::PROMPT).unwrap();
    // All that is replayed stands before the answer to a question that was not asked before.
    assert_eq!(console.ask("echo $((6 * 9)) again").unwrap(), "54 again");
    assert!(
        guest::uptime(&mut console).unwrap() > before,
        "the same guest goes on"
    );
}

/// Leaves a run directory behind, as the one of a dead machine under another UID.
fn leave_copy(node: &Handler, of: &str, uid: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let (from, to) = (node.machine(of), node.machine(uid));
    to.create().unwrap();
    for name in ["spec.json", "pid", "rvmm.log"] {
        fs::copy(from.path().join(name), to.path().join(name)).unwrap();
    }
    let owner = fs::read(from.path().join("owner.json")).unwrap();
    let mut owner: serde_json::Value = serde_json::from_slice(&owner).unwrap();
    owner["vm"]["uid"] = uid.into();
    owner["vm"]["name"] = "gone".into();
    change(&mut owner);
    fs::write(to.path().join("owner.json"), owner.to_string()).unwrap();
}

/// Every VMI's UID, in order.
fn uids(kubectl: &Kubectl) -> Vec<String> {
    let list = kubectl.get(&["vmi"]).unwrap();
    let mut uids: Vec<String> = list["items"].as_array().unwrap().iter().map(uid).collect();
    uids.sort();
    uids
}

fn sorted(mut uids: Vec<String>) -> Vec<String> {
    uids.sort();
    uids
}

const RACED: usize = 20;

/// Waits until each of the raced VMIs has switched itself off.
fn await_all(kubectl: &Kubectl) {
    let off = [
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=240s",
        "vmi",
        "--all",
    ];
    kubectl.ok(&off).unwrap();
}

/// A cluster with nodes that can run brief guests, none of them started.
fn cluster_for(brief: &Brief, nodes: [&str; 2]) -> (Cluster, [Handler; 2]) {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    let handlers = nodes.map(|name| {
        cluster.add_node(name).unwrap();
        HandlerSetup::on_node(&cluster, name)
            .with_all(&brief.arguments())
            .with(&["--heartbeat-interval", "1", "--heartbeat-stale-after", "3"])
            .prepare(&tools)
            .unwrap()
    });
    (cluster, handlers)
}

fn brief() -> Brief {
    Brief::new(&Tools::open().unwrap().own("rvmm").unwrap()).unwrap()
}

/// Has two handlers race for twenty VMIs.
fn race() {
    let brief = brief();
    let (cluster, [mut one, mut other]) = cluster_for(&brief, ["n1", "n2"]);
    one.start().unwrap();
    other.start().unwrap();
    let kubectl = cluster.kubectl();
    kubectl.apply(&brief::manifests(RACED)).unwrap();
    await_all(kubectl);
    assert_eq!(sorted(brief.starts().unwrap()), uids(kubectl));
}

#[test]
fn two_handlers_that_race_for_twenty_vmis_start_each_exactly_once() {
    race();
}

#[test]
fn full_races_for_twenty_vmis_are_won_once_each_time() {
    (0..4).for_each(|_| race());
}

/// Waits until a node has claimed all of them, and started none.
fn await_claims(kubectl: &Kubectl, brief: &Brief, node: &str) {
    eventually("claim of each VMI", || {
        let list = kubectl.get(&["vmi"])?;
        let mut vmis = list["items"].as_array().into_iter().flatten();
        let claimed =
            vmis.all(|vmi| vmi["status"]["nodeName"] == node && vmi["status"]["phase"] == "Scheduling");
        Ok(Look::of(claimed.then_some(()), || list.to_string()))
    })
    .unwrap();
    assert_eq!(brief.starts().unwrap(), [""; 0]);
}

#[test]
fn what_a_killed_handler_had_claimed_and_not_started_is_started_exactly_once() {
    let brief = brief();
    let (cluster, [mut killed, mut other]) = cluster_for(&brief, ["n1", "n2"]);
    let kubectl = cluster.kubectl();
    // Without its image a VMI stays between claim and start for as long as we like.
    brief.withdraw().unwrap();
    killed.start().unwrap();
    kubectl.apply(&brief::manifests(RACED)).unwrap();
    await_claims(kubectl, &brief, "n1");
    killed.kill().unwrap();

    brief.publish().unwrap();
    other.start().unwrap();
    eventually("takeover", || {
        let started = brief.starts()?;
        Ok(Look::of((!started.is_empty()).then_some(()), || other.log()))
    })
    .unwrap();
    // It comes back while the other is at it, and both want them now.
    killed.start().unwrap();
    await_all(kubectl);
    assert_eq!(sorted(brief.starts().unwrap()), uids(kubectl));
}

/// Kills a handler at so many moments of the lives of twenty VMIs, for which another one races it.
fn each_is_started_once_though_a_handler_is_killed_after(moments: impl Iterator<Item = u64>) {
    let brief = brief();
    let (cluster, [mut killed, mut other]) = cluster_for(&brief, ["n1", "n2"]);
    killed.start().unwrap();
    other.start().unwrap();
    let kubectl = cluster.kubectl();
    kubectl.apply(&brief::manifests(RACED)).unwrap();
    for milliseconds in moments {
        thread::sleep(Duration::from_millis(milliseconds));
        killed.kill().unwrap();
        killed.start().unwrap();
    }
    await_all(kubectl);
    assert_eq!(sorted(brief.starts().unwrap()), uids(kubectl));
}

#[test]
fn a_handler_killed_again_and_again_starts_each_vmi_exactly_once() {
    each_is_started_once_though_a_handler_is_killed_after((0..8).map(|kill| 20 + 40 * kill));
}

#[test]
fn full_a_handler_killed_at_many_moments_starts_each_vmi_exactly_once() {
    for first in 0..10 {
        each_is_started_once_though_a_handler_is_killed_after((0..12).map(|kill| first * 7 + 31 * kill));
    }
}

#[test]
fn lab_node_runs_the_vmi_under_kvm_and_its_console_is_reached_over_mutual_tls() {
    let tools = Tools::open().unwrap();
    let registry = Registry::start().unwrap();
    registry
        .push(&tools.demo().image(), "library/alpine:3.23")
        .unwrap();
    let node = NodeSetup::new(&tools).unwrap().mirror("docker.io", &registry);
    let node = node.start().unwrap();
    let vmi = node.run(NAME, &[Manifest::demo().unwrap()]).unwrap();
    assert_eq!(vmi["status"]["nodeName"], "lab");
    let console = guest::answers(node.console(NAME).unwrap()).unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    let environment = node.environment().unwrap();
    let stranger = tools.run(&["rvm", "get"], &environment[..2], "").unwrap();
    assert_eq!(
        stranger.status(),
        Some(1),
        "without a certificate nobody is served: {}",
        stranger.text()
    );
    node.end(NAME).unwrap();
}
