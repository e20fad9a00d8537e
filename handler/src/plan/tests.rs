//! What is promised of plans: one row for each state that a VMI and its machine can be in together.

use super::*;
use crate::sample::{self, HANDLER, deleted, id, info, vmi_in, vmi_with};
use rvmm_control::{EndReason, Ending};
use serde_json::json;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn me() -> Me {
    Me {
        node: "a".into(),
        handler: HANDLER.into(),
        stale_after: Duration::from_secs(300),
        ..Me::default()
    }
}

fn seen(machine: Machine) -> Seen {
    Seen {
        machine,
        stop_requested: false,
        owner_heartbeat: None,
        retry_at: None,
        network: None,
        facts: None,
        attempts: Attempts::default(),
        claims: Fit::Here,
        berth: Berth::Anywhere,
    }
}

fn asked(machine: Machine) -> Seen {
    Seen {
        stop_requested: true,
        ..seen(machine)
    }
}

fn ended(reason: EndReason) -> Machine {
    Machine::Ended(Ending {
        reason,
        message: "told".into(),
    })
}

fn alive() -> Machine {
    Machine::Alive(info(State::Running))
}

fn planned(vmi: &VirtualMachineInstance, seen: &Seen) -> Vec<Step> {
    plan(&id(), vmi, seen, &me(), now())
}

fn running() -> Vec<Step> {
    vec![Step::Report(Report::Running(
        info(State::Running),
        None,
        None,
        Box::default(),
    ))]
}

fn failed(reason: &'static str, steps: &[Step]) -> bool {
    matches!(steps, [Step::Report(Report::Over(over))] if over.reason == Some(reason) && !over.well)
}

fn went_well(steps: &[Step]) -> bool {
    matches!(steps, [Step::Report(Report::Over(over))] if over.well)
}

#[test]
fn a_new_vmi_is_accepted_then_claimed() {
    let absent = seen(Machine::Absent);
    assert_eq!(
        planned(&vmi_with(json!({})), &absent),
        [Step::Report(Report::Accepted)]
    );
    assert_eq!(
        planned(&vmi_with(json!({"phase": "Pending"})), &absent),
        [Step::Claim]
    );
}

#[test]
fn a_vmi_for_other_nodes_is_left_to_them() {
    let mut vmi = vmi_with(json!({"phase": "Pending"}));
    vmi.spec.node_selector = [("disk".to_owned(), "ssd".to_owned())].into();
    assert_eq!(planned(&vmi, &seen(Machine::Absent)), []);
    let ssd = Me {
        labels: [("disk".to_owned(), "ssd".to_owned())].into(),
        ..me()
    };
    assert_eq!(
        plan(&id(), &vmi, &seen(Machine::Absent), &ssd, now()),
        [Step::Claim]
    );
}

#[test]
fn a_vmi_is_claimed_where_its_claims_disks_are_and_told_once_why_they_are_not() {
    let pending = vmi_with(json!({"phase": "Pending"}));
    let seen = |claims: &Fit| Seen {
        claims: claims.clone(),
        ..seen(Machine::Absent)
    };
    let again = Step::Wait(CLAIMS);
    let elsewhere = planned(&pending, &seen(&Fit::Elsewhere));
    assert_eq!(elsewhere, vec![again.clone()]);
    let (reason, message) = ("FailedCreate", "it is not bound".to_owned());
    let not_yet = Fit::NotYet {
        reason,
        message: message.clone(),
    };
    let told = Step::Report(Report::OutOfSync { reason, message });
    assert_eq!(planned(&pending, &seen(&not_yet)), [told, again.clone()]);
    let condition =
        json!([{"type": "Synchronized", "status": "False", "reason": reason, "message": "it is not bound"}]);
    let knows = vmi_with(json!({"phase": "Pending", "conditions": condition}));
    assert_eq!(planned(&knows, &seen(&not_yet)), [again]);
    assert_eq!(planned(&knows, &seen(&Fit::Here)), [Step::Claim]);
}

#[test]
fn a_cordoned_node_takes_nothing() {
    let cordoned = Me {
        cordoned: true,
        ..me()
    };
    let vmi = vmi_with(json!({"phase": "Pending"}));
    assert_eq!(plan(&id(), &vmi, &seen(Machine::Absent), &cordoned, now()), []);
}

