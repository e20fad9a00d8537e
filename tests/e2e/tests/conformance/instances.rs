//! VMIs on their own: starts, pauses and the quality of service that their resources ask for.

use rvm_e2e::guest::{self, NAME};
use rvm_harness::Manifest;
use serde_json::{Value, json};

use crate::place::{Place, condition, vmi};

/// How often a thing is done that has to work time and again.
const REPEATS: usize = 3;

/// And its guest stands still meanwhile.
pub fn case_04_a_vmi_is_paused_and_goes_on(place: &Place) {
    place.run(vmi());
    place.act_on_vmi("pause");
    let paused = place.await_that("vmi", "pause", |vmi| condition(vmi, "Paused")["status"] == "True");
    assert_eq!(condition(&paused, "Paused")["reason"], "PausedByUser");
    assert_eq!(paused["status"]["phase"], "Running");
    place.act_on_vmi("unpause");
    place.await_that("vmi", "end of the pause", |vmi| {
        condition(vmi, "Paused").is_null()
    });
    let mut console = place.console();
    console.expect(guest::PROMPT).unwrap();
    place.no_warnings();
}

/// With the same name.
pub fn case_07_a_vmi_starts_time_and_again(place: &Place) {
    for _ in 0..REPEATS {
        place.run(vmi());
        place
            .kubectl
            .ok(&["delete", "vmi", NAME, "--timeout=120s"])
            .unwrap();
    }
    place.no_warnings();
}

/// Its guest has not begun; it does when it is told to.
pub fn case_10_a_vmi_may_start_paused(place: &Place) {
    place.run(vmi().with(|vmi| vmi["spec"]["startStrategy"] = json!("Paused")));
    place.await_that("vmi", "pause", |vmi| condition(vmi, "Paused")["status"] == "True");
    place.act_on_vmi("unpause");
    place.console().expect(guest::PROMPT).unwrap();
    place.await_that("vmi", "end of the pause", |vmi| {
        condition(vmi, "Paused").is_null()
    });
}

/// The demo with these resources and no other word on memory.
fn with_resources(resources: Value) -> Manifest {
    vmi().with(|vmi| {
        vmi["spec"]["domain"]["resources"] = resources;
        vmi["spec"]["domain"]["memory"] = Value::Null;
    })
}

pub fn case_22_requests_alone_are_burstable(place: &Place) {
    let running = place.run(with_resources(json!({"requests": {"memory": "256Mi"}})));
    assert_eq!(running["status"]["qosClass"], "Burstable");
}

pub fn case_23_requests_that_are_their_limits_are_guaranteed(place: &Place) {
    let both = json!({"cpu": "1", "memory": "256Mi"});
    let running = place.run(with_resources(json!({"requests": both, "limits": both})));
    assert_eq!(running["status"]["qosClass"], "Guaranteed");
}

pub fn case_24_limits_alone_are_guaranteed(place: &Place) {
    let running = place.run(with_resources(json!({"limits": {"cpu": "1", "memory": "256Mi"}})));
    assert_eq!(running["status"]["qosClass"], "Guaranteed");
}
