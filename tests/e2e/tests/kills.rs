//! SIGKILL at any moment of a start: a retry goes well, and nothing is left.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::kills;
use rvm_guests::{Cache, images};
use rvm_harness::{HandlerSetup, Manifest, Registry, Tools};
use serde_json::json;

/// The demo out of a registry, with a disk of each kind that is made for a machine.
fn starts_survive(rounds: u64) {
    let tools = Tools::open().unwrap();
    let registry = Registry::start().unwrap();
    let kernel = images::kernel_boot(&Cache::open().unwrap()).unwrap();
    registry.push(&kernel, "kernel:1").unwrap();
    registry.push(&tools.demo().image(), "alpine:1").unwrap();
    let host = format!("127.0.0.1:{}", registry.port());
    let mut handler = HandlerSetup::local().start(&tools).unwrap();
    let vmi = Manifest::demo().unwrap().with(|vmi| {
        let root = vmi["spec"]["volumes"][0]["name"].clone();
        vmi["spec"]["volumes"] = json!([
            {"name": root, "containerDisk": {"image": format!("{host}/alpine:1")}},
            {"name": "disk", "containerDisk": {"image": format!("{host}/kernel:1"), "path": "/boot/vmlinuz-virt"}},
            {"name": "scratch", "emptyDisk": {"capacity": "8Mi"}},
            {"name": "cloud", "cloudInitNoCloud": {"userData": "#cloud-config\n"}},
        ]);
        vmi["spec"]["domain"]["devices"]["disks"] = json!([
            {"name": "disk", "disk": {"bus": "virtio"}},
            {"name": "scratch", "disk": {"bus": "virtio"}},
        ]);
        vmi["spec"]["terminationGracePeriodSeconds"] = json!(0);
    });
    kills::starts_survive(&mut handler, &vmi, rounds).unwrap();
}

#[test]
fn a_start_that_is_killed_at_any_of_20_moments_is_tried_again_and_leaves_nothing() {
    starts_survive(20);
}

#[test]
fn full_a_start_that_is_killed_at_any_of_200_moments_is_tried_again_and_leaves_nothing() {
    starts_survive(200);
}
