//! A guest that prints very much, in a cluster: its viewer behind kube-apiserver gets every byte, whoever else does not read.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::guest::{NAME, PROMPT};
use rvm_e2e::machines::SUBRESOURCES;
use rvm_harness::{Api, Cluster, HandlerSetup, Manifest, Plain, Shows, Tools};

/// The first number of the flood: all have as many digits.
const FIRST: u32 = 1_000_001;
/// Bytes of a line: a number and its end.
const LINE: usize = 9;

/// Has a guest print so many numbers, for one who reads and one who does not.
fn arrives_whole(lines: u32) {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").with(&["--grpc-listen", "127.0.0.1:0"]);
    let _node = node.start(&tools).unwrap();
    let api = Api::start(&tools, &cluster).unwrap();
    let kubectl = cluster.kubectl();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    kubectl.await_phase(NAME, "Running").unwrap();
    cluster.kubectl_of(&tools, "ellen").unwrap();
    let role = "--clusterrole=kubevirt.io:edit";
    let binding = ["create", "rolebinding", "ellen", role, "--user=ellen"];
    kubectl.ok(&binding).unwrap();
    let pair = cluster.pair_of("ellen");
    let grpc = api.grpc(kubectl, Shows::Certificate(&pair)).unwrap();

    let console = format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/console");
    let mut viewer = Plain::open(kubectl, &console).unwrap();
    viewer.expect(PROMPT).unwrap();
    let mut idle = grpc.console("", NAME, true).unwrap();
    let last = FIRST + lines - 1;
    let command = format!("echo be=gin; seq {FIRST} {last}; echo end=$((6 * 7))\r");
    viewer.send(command.as_bytes()).unwrap();
    viewer.expect("\r\nbe=gin\r\n").unwrap();
    for number in FIRST..=last {
        let line = viewer.read(LINE).unwrap();
        assert_eq!(
            line,
            format!("{number}\r\n").as_bytes(),
            "after {}",
            number - FIRST
        );
    }
    viewer.expect("end=42\r\n").unwrap();
    // Who has not read until now has missed what nobody keeps that long, and is where all are.
    idle.expect("end=42\r\n").unwrap();
}

#[test]
fn a_flood_reaches_its_viewer_whole_while_another_does_not_read() {
    arrives_whole(120_000);
}

#[test]
fn full_ten_megabytes_reach_their_viewer_whole_while_another_does_not_read() {
    arrives_whole(1_200_000);
}
