//! How a VMI ends that is deleted: asked first, and cut off when its time is over.

use std::time::Duration;

use rvm_e2e::guest::{self, NAME};
use rvm_harness::patience::{Look, eventually};
use serde_json::{Value, json};

use crate::place::{Place, vmi};

/// Deletes the VMI, and returns what it was last seen as.
fn last_of(place: &Place) -> Value {
    let following = place
        .kubectl
        .follow(&["get", "vmi", NAME, "-w", "-o", "json", "--output-watch-events"])
        .unwrap();
    place
        .kubectl
        .ok(&["delete", "vmi", NAME, "--timeout=120s"])
        .unwrap();
    let last = eventually("end of the VMI", || {
        let said = following.said();
        let events = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
        let deleted = events.flatten().find(|event| event["type"] == "DELETED");
        Ok(Look::of(deleted.map(|event| event["object"].clone()), || {
            said.clone()
        }))
    });
    last.unwrap()
}

/// Seconds between the deletion of a VMI and its end. What it was promised is the least of them.
fn granted(vmi: &Value) -> Duration {
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let transitions = vmi["status"]["phaseTransitionTimestamps"].as_array().unwrap();
    let end = time(&transitions.last().unwrap()["phaseTransitionTimestamp"]);
    end.duration_since(time(&vmi["metadata"]["deletionTimestamp"]))
        .unsigned_abs()
}

pub fn case_13_a_vmi_that_is_deleted_is_gone(place: &Place) {
    let running = place.run(vmi());
    let finalizers = running["metadata"]["finalizers"].to_string();
    assert!(
        finalizers.contains("kubevirt.io/foregroundDeleteVirtualMachine"),
        "{finalizers}"
    );
    let last = last_of(place);
    assert_eq!(last["status"]["phase"], "Succeeded");
    assert_eq!(place.kubectl.phase(NAME).unwrap(), None);
}

/// Runs a guest that has an agent until its kernel panics: whoever asks it to end is not heard.
fn run_and_panic(place: &Place, grace: Option<u32>) {
    place.run(vmi().with(|vmi| vmi["spec"]["terminationGracePeriodSeconds"] = json!(grace)));
    let mut console = place.console();
    console.expect(guest::PROMPT).unwrap();
    place.await_agent();
    console.send(b"echo c >/proc/sysrq-trigger\r").unwrap();
    console.expect("Kernel panic").unwrap();
}

pub fn case_14_the_grace_period_that_was_given_is_kept(place: &Place) {
    run_and_panic(place, Some(7));
    let last = last_of(place);
    assert_eq!(last["status"]["phase"], "Failed", "{last}");
    // Times in an object are whole seconds.
    assert!(granted(&last) >= Duration::from_secs(6), "{last}");
}

/// Where the manifest does not say.
pub fn case_15_the_grace_period_is_thirty_seconds(place: &Place) {
    run_and_panic(place, None);
    let last = last_of(place);
    assert_eq!(last["status"]["phase"], "Failed", "{last}");
    assert!(granted(&last) >= Duration::from_secs(29), "{last}");
}

pub fn case_16_a_guest_that_is_asked_to_end_ends_by_itself(place: &Place) {
    place.run(vmi().with(|vmi| vmi["spec"]["terminationGracePeriodSeconds"] = json!(600)));
    let mut console = place.console();
    console.expect(guest::PROMPT).unwrap();
    place.await_agent();
    let last = last_of(place);
    assert_eq!(last["status"]["phase"], "Succeeded");
    console.expect("reboot: Power down").unwrap();
}
