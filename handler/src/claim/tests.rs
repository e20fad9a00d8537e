//! What is promised of claims: each VMI is started at most once, and once if a handler lives.

mod world;

use super::*;
use crate::sample;
use proptest::prelude::*;
use serde_json::json;
use world::{Act, World};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const STALE: Duration = Duration::from_secs(300);

fn claimed_at(second: i64) -> VirtualMachineInstance {
    let time = at(second).to_string();
    sample::claimed(
        "b",
        "handler-of-b",
        json!({
            "phase": "Scheduling", "nodeName": "b",
            "phaseTransitionTimestamps": [{"phase": "Scheduling", "phaseTransitionTimestamp": time}],
        }),
    )
}

#[test]
fn a_claim_without_any_heartbeat_is_free_once_it_is_old() {
    assert_eq!(
        abandoned(&claimed_at(1000), None, at(1300), STALE),
        Abandoned::Yes
    );
    let left = Abandoned::NotFor(Duration::from_secs(1));
    assert_eq!(abandoned(&claimed_at(1000), None, at(1299), STALE), left);
}

#[test]
fn a_fresh_claim_is_not_free_though_the_heartbeat_is_old() {
    let left = Abandoned::NotFor(Duration::from_secs(300));
    assert_eq!(abandoned(&claimed_at(2000), Some(at(1)), at(2000), STALE), left);
}

#[test]
fn a_clock_that_runs_ahead_frees_nothing() {
    let ahead = abandoned(&claimed_at(1000), Some(at(9000)), at(2000), STALE);
    assert!(matches!(ahead, Abandoned::NotFor(_)));
}

#[test]
fn a_claim_that_is_taken_over_begins_anew() {
    let vmi = claimed_at(1000);
    let mut edit = Edit::of(&vmi);
    claim(
        &mut edit,
        &Me {
            node: "a".into(),
            handler: "handler-of-a".into(),
            ..Me::default()
        },
        at(2000),
    );
    let patch = edit.patch().unwrap();
    assert_eq!(patch["status"]["nodeName"], "a");
    assert_eq!(
        patch["metadata"]["annotations"]["rvm/claim"],
        format!("a/handler-of-a/{}", sample::UID)
    );
    assert_eq!(patch["metadata"]["labels"]["kubevirt.io/nodeName"], "a");
    let stamps = patch["status"]["phaseTransitionTimestamps"].as_array().unwrap();
    assert_eq!(stamps.len(), 1);
    assert_eq!(stamps[0]["phaseTransitionTimestamp"], at(2000).to_string());
}

#[test]
fn a_slow_handler_cannot_hand_over_what_was_taken_from_it() {
    let mut world = World::new();
    let steps = |handler, count| vec![Act::Step { handler, vm: 0 }; count];
    // a accepts, claims and prepares; each takes a plan and a step.
    steps(0, 6).iter().for_each(|act| world.act(act));
    assert_eq!(
        (world.phase(0), world.node(0)),
        (Some(Phase::Scheduling), Some("a".to_owned()))
    );
    world.act(&Act::Pass { seconds: 301 });
    world.act(&Act::Beat { handler: 1 });
    world.act(&Act::Hear { handler: 1, vm: 0 });
    steps(1, 2).iter().for_each(|act| world.act(act));
    assert_eq!(world.node(0).as_deref(), Some("b"));
    steps(0, 1).iter().for_each(|act| world.act(act));
    assert_eq!((world.phase(0), world.starts[0]), (Some(Phase::Scheduling), 0));
    world.settle(&[0, 1]);
    assert_eq!((world.starts[0], world.node(0).as_deref()), (1, Some("b")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn in_any_order_of_events_a_vmi_is_started_at_most_once(acts in world::acts()) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
            prop_assert!(world.starts.iter().all(|starts| *starts <= 1), "{:?}", world.starts);
        }
    }

    #[test]
    fn whatever_happened_before_a_vmi_runs_once_its_handlers_are_back(acts in world::acts()) {
        let mut world = World::new();
        acts.iter().for_each(|act| world.act(act));
        world.settle(&[0, 1]);
        prop_assert_eq!(world.starts, [1, 1]);
        prop_assert_eq!([world.phase(0), world.phase(1)], [Some(Phase::Running), Some(Phase::Running)]);
    }

    #[test]
    fn what_a_dead_node_did_not_take_for_good_runs_on_the_living_one(acts in world::acts()) {
        let mut world = World::new();
        acts.iter().for_each(|act| world.act(act));
        world.act(&Act::Kill { handler: 0 });
        world.settle(&[1]);
        for vm in 0..world::VMS {
            let handed_over_to_the_dead = world.node(vm).as_deref() == Some("a");
            prop_assert_eq!(world.phase(vm) == Some(Phase::Running) || handed_over_to_the_dead, true);
            prop_assert!(!handed_over_to_the_dead || world.phase(vm) != Some(Phase::Scheduling));
            prop_assert!(world.starts[vm] <= 1);
        }
    }
}
