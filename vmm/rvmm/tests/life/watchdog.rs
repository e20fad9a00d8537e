//! A guest that does not feed its watchdog: what is done to it, and what is told of that.

use rvmm_control::{Client, EndReason, Event, Request, State, WatchdogAction};

use crate::stage::Stage;

/// A guest that does not feed its watchdog, once, when the test lets it; from then on a tame one. It remembers that in the
/// run directory: the walls keep it from writing anywhere else, and one that forgets is reset for ever.
const HUNGRY: &str = r#"until [ -e hungry ]; do sleep 0.01; done; [ -e vm/fed ] || { touch vm/fed && say '{"event": "WATCHDOG", "data": {"action": "none"}}'; }; pausable"#;

fn console_log(stage: &Stage) -> String {
    std::fs::read_to_string(stage.run_dir().console_log()).unwrap()
}

#[test]
fn a_guest_that_is_to_be_switched_off_is_and_rvmm_says_why() {
    let stage = Stage::new();
    let options = ["--watchdog", "i6300esb,action=poweroff"];
    let machine = stage.start_with(&options, HUNGRY);
    stage.client_when(State::Running);
    std::fs::write(stage.path("hungry"), "").unwrap();
    assert_eq!(machine.status(), Some(1));
    let ending = stage.ending();
    assert_eq!(
        (ending.reason, ending.message.as_str()),
        (
            EndReason::Failed,
            "the guest did not feed its watchdog, which switched it off"
        )
    );
    assert!(console_log(&stage).contains("[rvmm: the guest did not feed its watchdog: poweroff]"));
}

#[test]
fn a_guest_that_is_to_be_reset_boots_again_and_everyone_is_told() {
    let stage = Stage::new();
    let machine = stage.start_with(&["--watchdog", "i6300esb"], HUNGRY);
    let mut client = stage.client_when(State::Running);
    let mut events = Client::connect(&stage.run_dir().control_socket())
        .and_then(Client::subscribe)
        .unwrap();
    std::fs::write(stage.path("hungry"), "").unwrap();
    let told: Vec<_> = events.by_ref().take(3).map(Result::unwrap).collect();
    assert_eq!(
        told,
        [
            Event::Watchdog(WatchdogAction::Reset),
            Event::Reset,
            Event::Running
        ]
    );
    assert_eq!(client.info().unwrap().resets, 1);
    client.kill().unwrap();
    assert_eq!(machine.status(), Some(0));
}

#[test]
fn a_reset_that_is_to_end_rvmm_does() {
    let stage = Stage::new();
    let options = ["--watchdog", "i6300esb", "--on-reset", "exit"];
    let machine = stage.start_with(&options, HUNGRY);
    stage.client_when(State::Running);
    std::fs::write(stage.path("hungry"), "").unwrap();
    assert_eq!(machine.status(), Some(3));
    assert_eq!(stage.ending().message, "the guest was reset by its watchdog");
}

#[test]
fn a_guest_that_is_to_stand_still_does_and_may_go_on() {
    let stage = Stage::new();
    let options = ["--watchdog", "i6300esb,action=pause"];
    let machine = stage.start_with(&options, HUNGRY);
    stage.client_when(State::Running);
    std::fs::write(stage.path("hungry"), "").unwrap();
    let mut client = stage.client_when(State::Paused);
    client.perform(Request::Resume).unwrap();
    client.kill().unwrap();
    assert_eq!(machine.status(), Some(0));
}
