//! What is said of a set: how many there are, and why there are not as many as it wants.

use kube::core::Selector;
use rvm_types::condition::{self, Condition, TRUE};
use rvm_types::names::{conditions, reasons};
use rvm_types::replica_set::VirtualMachineInstanceReplicaSetStatus;
use rvm_types::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet};

/// What the status of a set has to be, given its instances that are neither ended nor leaving. That something failed is said
/// until there are as many as it wants.
pub fn status(
    set: &VirtualMachineInstanceReplicaSet,
    selector: &Selector,
    active: &[&VirtualMachineInstance],
) -> VirtualMachineInstanceReplicaSetStatus {
    let mut status = set.status.clone().unwrap_or_default();
    let ready = active.iter().filter(|vmi| is_ready(vmi)).count();
    status.replicas = Some(count(active.len()));
    status.ready_replicas = Some(count(ready));
    status.label_selector = Some(selector.to_string());
    if !set.is_paused() {
        condition::remove(&mut status.conditions, conditions::REPLICA_PAUSED);
    } else if condition::find(&status.conditions, conditions::REPLICA_PAUSED).is_none() {
        let paused = Condition::new(conditions::REPLICA_PAUSED, TRUE);
        status
            .conditions
            .push(paused.because(reasons::PAUSED, "Controller got paused"));
    }
    if active.len() == set.replicas() {
        condition::remove(&mut status.conditions, conditions::REPLICA_FAILURE);
    }
    status
}

/// A status, where besides an instance could not be made, or not be ended.
pub fn failed(
    status: &VirtualMachineInstanceReplicaSetStatus,
    reason: &str,
    why: String,
) -> VirtualMachineInstanceReplicaSetStatus {
    let mut status = status.clone();
    let failure = Condition::new(conditions::REPLICA_FAILURE, TRUE).because(reason, why);
    condition::upsert(&mut status.conditions, failure);
    status
}

/// Whether an instance is ready.
pub fn is_ready(vmi: &VirtualMachineInstance) -> bool {
    let conditions = vmi.status.as_ref().map_or(&[][..], |status| &status.conditions);
    condition::find(conditions, conditions::READY).is_some_and(Condition::is_true)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicas::sample::{owned, ready, set};

    #[test]
    fn a_status_counts_what_is_there_and_what_is_ready() {
        let set = set(3);
        let vmis = [owned("a", "Running"), ready("b")];
        let active: Vec<_> = vmis.iter().collect();
        let status = status(&set, &set.selector().unwrap(), &active);
        assert_eq!((status.replicas, status.ready_replicas), (Some(2), Some(1)));
        assert_eq!(status.label_selector.as_deref(), Some("app=web"));
        assert!(status.conditions.is_empty());
    }

    #[test]
    fn a_paused_set_says_so_until_it_goes_on() {
        let mut set = set(0);
        let selector = set.selector().unwrap();
        set.spec.paused = Some(true);
        let paused = status(&set, &selector, &[]);
        let found = condition::find(&paused.conditions, "ReplicaPaused").unwrap();
        assert_eq!(found.message.as_deref(), Some("Controller got paused"));
        set.status = Some(paused.clone());
        assert_eq!(status(&set, &selector, &[]), paused);
        set.spec.paused = None;
        assert!(status(&set, &selector, &[]).conditions.is_empty());
    }

    #[test]
    fn a_failure_is_told_until_there_are_as_many_as_wanted() {
        let mut set = set(1);
        let selector = set.selector().unwrap();
        let status_of = |set: &_| status(set, &selector, &[]);
        set.status = Some(failed(&status_of(&set), "FailedCreate", "no".to_owned()));
        let told = status(&set, &selector, &[]);
        assert_eq!(told.conditions[0].reason.as_deref(), Some("FailedCreate"));
        let vmi = owned("a", "Running");
        assert!(status(&set, &selector, &[&vmi]).conditions.is_empty());
    }
}