#[test]
fn a_vmi_that_cannot_run_is_refused_once_and_stays_pending() {
    let mut vmi = vmi_with(json!({"phase": "Pending"}));
    vmi.spec.architecture = Some("amd64".to_owned());
    let steps = planned(&vmi, &seen(Machine::Absent));
    let [Step::Report(Report::Refused(causes))] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!(causes[0].field, "spec.architecture");
    let mut object = json!(vmi);
    json_patch::merge(&mut object, &write(&steps[0], &vmi, &me(), now()).unwrap().0);
    let refused: VirtualMachineInstance = serde_json::from_value(object).unwrap();
    assert_eq!(planned(&refused, &seen(Machine::Absent)), []);
}

#[test]
fn what_is_claimed_is_prepared_before_it_is_handed_over() {
    let steps = [Step::Prepare, Step::HandOver];
    assert_eq!(planned(&vmi_in("Scheduling"), &seen(Machine::Absent)), steps);
    assert_eq!(planned(&vmi_in("Scheduling"), &seen(Machine::Prepared)), steps);
}

#[test]
fn what_could_not_be_prepared_waits_for_its_time() {
    let mut waiting = seen(Machine::Absent);
    waiting.retry_at = Some(now() + Duration::from_secs(20));
    assert_eq!(
        planned(&vmi_in("Scheduling"), &waiting),
        [Step::Wait(Duration::from_secs(20))]
    );
    waiting.retry_at = Some(now() - Duration::from_secs(1));
    assert_eq!(
        planned(&vmi_in("Scheduling"), &waiting),
        [Step::Prepare, Step::HandOver]
    );
}

#[test]
fn what_was_handed_over_and_never_started_is_started() {
    assert_eq!(
        planned(&vmi_in("Scheduled"), &seen(Machine::Prepared)),
        [Step::Start]
    );
}

#[test]
fn what_was_started_is_never_started_again() {
    let vmi = vmi_in("Scheduled");
    assert_eq!(
        planned(&vmi, &seen(Machine::Launching(now()))),
        [Step::Wait(POLL)]
    );
    assert_eq!(planned(&vmi, &seen(Machine::Silent)), [Step::Wait(POLL)]);
    assert_eq!(
        planned(&vmi, &seen(Machine::Alive(info(State::Starting)))),
        [Step::Wait(POLL)]
    );
    assert!(failed("Crashed", &planned(&vmi, &seen(Machine::Lost))));
    assert!(failed("RunDirectoryLost", &planned(&vmi, &seen(Machine::Absent))));
    assert!(failed(
        "MachineFailed",
        &planned(&vmi, &seen(ended(EndReason::Failed)))
    ));
}

#[test]
fn a_machine_whose_guest_runs_makes_the_vmi_run() {
    assert_eq!(planned(&vmi_in("Scheduled"), &seen(alive())), running());
}

#[test]
fn a_machine_that_starts_paused_makes_the_vmi_run_and_says_so() {
    let vmi = vmi_in("Scheduled");
    let steps = planned(&vmi, &seen(Machine::Alive(info(State::Paused))));
    let (patch, _) = write(&steps[0], &vmi, &me(), now()).unwrap();
    assert_eq!(patch["status"]["phase"], "Running");
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    let paused = conditions.iter().find(|said| said["type"] == "Paused").unwrap();
    assert_eq!(paused["reason"], "PausedByUser");
}

#[test]
fn a_reset_leaves_the_vmi_running() {
    let mut vmi = vmi_in("Running");
    let mut object = json!(vmi);
    json_patch::merge(&mut object, &write(&running()[0], &vmi, &me(), now()).unwrap().0);
    vmi = serde_json::from_value(object).unwrap();
    assert_eq!(planned(&vmi, &seen(Machine::Alive(info(State::Starting)))), []);
}

#[test]
fn an_adopted_machine_only_has_its_status_made_true() {
    assert_eq!(planned(&vmi_in("Running"), &seen(alive())), running());
}

#[test]
fn a_running_vmi_ends_as_its_machine_did() {
    let vmi = vmi_in("Running");
    assert!(went_well(&planned(&vmi, &seen(ended(EndReason::Poweroff)))));
    assert!(went_well(&planned(&vmi, &asked(ended(EndReason::Killed)))));
    assert!(went_well(&planned(&vmi, &asked(Machine::Lost))));
    assert!(failed(
        "GracePeriodExpired",
        &planned(&vmi, &asked(ended(EndReason::Overdue)))
    ));
    assert!(failed("Killed", &planned(&vmi, &seen(ended(EndReason::Killed)))));
    assert!(failed("Crashed", &planned(&vmi, &seen(Machine::Lost))));
    assert!(failed("RunDirectoryLost", &planned(&vmi, &seen(Machine::Absent))));
}

