//! Networks of machines in real namespaces: what `keep-network` makes, and that nothing of it is left.
//!
//! Needs what networks need: root, or user namespaces and a `/dev/net/tun` that this user may open; pasta and nft.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rvm_handler::networks::client::{NetworkError, Networks, PLAN};
use rvm_handler::networks::model::{Binding, Plan};
use rvm_handler::networks::wish::NetworkWish;
use rvm_handler::vm::VmId;
use rvm_harness::patience::{Look, eventually};

const ONE: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964f1";
const OTHER: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964f2";

struct Node {
    run: tempfile::TempDir,
    networks: Networks,
}

impl Node {
    fn new(range: Option<&str>) -> Self {
        let run = tempfile::tempdir().unwrap();
        let range = range.map(|range| range.parse().unwrap());
        let networks = Networks::new(run.path(), env!("CARGO_BIN_EXE_rvm-handler").into(), range);
        Self { run, networks }
    }

    /// Plans the network of a machine, as the one that prepares it does.
    fn plan(&self, uid: &str, binding: Binding) -> Result<(), NetworkError> {
        let wish = NetworkWish {
            network: "default".to_owned(),
            binding,
            mac: "02:00:00:00:00:07".parse().unwrap(),
            own_mac: false,
            queues: 1,
            ports: Vec::new(),
            hostname: "vm".to_owned(),
            optional: false,
        };
        let folder = self.run.path().join(uid);
        fs::create_dir_all(&folder).unwrap();
        let keep = |plan: &Plan| {
            fs::write(folder.join(PLAN), serde_json::to_vec(plan).unwrap()).unwrap();
            Ok(())
        };
        self.networks.plan(&vm(uid), &wish, keep)
    }

    /// The links that a machine's rvmm sees.
    fn links(&self, uid: &str) -> BTreeSet<String> {
        let place = self.networks.attach(&vm(uid)).unwrap().unwrap();
        let seen = std::thread::spawn(move || {
            place.enter().unwrap();
            fs::read_to_string("/proc/thread-self/net/dev").unwrap()
        });
        let table = seen.join().unwrap();
        let names = table.lines().filter_map(|line| line.split_once(':'));
        names.map(|(name, _)| name.trim().to_owned()).collect()
    }
}

fn vm(uid: &str) -> VmId {
    VmId {
        namespace: "default".to_owned(),
        name: "vm".to_owned(),
        uid: uid.to_owned(),
    }
}

/// The processes that keep networks for this run directory, pasta among them.
fn keepers(run: &Path) -> Vec<u32> {
    let run = run.to_str().unwrap().as_bytes();
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let keeps = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.windows(run.len()).any(|part| part == run)
    };
    pids.filter(keeps).collect()
}

/// Whether a process is pasta, or the inner one of the two that keep networks: the outer's last word is the pods' network.
fn is_inner(pid: u32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    !words.ends_with(b"/24\0")
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// Waits until nothing of a node's network is there any more.
fn all_gone(run: &Path) {
    eventually("the end of the keeper of networks", || {
        let left = keepers(run);
        Ok(Look::of(left.is_empty().then_some(()), || format!("{left:?}")))
    })
    .unwrap();
}

#[test]
fn a_machine_has_a_namespace_with_its_tap_and_all_ends_when_no_machine_and_no_handler_is_left() {
    let node = Node::new(Some("10.199.1.0/24"));
    node.plan(ONE, Binding::Masquerade).unwrap();
    node.plan(OTHER, Binding::Bridge).unwrap();
    assert_eq!(node.links(ONE), names(["lo", "eth0", "tap0"]));
    assert_eq!(node.links(OTHER), names(["lo", "eth0", "tap0", "br0"]));
    assert!(!keepers(node.run.path()).is_empty());
    let run = node.run;
    drop(node.networks);
    // None of the machines ever had an rvmm.
    all_gone(run.path());
}

#[test]
fn a_killed_keeper_leaves_nothing_and_the_next_one_makes_the_same_again() {
    let node = Node::new(Some("10.199.2.0/24"));
    node.plan(ONE, Binding::Masquerade).unwrap();
    node.links(ONE);
    let first = node.networks.of(&vm(ONE)).unwrap().unwrap();
    let outer = keepers(node.run.path())
        .into_iter()
        .find(|pid| !is_inner(*pid))
        .unwrap();
    let status = Command::new("kill").arg("-9").arg(outer.to_string()).status();
    assert!(status.unwrap().success());
    all_gone(node.run.path());
    assert_eq!(node.links(ONE), names(["lo", "eth0", "tap0"]));
    node.plan(ONE, Binding::Masquerade).unwrap();
    assert_eq!(
        node.networks.of(&vm(ONE)).unwrap().unwrap(),
        first,
        "its address stays its own"
    );
    let run = node.run;
    drop(node.networks);
    all_gone(run.path());
}

#[test]
fn no_two_machines_have_the_same_address_and_a_full_range_says_so() {
    let node = Node::new(Some("10.199.3.0/29"));
    let machines: Vec<String> = (0..5)
        .map(|n| format!("6f9619ff-8b86-4d01-b42d-00cf4fc96{n:03}"))
        .collect();
    let planned: Result<Vec<()>, _> = machines
        .iter()
        .map(|uid| node.plan(uid, Binding::Bridge))
        .collect();
    planned.unwrap();
    let address = |uid: &String| node.networks.of(&vm(uid)).unwrap().unwrap().pod.v4;
    let addresses: BTreeSet<_> = machines.iter().map(address).collect();
    assert_eq!(addresses.len(), machines.len());
    let full = node.plan(ONE, Binding::Bridge).unwrap_err().to_string();
    assert!(full.contains("all 5 addresses"), "{full}");
}

#[test]
fn a_node_without_networks_refuses_and_starts_nothing() {
    let node = Node::new(None);
    let refused = node.plan(ONE, Binding::Bridge).unwrap_err().to_string();
    assert!(refused.contains("--pod-network none"), "{refused}");
    assert!(keepers(node.run.path()).is_empty());
}

#[test]
fn a_user_who_may_have_no_user_namespaces_is_told_which_settings_to_change_and_nothing_is_left() {
    let run = tempfile::tempdir().unwrap();
    // One is left for becoming an ordinary user, and none for that user.
    let script = r#"echo 1 >/proc/sys/user/max_user_namespaces && exec unshare --user --map-user=1000 --map-group=1000 -- \
        "$0" keep-network "$1" 10.199.4.0/24"#;
    let told = Command::new("unshare")
        .args([
            "--map-root-user",
            "sh",
            "-c",
            script,
            env!("CARGO_BIN_EXE_rvm-handler"),
        ])
        .arg(run.path())
        .output()
        .unwrap();
    let said = String::from_utf8(told.stdout).unwrap();
    assert!(!told.status.success(), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("sysctl user.max_user_namespaces") && said.contains("run rvm-handler as root"),
        "{said}"
    );
    assert!(keepers(run.path()).is_empty());
}
