//! The demo guest as its user meets it: what is said at its console, wherever it runs.

use anyhow::{Result, ensure};
use rvm_harness::{Console, Kubectl};
use rvm_outer::Session;

/// The VMI of the manifest that users are shown.
pub const NAME: &str = "vmi-alpine";

/// How its shell shows that it is ready.
pub const PROMPT: &str = "vmi-alpine:~# ";

/// Waits for the prompt, types a command and reads its answer.
///
/// # Errors
/// The guest is not the one that the manifest names, or does not answer.
pub fn answers(viewer: Session) -> Result<Console> {
    let mut console = Console::at_prompt(viewer, PROMPT)?;
    let answer = console.ask("echo $((6 * 7)) $(uname -m) $(. /etc/os-release; echo $ID)")?;
    ensure!(answer == "42 riscv64 rvm-demo", "the guest said {answer:?}");
    Ok(console)
}

/// Seconds since the guest booted, as it counts them.
///
/// # Errors
/// The guest does not say.
pub fn uptime(console: &mut Console) -> Result<f64> {
    let answer = console.ask("cut -d' ' -f1 /proc/uptime")?;
    Ok(answer.parse()?)
}

/// The phases that a VMI went through, in their order.
///
/// # Errors
/// It is not there.
pub fn phases(kubectl: &Kubectl) -> Result<Vec<String>> {
    let vmi = kubectl.vmi(NAME)?;
    let transitions = vmi["status"]["phaseTransitionTimestamps"].as_array().cloned();
    let mut transitions = transitions.unwrap_or_default();
    let time =
        |transition: &serde_json::Value| transition["phaseTransitionTimestamp"].as_str().map(str::to_owned);
    ensure!(
        transitions.is_sorted_by_key(time),
        "times run backwards: {transitions:?}"
    );
    Ok(transitions
        .drain(..)
        .map(|transition| transition["phase"].as_str().unwrap_or_default().to_owned())
        .collect())
}

/// The status of a VMI's condition.
///
/// # Errors
/// The VMI is not there.
pub fn condition(kubectl: &Kubectl, kind: &str) -> Result<Option<String>> {
    Ok(condition_of(&kubectl.vmi(NAME)?, kind))
}

/// The same, of a VMI that was read.
#[must_use]
pub fn condition_of(vmi: &serde_json::Value, kind: &str) -> Option<String> {
    let conditions = vmi["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    found["status"].as_str().map(str::to_owned)
}
