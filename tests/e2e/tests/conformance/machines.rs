//! What a VM and its instance say of each other.

use rvm_e2e::guest::NAME;
use serde_json::{Value, json};

use crate::place::{Place, condition, uid, vm, vmi};

const GENERATION: &str = "kubevirt.io/vm-generation";

/// Changes the template in a way that no guest can follow while it runs.
fn edit(place: &Place) -> Value {
    let more = r#"{"spec": {"template": {"spec": {"domain": {"memory": {"guest": "300Mi"}}}}}}"#;
    place
        .kubectl
        .ok(&["patch", "vm", NAME, "--type=merge", "-p", more])
        .unwrap();
    place.await_that("vm", "word on a restart", |vm| {
        condition(vm, "RestartRequired")["status"] == "True"
    })
}

fn generation(object: &Value) -> String {
    object["metadata"]["annotations"][GENERATION]
        .as_str()
        .unwrap()
        .to_owned()
}

pub fn case_03_the_condition_of_a_vm_says_paused(place: &Place) {
    place.run_vm(vm("Always", vmi()));
    place.act_on_vmi("pause");
    let paused = place.await_word("Paused");
    assert_eq!(condition(&paused, "Paused")["status"], "True");
    place.act_on_vmi("unpause");
    let running = place.await_word("Running");
    assert_eq!(condition(&running, "Paused"), Value::Null);
}

pub fn case_25_a_template_s_annotations_are_its_vmi_s(place: &Place) {
    place.run_vm(vm("Always", vmi()).with(|vm| {
        vm["spec"]["template"]["metadata"]["annotations"]["example.com/colour"] = json!("red");
    }));
    assert_eq!(
        place.vmi()["metadata"]["annotations"]["example.com/colour"],
        "red"
    );
}

pub fn case_26_a_restart_brings_the_generation_of_the_vm(place: &Place) {
    place.run_vm(vm("Always", vmi()));
    let before = place.vmi();
    let edited = edit(place);
    place.act("restart");
    let after = place.await_another(uid(&before));
    assert_eq!(generation(&after), edited["metadata"]["generation"].to_string());
    assert_ne!(generation(&after), generation(&before));
}

pub fn case_27_an_edit_of_the_template_does_not(place: &Place) {
    place.run_vm(vm("Always", vmi()));
    let before = place.vmi();
    edit(place);
    assert_eq!(generation(&place.vmi()), generation(&before));
}

pub fn case_33_an_edit_of_the_template_leaves_a_vmi_that_runs_alone(place: &Place) {
    place.run_vm(vm("Always", vmi()));
    let before = place.vmi();
    edit(place);
    let after = place.vmi();
    assert_eq!((uid(&after), &after["spec"]), (uid(&before), &before["spec"]));
}

/// A ControllerRevision holds what the VM was then.
pub fn case_35_a_vmi_names_the_revision_that_it_was_made_from(place: &Place) {
    let running = place.run_vm(vm("Always", vmi()));
    let of_instance = place.vmi()["status"]["virtualMachineRevisionName"].clone();
    let name = of_instance.as_str().unwrap();
    assert!(
        name.starts_with(&format!("revision-start-vm-{}", uid(&running))),
        "{name}"
    );
    let revision = place.kubectl.get(&["controllerrevision", name]).unwrap();
    assert_eq!(revision["metadata"]["ownerReferences"][0]["uid"], uid(&running));
    assert_eq!(revision["data"]["spec"]["template"], running["spec"]["template"]);
}

pub fn case_36_a_vm_is_ready_while_its_vmi_is(place: &Place) {
    place.apply(&[vm("Halted", vmi())]);
    let stopped = place.await_word("Stopped");
    assert_eq!(condition(&stopped, "Ready")["status"], "False");
    assert_eq!(condition(&stopped, "Ready")["reason"], "VMINotExists");
    place.act("start");
    place.await_that("vm", "readiness", |vm| {
        condition(vm, "Ready")["status"] == "True" && vm["status"]["ready"] == true
    });
    place.act("stop");
    place.await_that("vm", "end of readiness", |vm| {
        condition(vm, "Ready")["status"] == "False" && vm["status"]["ready"] == false
    });
}

pub fn case_41_a_vm_stays_until_its_vmi_is_gone(place: &Place) {
    let running = place.run_vm(vm("Always", vmi()));
    let finalizers = running["metadata"]["finalizers"].to_string();
    assert!(
        finalizers.contains("kubevirt.io/virtualMachineControllerFinalize"),
        "{finalizers}"
    );
    // Something of the instance stays for as long as somebody wants it to.
    let keep = |finalizers: Value| {
        let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
        place
            .kubectl
            .ok(&["patch", "vmi", NAME, "--type=merge", "-p", &patch])
            .unwrap();
    };
    let mut held = place.vmi()["metadata"]["finalizers"].clone();
    held.as_array_mut().unwrap().push(json!("example.com/busy"));
    keep(held);
    place.kubectl.ok(&["delete", "vm", NAME, "--wait=false"]).unwrap();
    place.await_that("vmi", "end", |vmi| vmi["status"]["phase"] == "Succeeded");
    let leaving = place.await_word("Terminating");
    assert_eq!(uid(&leaving), uid(&running));
    keep(Value::Null);
    place
        .kubectl
        .ok(&["wait", "--for=delete", "vm", NAME, "--timeout=120s"])
        .unwrap();
    assert_eq!(place.kubectl.phase(NAME).unwrap(), None);
}
