//! What run strategies promise, and what becomes of an instance without its VM.

use rvm_e2e::guest::{self, NAME};
use serde_json::{Value, json};

use crate::place::{KERNEL, Place, mute, uid, vm, vmi};

/// How often a thing is done that has to work time and again.
const REPEATS: usize = 3;

/// Has the guest switch itself off.
fn power_off(place: &Place) {
    let mut console = place.console();
    console.expect(guest::PROMPT).unwrap();
    console.send(b"poweroff\r").unwrap();
    console.end().unwrap();
}

fn no_vmi(place: &Place) {
    assert_eq!(place.kubectl.get(&["vmi"]).unwrap()["items"], json!([]));
}

pub fn case_05_a_vm_stops(place: &Place) {
    place.run_vm(vm("Always", vmi()));
    place.act("stop");
    let stopped = place.await_word("Stopped");
    assert_eq!(stopped["spec"]["runStrategy"], "Halted");
    // An instance that has ended is still there for a moment.
    place.await_that("vm", "end of the instance", |vm| vm["status"]["created"] == false);
    no_vmi(place);
    place.no_warnings();
}

pub fn case_28_a_vm_that_is_deleted_takes_its_vmi_along(place: &Place) {
    place.run_vm(vm("Always", vmi()));
    place
        .kubectl
        .ok(&["delete", "vm", NAME, "--timeout=120s"])
        .unwrap();
    no_vmi(place);
}

pub fn case_29_orphans_stay_and_have_no_owner(place: &Place) {
    place.run_vm(vm("Always", vmi()));
    let before = place.vmi();
    assert_eq!(before["metadata"]["ownerReferences"][0]["kind"], "VirtualMachine");
    place
        .kubectl
        .ok(&["delete", "vm", NAME, "--cascade=orphan", "--timeout=120s"])
        .unwrap();
    let after = place.vmi();
    assert_eq!(uid(&after), uid(&before));
    assert_eq!(after["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(after["status"]["phase"], "Running");
    place.console().expect(guest::PROMPT).unwrap();
}

pub fn case_30_a_vmi_that_somebody_deletes_comes_back(place: &Place) {
    place.run_vm(vm("Always", vmi()));
    let before = place.vmi();
    place
        .kubectl
        .ok(&["delete", "vmi", NAME, "--timeout=120s"])
        .unwrap();
    place.await_another(uid(&before));
}

pub fn case_32_a_vm_starts_and_stops_time_and_again(place: &Place) {
    place.apply(&[vm("Halted", vmi())]);
    for _ in 0..REPEATS {
        place.await_word("Stopped");
        place.act("start");
        place.await_word("Running");
        place.act("stop");
    }
    place.await_word("Stopped");
    place.no_warnings();
}

pub fn case_34_a_vm_outlives_its_guest_s_power_off(place: &Place) {
    place.run_vm(vm("Always", vmi()));
    for _ in 0..REPEATS {
        let before = place.vmi();
        power_off(place);
        place.await_another(uid(&before));
    }
}

pub fn case_39_a_vm_is_made_in_either_version(place: &Place) {
    for version in ["kubevirt.io/v1", "kubevirt.io/v1alpha3"] {
        place.apply(&[vm("Halted", vmi()).with(|vm| vm["apiVersion"] = json!(version))]);
        place.await_word("Stopped");
        place
            .kubectl
            .ok(&["delete", "vm", NAME, "--timeout=120s"])
            .unwrap();
    }
}

/// And is started again all the same.
pub fn case_40_a_machine_that_cannot_start_is_given_time(place: &Place) {
    // A RAM disk is no kernel.
    let crashing = mute().with(|vmi| {
        let container = &mut vmi["spec"]["domain"]["firmware"]["kernelBoot"]["container"];
        container["kernelPath"] = container["initrdPath"].take();
    });
    place.apply(&[vm("Always", crashing)]);
    let failing = place.await_word("CrashLoopBackOff");
    let failure = &failing["status"]["startFailure"];
    assert!(failure["consecutiveFailCount"].as_u64() >= Some(1), "{failure}");
    assert!(failure["retryAfterTimestamp"].is_string(), "{failure}");
    let kernel = json!({"spec": {"template": {"spec": {"domain": {"firmware": {"kernelBoot": {"container": {
        "kernelPath": KERNEL,
    }}}}}}}});
    let kernel = kernel.to_string();
    place
        .kubectl
        .ok(&["patch", "vm", NAME, "--type=merge", "-p", &kernel])
        .unwrap();
    let running = place.await_word("Running");
    assert_eq!(running["status"]["startFailure"], Value::Null);
}
