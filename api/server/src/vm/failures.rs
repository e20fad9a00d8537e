//! Instances that end before they have run: each is waited for longer than the one before.
//!
//! The wait grows with the square of their number, from ten seconds to five minutes, and up to half of it is added by chance,
//! so that machines which failed together do not come back together. One that has run, however briefly, ends the row.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rvm_types::vm::StartFailure;
use rvm_types::{Phase, VirtualMachineInstance};

/// The wait after the first failure, in seconds.
const FIRST: i64 = 10;
/// The longest wait, in seconds.
const LONGEST: i64 = 300;

/// What is known of failures once this instance was seen.
pub fn after(
    before: Option<&StartFailure>,
    vmi: Option<&VirtualMachineInstance>,
    now: Timestamp,
) -> Option<StartFailure> {
    let Some(vmi) = vmi else { return before.cloned() };
    if has_run(vmi) {
        return None;
    }
    let ended = vmi.phase().is_some_and(Phase::is_final);
    let uid = vmi.metadata.uid.as_deref();
    let counted = before.is_some_and(|before| before.last_failed_vmi_uid.as_deref() == uid);
    if !ended || counted {
        return before.cloned();
    }
    let so_far = before
        .and_then(|before| before.consecutive_fail_count)
        .unwrap_or(0);
    let count = so_far.max(0).saturating_add(1);
    let wait = SignedDuration::from_secs(wait(count, uid.unwrap_or_default()));
    let retry = now.checked_add(wait).unwrap_or(now);
    Some(StartFailure {
        consecutive_fail_count: Some(count),
        last_failed_vmi_uid: uid.map(str::to_owned),
        retry_after_timestamp: Timestamp::from_second(retry.as_second()).map(Time).ok(),
        ..StartFailure::default()
    })
}

/// How long the next instance has to wait yet; none if it may be made.
pub fn left(failure: Option<&StartFailure>, now: Timestamp) -> Option<std::time::Duration> {
    let retry = failure?.retry_after_timestamp.as_ref()?.0;
    let left = std::time::Duration::try_from(retry.duration_since(now)).ok()?;
    // A time that somebody wrote there is not waited for longer than we would have written.
    let most = std::time::Duration::from_secs(LONGEST.unsigned_abs());
    (!left.is_zero()).then_some(left.min(most))
}

/// Whether the processors of an instance ever ran.
fn has_run(vmi: &VirtualMachineInstance) -> bool {
    let status = vmi.status.iter();
    let mut phases = status.flat_map(|status| &status.phase_transition_timestamps);
    vmi.phase() == Some(&Phase::Running) || phases.any(|entered| entered.phase == Some(Phase::Running))
}

/// The wait after so many failures, in seconds. Its chance is the last one's UID, which nobody chose.
fn wait(count: i32, uid: &str) -> i64 {
    let count = i64::from(count);
    let wait = count.saturating_mul(count).saturating_mul(FIRST).min(LONGEST);
    let mut hash = DefaultHasher::new();
    uid.hash(&mut hash);
    let share = i64::try_from(hash.finish() % 101).expect("a hundred at most");
    (wait + wait / 2 * share / 100).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::sample::{instance, ran};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn failed(uid: &str) -> VirtualMachineInstance {
        let mut vmi = instance("Failed");
        vmi.metadata.uid = Some(uid.to_owned());
        vmi
    }

    #[test]
    fn an_instance_that_never_ran_is_counted_once() {
        let first = after(None, Some(&failed("a")), at(100));
        assert_eq!(first.as_ref().unwrap().consecutive_fail_count, Some(1));
        assert_eq!(after(first.as_ref(), Some(&failed("a")), at(900)), first);
        let second = after(first.as_ref(), Some(&failed("b")), at(900));
        assert_eq!(second.unwrap().consecutive_fail_count, Some(2));
    }

    #[test]
    fn an_instance_that_ran_ends_the_row() {
        let failure = after(None, Some(&failed("a")), at(100));
        assert_eq!(after(failure.as_ref(), Some(&ran("Failed")), at(200)), None);
    }

    #[test]
    fn a_row_stays_while_there_is_no_instance_or_it_has_not_ended() {
        let failure = after(None, Some(&failed("a")), at(100));
        assert_eq!(after(failure.as_ref(), None, at(200)), failure);
        assert_eq!(
            after(failure.as_ref(), Some(&instance("Scheduling")), at(200)),
            failure
        );
    }

    #[test]
    fn waits_grow_by_squares_to_five_minutes() {
        for (count, least, most) in [
            (1, 10, 15),
            (2, 40, 60),
            (3, 90, 135),
            (6, 300, 300),
            (i32::MAX, 300, 300),
        ] {
            let wait = wait(count, "some-uid");
            assert!((least..=most).contains(&wait), "{count}: {wait}");
        }
    }

    #[test]
    fn a_wait_ends_and_is_never_longer_than_ours() {
        let failure = after(None, Some(&failed("a")), at(100)).unwrap();
        let retry = failure.retry_after_timestamp.as_ref().unwrap().0;
        assert_eq!(left(Some(&failure), retry), None);
        assert_eq!(
            left(Some(&failure), at(retry.as_second() - 3)),
            Some(std::time::Duration::from_secs(3))
        );
        assert_eq!(
            left(Some(&failure), at(-1_000_000)),
            Some(std::time::Duration::from_secs(300))
        );
    }
}