#[test]
fn a_stop_that_was_asked_for_is_carried_out_whenever_it_is_seen() {
    assert_eq!(planned(&vmi_in("Running"), &asked(alive())), [Step::Stop]);
    assert_eq!(
        planned(&vmi_in("Scheduled"), &asked(Machine::Silent)),
        [Step::Stop]
    );
    assert!(went_well(&planned(
        &vmi_in("Scheduled"),
        &asked(Machine::Prepared)
    )));
}

#[test]
fn a_vmi_that_is_over_has_no_machine() {
    assert_eq!(planned(&vmi_in("Failed"), &seen(alive())), [Step::Stop]);
    assert_eq!(
        planned(&vmi_in("Succeeded"), &seen(ended(EndReason::Poweroff))),
        []
    );
}

#[test]
fn a_view_of_the_past_changes_nothing() {
    assert_eq!(
        planned(&vmi_in("Scheduling"), &seen(alive())),
        [Step::Wait(SETTLE)]
    );
    assert_eq!(
        planned(&vmi_in("Scheduling"), &seen(ended(EndReason::Poweroff))),
        [Step::Wait(SETTLE)]
    );
}

#[test]
fn a_deleted_vmi_is_ended_told_cleared_away_and_released() {
    let vmi = deleted(vmi_in("Running"));
    let deletion = Step::Announce(Happening::normal("Deleted", "Signaled Deletion"));
    assert_eq!(planned(&vmi, &seen(alive())), [deletion, Step::Stop]);
    assert_eq!(planned(&vmi, &asked(alive())), [Step::Stop]);
    assert_eq!(
        planned(&vmi, &asked(Machine::Launching(now()))),
        [Step::Wait(POLL)]
    );
    assert!(went_well(&planned(&vmi, &asked(ended(EndReason::Killed)))));
    let over = deleted(vmi_in("Succeeded"));
    assert_eq!(
        planned(&over, &asked(ended(EndReason::Killed))),
        [Step::RemoveRunDir, Step::Release]
    );
}

#[test]
fn a_guest_with_an_agent_is_asked_unless_it_has_no_time() {
    let mut vmi = deleted(vmi_in("Running"));
    let listening = Machine::Alive(Box::new(Info {
        agent: true,
        ..*info(State::Running)
    }));
    let asking = Step::Announce(Happening::normal("ShuttingDown", "Signaled Graceful Shutdown"));
    assert_eq!(planned(&vmi, &seen(listening.clone())), [asking, Step::Stop]);
    vmi.spec.termination_grace_period_seconds = Some(0);
    let deletion = Step::Announce(Happening::normal("Deleted", "Signaled Deletion"));
    assert_eq!(planned(&vmi, &seen(listening)), [deletion, Step::Stop]);
}

#[test]
fn a_vmi_deleted_before_its_start_is_only_cleared_away() {
    let clear = [Step::RemoveRunDir, Step::Release];
    assert_eq!(
        planned(&deleted(vmi_in("Scheduling")), &seen(Machine::Prepared)),
        clear
    );
    assert!(went_well(&planned(
        &deleted(vmi_in("Scheduled")),
        &seen(Machine::Prepared)
    )));
}

#[test]
fn a_vmi_deleted_before_any_claim_is_not_held_back() {
    let mut vmi = deleted(vmi_with(json!({"phase": "Pending"})));
    assert_eq!(planned(&vmi, &seen(Machine::Absent)), [Step::Release]);
    vmi.metadata.finalizers = None;
    assert_eq!(planned(&vmi, &seen(Machine::Absent)), []);
}

/// A VMI that node `b` has claimed.
fn of_b(phase: &str) -> VirtualMachineInstance {
    sample::claimed("b", "handler-of-b", json!({"phase": phase, "nodeName": "b"}))
}

/// A VMI that an earlier handler of our node has claimed.
fn of_the_former(phase: &str) -> VirtualMachineInstance {
    sample::claimed(
        "a",
        "former-handler-of-a",
        json!({"phase": phase, "nodeName": "a"}),
    )
}

#[test]
fn what_another_node_has_is_left_alone() {
    assert_eq!(planned(&of_b("Scheduled"), &seen(Machine::Absent)), []);
    assert_eq!(planned(&of_b("Running"), &seen(Machine::Absent)), []);
    assert_eq!(planned(&deleted(of_b("Running")), &seen(Machine::Absent)), []);
}

