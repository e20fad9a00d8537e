//! Conditions: what holds of a machine, since when, and why.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Extra;

/// The condition holds.
pub const TRUE: &str = "True";
/// The condition does not hold.
pub const FALSE: &str = "False";
/// Nobody knows.
pub const UNKNOWN: &str = "Unknown";

/// What holds of a machine, since when, and why.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What: Ready, Paused and so on.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// True, False or Unknown.
    pub status: String,
    /// When it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// When its status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// One word on why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence on why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Condition {
    /// A condition with a status of [`TRUE`], [`FALSE`] or [`UNKNOWN`], as of now.
    pub fn new(condition_type: &str, status: &str) -> Self {
        Self {
            condition_type: condition_type.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(now()),
            ..Self::default()
        }
    }

    /// The same condition with a reason and a message.
    #[must_use]
    pub fn because(mut self, reason: &str, message: impl Into<String>) -> Self {
        self.reason = Some(reason.to_owned());
        self.message = Some(message.into());
        self
    }

    /// Whether the condition holds.
    pub fn is_true(&self) -> bool {
        self.status == TRUE
    }
}

/// The condition of this type, if there is one.
pub fn find<'a>(conditions: &'a [Condition], condition_type: &str) -> Option<&'a Condition> {
    conditions
        .iter()
        .find(|condition| condition.condition_type == condition_type)
}

/// Puts a condition in the place of the one of its type, or behind the others; tells whether anything changed.
/// The time of the last transition stays as long as the status does.
pub fn upsert(conditions: &mut Vec<Condition>, mut wanted: Condition) -> bool {
    let Some(old) = conditions
        .iter_mut()
        .find(|old| old.condition_type == wanted.condition_type)
    else {
        conditions.push(wanted);
        return true;
    };
    if old.status == wanted.status {
        wanted.last_transition_time = old.last_transition_time.clone();
    }
    if wanted.last_probe_time.is_none() {
        wanted.last_probe_time = old.last_probe_time.clone();
    }
    if *old == wanted {
        return false;
    }
    *old = wanted;
    true
}

/// Takes the condition of this type away; tells whether there was one.
pub fn remove(conditions: &mut Vec<Condition>, condition_type: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.condition_type != condition_type);
    conditions.len() != before
}

/// This second. Kubernetes keeps no finer time than that, so neither do we: an object that was written and read
/// back is equal to what it was.
pub fn now() -> Time {
    let second = jiff::Timestamp::now().as_second();
    Time(jiff::Timestamp::from_second(second).expect("a timestamp's own seconds are in range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::conditions::READY;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn ready(status: &str, second: i64) -> Condition {
        Condition {
            last_transition_time: Some(at(second)),
            ..Condition::new(READY, status)
        }
    }

    #[test]
    fn the_transition_time_stays_while_the_status_does() {
        let mut conditions = vec![ready(FALSE, 1)];
        assert!(upsert(
            &mut conditions,
            ready(FALSE, 9).because("GuestNotRunning", "not yet")
        ));
        assert_eq!(conditions[0].last_transition_time, Some(at(1)));
        assert_eq!(conditions[0].reason.as_deref(), Some("GuestNotRunning"));
    }

    #[test]
    fn the_transition_time_moves_with_the_status() {
        let mut conditions = vec![ready(FALSE, 1)];
        assert!(upsert(&mut conditions, ready(TRUE, 9)));
        assert_eq!(conditions, [ready(TRUE, 9)]);
    }

    #[test]
    fn the_same_condition_again_changes_nothing() {
        let mut conditions = vec![ready(TRUE, 1)];
        assert!(!upsert(&mut conditions, ready(TRUE, 9)));
        assert_eq!(conditions, [ready(TRUE, 1)]);
    }

    #[test]
    fn a_removed_condition_is_gone() {
        let mut conditions = vec![ready(TRUE, 1)];
        assert!(remove(&mut conditions, READY));
        assert!(!remove(&mut conditions, READY));
        assert!(find(&conditions, READY).is_none());
    }
}
