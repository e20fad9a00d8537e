//! The tiny guest at its shell: what a test types on a guest's console, and what it waits for.
//!
//! Everything here fails the test that it is called in, by panicking.

use std::time::Duration;

use crate::session::Session;

/// How long anything may take that will come if it comes at all. Never what a test measures.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// What the shell shows when it waits for a command.
pub const PROMPT: &str = "guest# ";

/// Waits until the shell waits for a command.
///
/// # Panics
/// It does not in time.
pub fn until_ready(vm: &mut Session) {
    vm.expect(PROMPT, PATIENCE).expect("the guest has a shell");
}

/// Types a command, and returns what came up to and with `answer`, once the shell is ready again.
///
/// # Panics
/// The guest does not answer so in time.
pub fn ask(vm: &mut Session, command: &str, answer: &str) -> String {
    vm.send(format!("{command}\n")).expect("the guest takes input");
    let said = vm.expect(answer, PATIENCE).expect("the guest answers");
    until_ready(vm);
    said
}

/// Has the guest switch itself off, which ends rvmm well.
///
/// # Panics
/// rvmm does not end in time, or with another status than 0.
pub fn switch_off(vm: &mut Session) {
    vm.send("poweroff -f\n").expect("the guest takes input");
    assert_eq!(vm.wait(PATIENCE).expect("rvmm ends").status(), Some(0));
}