#[test]
fn what_is_left_here_of_another_nodes_vmi_goes() {
    let of_b = of_b("Scheduling");
    assert_eq!(planned(&of_b, &seen(Machine::Prepared)), [Step::RemoveRunDir]);
    assert_eq!(planned(&of_b, &seen(alive())), [Step::Stop]);
}

#[test]
fn a_dead_nodes_claim_is_taken_over_and_a_living_ones_is_waited_for() {
    let of_b = of_b("Scheduling");
    let beaten = |seconds| Seen {
        owner_heartbeat: Some(now() - Duration::from_secs(seconds)),
        ..seen(Machine::Absent)
    };
    assert_eq!(planned(&of_b, &beaten(300)), [Step::Claim]);
    assert_eq!(
        planned(&of_b, &beaten(100)),
        [Step::Wait(Duration::from_secs(200))]
    );
    assert_eq!(planned(&deleted(of_b), &beaten(300)), [Step::Release]);
}

#[test]
fn a_name_of_a_node_without_a_claim_binds_nobody() {
    let wished = vmi_with(json!({"phase": "Pending", "nodeName": "a"}));
    assert_eq!(planned(&wished, &seen(Machine::Absent)), [Step::Claim]);
}

#[test]
fn a_status_without_a_claim_is_only_what_somebody_wrote() {
    let anew = [Step::Report(Report::Accepted)];
    for phase in ["Scheduling", "Scheduled", "Running", "Failed", "Succeeded", "Odd"] {
        let forged = vmi_with(json!({"phase": phase, "nodeName": "a"}));
        assert_eq!(planned(&forged, &seen(Machine::Absent)), anew, "{phase}");
    }
    let forged = vmi_with(
        json!({"phase": "Running", "nodeName": "b", "conditions": [{"type": "Ready", "status": "True"}]}),
    );
    let mut object = json!(forged);
    json_patch::merge(&mut object, &write(&anew[0], &forged, &me(), now()).unwrap().0);
    assert_eq!(object["status"]["phase"], "Pending");
    assert_eq!(
        (
            &object["status"]["nodeName"],
            object["status"]["conditions"].as_array()
        ),
        (&json!(null), None)
    );
}

#[test]
fn a_claim_that_came_with_a_manifest_is_of_another_vmi_and_counts_for_nothing() {
    let mut copied = vmi_in("Running");
    copied.metadata.uid = Some("6f9619ff-8b86-4d01-b42d-00cf4fc9640c".to_owned());
    assert_eq!(
        planned(&copied, &seen(Machine::Absent)),
        [Step::Report(Report::Accepted)]
    );
}

#[test]
fn another_handler_of_the_same_name_has_nothing_to_do_with_our_vmis() {
    let scheduled = of_the_former("Scheduled");
    let told = [Step::Report(Report::Orphaned)];
    assert_eq!(planned(&scheduled, &seen(Machine::Absent)), told);
    assert_eq!(planned(&scheduled, &seen(Machine::Prepared)), told);
    assert_eq!(planned(&of_the_former("Running"), &seen(Machine::Absent)), told);
    assert_eq!(planned(&of_the_former("Failed"), &seen(Machine::Absent)), []);
}

#[test]
fn what_a_former_handler_of_the_node_left_can_be_given_up() {
    let clear = [Step::RemoveRunDir, Step::Release];
    for phase in ["Scheduling", "Scheduled", "Running", "Succeeded", "Failed"] {
        assert_eq!(
            planned(&deleted(of_the_former(phase)), &seen(Machine::Absent)),
            clear
        );
    }
}

#[test]
fn what_a_former_handler_only_claimed_is_taken_over_once_the_claim_is_old() {
    let since = json!([{"phase": "Scheduling", "phaseTransitionTimestamp": now().to_string()}]);
    let status = json!({"phase": "Scheduling", "nodeName": "a", "phaseTransitionTimestamps": since});
    let claimed = sample::claimed("a", "former-handler-of-a", status);
    assert_eq!(
        planned(&claimed, &seen(Machine::Absent)),
        [Step::Wait(Duration::from_secs(300))]
    );
    let later = now() + Duration::from_secs(300);
    assert_eq!(
        plan(&id(), &claimed, &seen(Machine::Absent), &me(), later),
        [Step::Claim]
    );
}

