//! What may be asked of a VM by each run strategy, and the words of the refusals.

use super::*;
use crate::vm::sample::{instance, machine};

const START: Action = Action::Start { paused: false };
const STOP: Action = Action::Stop { grace: None };
const RESTART: Action = Action::Restart { grace: None };

fn asked(action: Action, strategy: &str, phase: Option<&str>) -> Result<Change, String> {
    let vmi = phase.map(instance);
    judge(action, &machine(strategy), vmi.as_ref())
}

fn refused(action: Action, strategy: &str, phase: Option<&str>) -> String {
    asked(action, strategy, phase).expect_err("it is refused")
}

fn stop_then_start() -> Change {
    Change::Requests(vec![
        StateChangeRequest::stop("vmi-uid"),
        StateChangeRequest::start(),
    ])
}

#[test]
fn a_start_makes_a_halted_machine_run_always() {
    assert_eq!(
        asked(START, "Halted", None),
        Ok(Change::Strategy(RunStrategy::Always))
    );
}

#[test]
fn a_paused_start_is_a_request() {
    let Ok(Change::Requests(requests)) = asked(Action::Start { paused: true }, "Halted", None) else {
        panic!("no request");
    };
    assert!(requests.len() == 1 && requests[0].is_paused());
}

#[test]
fn a_start_is_a_request_where_the_strategy_waits_for_one() {
    let start = Ok(Change::Requests(vec![StateChangeRequest::start()]));
    assert_eq!(asked(START, "Manual", None), start);
    assert_eq!(asked(START, "RerunOnFailure", None), start);
    assert_eq!(asked(START, "Manual", Some("Failed")), Ok(stop_then_start()));
    assert_eq!(
        asked(START, "RerunOnFailure", Some("Succeeded")),
        Ok(stop_then_start())
    );
}

#[test]
fn a_start_is_refused_where_the_strategy_starts_by_itself() {
    assert_eq!(
        refused(START, "Always", None),
        "Always does not support manual start requests"
    );
    assert_eq!(
        refused(START, "Once", None),
        "Once does not support manual start requests"
    );
    assert_eq!(
        refused(START, "RerunOnFailure", Some("Failed")),
        "RerunOnFailure does not support starting VM from failed state"
    );
    assert_eq!(refused(START, "Manual", Some("Running")), "VM is already running");
}

#[test]
fn a_stop_halts_what_would_start_again() {
    let halted = Ok(Change::Strategy(RunStrategy::Halted));
    assert_eq!(asked(STOP, "Always", Some("Running")), halted);
    assert_eq!(asked(STOP, "Once", None), halted);
}

#[test]
fn a_stop_is_a_request_for_this_very_instance() {
    let stop = Ok(Change::Requests(vec![StateChangeRequest::stop("vmi-uid")]));
    assert_eq!(asked(STOP, "Manual", Some("Running")), stop);
    assert_eq!(asked(STOP, "RerunOnFailure", Some("Scheduled")), stop);
    assert_eq!(refused(STOP, "Manual", None), "VM is not running");
    assert_eq!(
        refused(STOP, "RerunOnFailure", Some("Failed")),
        "VM is not running"
    );
}

#[test]
fn a_halted_machine_can_only_be_stopped_sooner() {
    let sooner = Action::Stop { grace: Some(0) };
    assert_eq!(asked(sooner, "Halted", Some("Running")), Ok(Change::Nothing));
    assert_eq!(
        refused(STOP, "Halted", Some("Running")),
        "Halted only supports manual stop requests with a shorter graceperiod"
    );
    assert_eq!(refused(sooner, "Halted", None), "VM is not running");
}

#[test]
fn a_restart_is_a_stop_and_a_start() {
    assert_eq!(asked(RESTART, "Always", Some("Running")), Ok(stop_then_start()));
    assert_eq!(refused(RESTART, "Always", None), "VM is not running");
    assert_eq!(
        refused(RESTART, "Halted", Some("Running")),
        "Halted does not support manual restart requests"
    );
}

#[test]
fn requests_that_are_under_way_are_only_replaced_by_a_stop() {
    let mut vm = machine("Manual");
    let status = vm.status.get_or_insert_default();
    status.state_change_requests = vec![StateChangeRequest::start()];
    let vmi = instance("Running");
    assert_eq!(
        judge(RESTART, &vm, Some(&vmi)).expect_err("it is refused"),
        "unable to complete request: stop/start already underway"
    );
    judge(STOP, &vm, Some(&vmi)).expect("a stop stands in their place");
}