#[test]
fn a_machine_that_is_here_is_ours_whatever_became_of_its_claim() {
    let reclaim = [Step::Reclaim];
    assert_eq!(planned(&of_the_former("Running"), &seen(alive())), reclaim);
    assert_eq!(
        planned(&deleted(of_the_former("Running")), &seen(alive())),
        reclaim
    );
    let wiped = vmi_with(json!({}));
    assert_eq!(planned(&wiped, &seen(alive())), reclaim);
    let mut object = json!(wiped);
    json_patch::merge(&mut object, &write(&reclaim[0], &wiped, &me(), now()).unwrap().0);
    let again: VirtualMachineInstance = serde_json::from_value(object).unwrap();
    assert_eq!(planned(&again, &seen(alive())), running());
    assert!(went_well(&planned(&again, &seen(ended(EndReason::Poweroff)))));
}

#[test]
fn an_rvmm_that_does_not_come_up_is_given_up_after_its_time() {
    let late = |by| seen(Machine::Launching(now() - by));
    let almost = late(LAUNCH_LIMIT - Duration::from_secs(1));
    assert_eq!(planned(&vmi_in("Scheduled"), &almost), [Step::Wait(POLL)]);
    for phase in ["Scheduled", "Running", "Failed"] {
        assert_eq!(
            planned(&vmi_in(phase), &late(LAUNCH_LIMIT)),
            [Step::GiveUp],
            "{phase}"
        );
    }
    assert_eq!(
        planned(&deleted(vmi_in("Scheduled")), &late(LAUNCH_LIMIT)),
        [Step::GiveUp]
    );
    assert_eq!(planned(&of_b("Running"), &late(LAUNCH_LIMIT)), [Step::GiveUp]);
}

#[test]
fn a_running_vmi_gets_its_finalizer_back() {
    let mut vmi = vmi_in("Running");
    vmi.metadata.finalizers = None;
    let (patch, _) = write(&running()[0], &vmi, &me(), now()).unwrap();
    assert_eq!(patch["metadata"]["finalizers"].as_array().unwrap().len(), 1);
}

/// This node, where machines are in pods.
fn in_pods() -> Me {
    Me {
        in_pods: true,
        ..me()
    }
}

fn planned_in_pods(vmi: &VirtualMachineInstance, machine: Machine, berth: Berth) -> Vec<Step> {
    let seen = Seen {
        berth,
        ..seen(machine)
    };
    plan(&id(), vmi, &seen, &in_pods(), now())
}

#[test]
fn one_whose_pod_waits_here_is_claimed_and_no_other() {
    for phase in ["Pending", "Scheduling"] {
        let vmi = vmi_with(json!({"phase": phase}));
        let planned = |berth| planned_in_pods(&vmi, Machine::Absent, berth);
        assert_eq!(planned(Berth::Here), [Step::Claim], "{phase}");
        assert_eq!(planned(Berth::Soon), [Step::Wait(BERTH)], "{phase}");
        assert_eq!(planned(Berth::Elsewhere), [], "{phase}");
    }
}

#[test]
fn one_in_a_pod_is_forgotten_after_its_pod() {
    let mut vmi = deleted(vmi_in("Succeeded"));
    let pods = &mut vmi.status.get_or_insert_default().active_pods;
    pods.insert("pod".into(), "a".into());
    let waits = planned_in_pods(&vmi, Machine::Absent, Berth::Here);
    assert_eq!(waits, [Step::RemoveRunDir, Step::Wait(SETTLE)]);
    vmi.status.get_or_insert_default().active_pods.clear();
    let goes = planned_in_pods(&vmi, Machine::Absent, Berth::Here);
    assert_eq!(goes, [Step::RemoveRunDir, Step::Release]);
}

#[test]
fn one_in_a_pod_is_as_ready_as_its_pod_says() {
    let mut vmi = vmi_in("Scheduled");
    let report = Step::Report(Report::Running(info(State::Running), None, None, Box::default()));
    let ready = |vmi: &VirtualMachineInstance, me: &Me| {
        let (patch, _) = write(&report, vmi, me, now()).unwrap();
        let conditions = patch["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = conditions.iter().find(|one| one["type"] == "Ready");
        ready.map(|ready| ready["status"].as_str().unwrap().to_owned())
    };
    let conditions = &mut vmi.status.get_or_insert_default().conditions;
    conditions.clear();
    assert_eq!(ready(&vmi, &me()).as_deref(), Some("True"));
    assert_eq!(ready(&vmi, &in_pods()), None);
}
