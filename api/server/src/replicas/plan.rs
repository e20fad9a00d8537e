//! What is to be done for a set: a pure function of what there is.
//!
//! ```text
//!   whose each VMI is ─► adopt, let go ─┐  first; then it is looked anew
//!   how many are active ─► make, end ◄──┘
//!   which have ended ─► end
//!   its status ─► written where it differs
//! ```

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{Selector, SelectorExt};
use rvm_types::condition::{self, FALSE};
use rvm_types::names::{conditions, reasons};
use rvm_types::replica_set::VirtualMachineInstanceReplicaSetStatus;
use rvm_types::{Phase, VirtualMachineInstance, VirtualMachineInstanceReplicaSet};

use super::status;

/// Instances that one round makes or ends.
pub const BURST: usize = 50;
/// How long an instance that ended before it ran holds its place.
const COOLING: Duration = Duration::from_secs(10);

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The set.
    pub set: &'a VirtualMachineInstanceReplicaSet,
    /// All VMIs of its namespace.
    pub vmis: &'a [VirtualMachineInstance],
    /// The time.
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<'a> {
    /// Takes an instance that nobody controls.
    Adopt(&'a VirtualMachineInstance),
    /// Lets an instance go that the selector does not select.
    Release(&'a VirtualMachineInstance),
    /// Makes an instance.
    Create,
    /// Ends an instance that is one too many.
    Delete(&'a VirtualMachineInstance),
    /// Removes an instance that has ended.
    Clean(&'a VirtualMachineInstance),
    /// Writes the status.
    Report(Box<VirtualMachineInstanceReplicaSetStatus>),
    /// There is nothing to do before this much time.
    Wait(Duration),
}

/// The next steps; what is after them is planned when they are done. None where there is nothing to do until something changes.
pub fn plan<'a>(seen: &Seen<'a>) -> Vec<Step<'a>> {
    let set = seen.set;
    // Admission refuses such a selector; where there was none, nothing is done rather than too much.
    let Some(selector) = set.selector().ok().filter(|selector| !selector.selects_all()) else {
        return Vec::new();
    };
    let claims = claims(seen, &selector);
    if !claims.is_empty() {
        return claims;
    }
    let own: Vec<_> = seen
        .vmis
        .iter()
        .filter(|vmi| is_ours(set, vmi) && selects(&selector, vmi))
        .collect();
    let active: Vec<_> = own.iter().copied().filter(|vmi| is_active(vmi)).collect();
    let mut steps = Vec::new();
    let mut wait = None;
    if set.metadata.deletion_timestamp.is_none() && !set.is_paused() && makes_its_own(set, &selector) {
        let cooling: Vec<Duration> = own.iter().filter_map(|vmi| cooling(vmi, seen.now)).collect();
        wait = cooling.iter().min().copied();
        steps.extend(scale(set, &active, cooling.len()));
        let ended = own.iter().copied().filter(|vmi| has_ended(vmi));
        let ended = ended.filter(|vmi| cooling_left(vmi, seen.now).is_none());
        steps.extend(ended.take(BURST).map(Step::Clean));
    }
    let wanted = status::status(set, &selector, &active);
    if set.status.as_ref() != Some(&wanted) {
        steps.push(Step::Report(Box::new(wanted)));
    }
    if steps.is_empty() {
        steps.extend(wait.map(Step::Wait));
    }
    steps
}

/// Whose instances have to change. A set that goes takes none, but lets go what it does not select.
fn claims<'a>(seen: &Seen<'a>, selector: &Selector) -> Vec<Step<'a>> {
    let set = seen.set;
    let stays = set.metadata.deletion_timestamp.is_none();
    let claim = |vmi: &'a VirtualMachineInstance| {
        let selected = selects(selector, vmi);
        match controller(vmi) {
            Some(_) if is_ours(set, vmi) && !selected => Some(Step::Release(vmi)),
            None if selected && stays && vmi.metadata.deletion_timestamp.is_none() => Some(Step::Adopt(vmi)),
            _ => None,
        }
    };
    seen.vmis.iter().filter_map(claim).take(BURST).collect()
}

/// What is made or ended, so that there are as many as the set wants. Those that cool down still hold their places.
fn scale<'a>(
    set: &VirtualMachineInstanceReplicaSet,
    active: &[&'a VirtualMachineInstance],
    cooling: usize,
) -> Vec<Step<'a>> {
    let wanted = set.replicas();
    if active.len() > wanted {
        let mut candidates = active.to_vec();
        candidates.sort_by_key(|vmi| worth(vmi));
        let surplus = (active.len() - wanted).min(BURST);
        return candidates.into_iter().take(surplus).map(Step::Delete).collect();
    }
    let missing = wanted.saturating_sub(active.len() + cooling).min(BURST);
    std::iter::repeat_n(Step::Create, missing).collect()
}

/// What is ended first: what does not run yet, then what is not ready, then the younger.
fn worth(vmi: &VirtualMachineInstance) -> (u8, Reverse<Option<Timestamp>>, Option<String>) {
    let runs = vmi.phase().is_some_and(|phase| !phase.is_before_running());
    let rank = u8::from(runs) + u8::from(runs && status::is_ready(vmi));
    let made = vmi.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (rank, Reverse(made), vmi.metadata.name.clone())
}

/// Whether what is made from the template belongs to the set; otherwise it would make more and more.
fn makes_its_own(set: &VirtualMachineInstanceReplicaSet, selector: &Selector) -> bool {
    let metadata = set.spec.template.metadata.as_ref();
    metadata.is_some_and(|metadata| !metadata.labels.is_empty() && selector.matches(&metadata.labels))
}

fn selects(selector: &Selector, vmi: &VirtualMachineInstance) -> bool {
    vmi.metadata
        .labels
        .as_ref()
        .is_some_and(|labels| selector.matches(labels))
}

fn is_ours(set: &VirtualMachineInstanceReplicaSet, vmi: &VirtualMachineInstance) -> bool {
    controller(vmi).is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
}

/// Who controls an instance.
pub fn controller(vmi: &VirtualMachineInstance) -> Option<&OwnerReference> {
    let mut owners = vmi.metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

/// Neither ended nor being ended, nor of a node that takes its pod away.
fn is_active(vmi: &VirtualMachineInstance) -> bool {
    vmi.metadata.deletion_timestamp.is_none() && !has_ended(vmi)
}

/// It has ended or its pod goes, and nobody has deleted it yet.
fn has_ended(vmi: &VirtualMachineInstance) -> bool {
    let conditions = vmi.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let ready = condition::find(conditions, conditions::READY);
    let terminating = ready.is_some_and(|ready| {
        ready.status == FALSE && ready.reason.as_deref() == Some(reasons::POD_TERMINATING)
    });
    let ended = vmi.phase().is_some_and(Phase::is_final) || terminating;
    ended && vmi.metadata.deletion_timestamp.is_none()
}

/// How long an instance holds its place yet that ended before it ran, whether or not it is deleted.
fn cooling(vmi: &VirtualMachineInstance, now: Timestamp) -> Option<Duration> {
    let ended = vmi.phase().is_some_and(Phase::is_final);
    ended.then(|| cooling_left(vmi, now)).flatten()
}

fn cooling_left(vmi: &VirtualMachineInstance, now: Timestamp) -> Option<Duration> {
    let phases = &vmi.status.as_ref()?.phase_transition_timestamps;
    if phases.iter().any(|entered| entered.phase == Some(Phase::Running)) {
        return None;
    }
    let last = phases
        .iter()
        .rfind(|entered| entered.phase.as_ref() == vmi.phase())?;
    let ended = last.phase_transition_timestamp.as_ref()?.0;
    // A time in the future is not waited for longer than any other.
    let since = Duration::try_from(now.duration_since(ended)).unwrap_or_default();
    COOLING.checked_sub(since).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::replicas::sample::{instance, labelled, owned, set};

    const NOW: i64 = 1_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    /// The steps but for what is said, in words.
    fn acts(set: &VirtualMachineInstanceReplicaSet, vmis: &[VirtualMachineInstance]) -> Vec<String> {
        let steps = plan(&Seen {
            set,
            vmis,
            now: now(),
        });
        let name = |vmi: &VirtualMachineInstance| vmi.metadata.name.clone().unwrap();
        let word = |step: &Step| match step {
            Step::Adopt(vmi) => Some(format!("adopt {}", name(vmi))),
            Step::Release(vmi) => Some(format!("release {}", name(vmi))),
            Step::Create => Some("create".to_owned()),
            Step::Delete(vmi) => Some(format!("delete {}", name(vmi))),
            Step::Clean(vmi) => Some(format!("clean {}", name(vmi))),
            Step::Report(_) => None,
            Step::Wait(time) => Some(format!("wait {}", time.as_secs())),
        };
        steps.iter().filter_map(word).collect()
    }

    fn deleted<K: kube::Resource>(mut object: K) -> K {
        object.meta_mut().deletion_timestamp = Some(Time(now()));
        object
    }

    /// One that was in these phases, so many seconds ago.
    fn lived(name: &str, phases: &[(&str, i64)]) -> VirtualMachineInstance {
        let mut vmi = owned(name, phases.last().unwrap().0);
        let status = vmi.status.as_mut().unwrap();
        status.phase_transition_timestamps = phases
            .iter()
            .map(|(phase, ago)| rvm_types::status::PhaseTransition {
                phase: Some(Phase::from((*phase).to_owned())),
                phase_transition_timestamp: Some(Time(Timestamp::from_second(NOW - ago).unwrap())),
                ..Default::default()
            })
            .collect();
        vmi
    }

    #[test]
    fn a_set_makes_what_is_missing_and_ends_what_is_too_many() {
        assert_eq!(acts(&set(2), &[]), ["create", "create"]);
        assert_eq!(acts(&set(2), &[owned("a", "Running")]), ["create"]);
        let two = [owned("a", "Running"), owned("b", "Running")];
        assert!(acts(&set(2), &two).is_empty());
        assert_eq!(acts(&set(0), &two), ["delete a", "delete b"]);
        assert_eq!(acts(&set(10_000), &[]).len(), BURST);
    }

    #[test]
    fn what_does_not_run_goes_first_and_then_the_younger() {
        let mut old = owned("old", "Running");
        old.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1).unwrap()));
        let mut young = owned("young", "Running");
        young.metadata.creation_timestamp = Some(Time(Timestamp::from_second(2).unwrap()));
        let vmis = [old, young, owned("waiting", "Scheduling")];
        assert_eq!(acts(&set(2), &vmis), ["delete waiting"]);
        assert_eq!(acts(&set(1), &vmis), ["delete waiting", "delete young"]);
    }

    #[test]
    fn only_what_nobody_controls_is_adopted() {
        let mut theirs = owned("theirs", "Running");
        theirs.metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned();
        let vmis = [
            theirs,
            instance("orphan", "Running"),
            labelled("stranger", "db"),
            deleted(instance("leaving", "Running")),
        ];
        assert_eq!(acts(&set(1), &vmis), ["adopt orphan"]);
        assert!(acts(&deleted(set(1)), &vmis).is_empty());
    }

    #[test]
    fn what_is_no_longer_selected_is_let_go_and_replaced() {
        let mut relabelled = owned("a", "Running");
        relabelled.metadata.labels = Some([("app".to_owned(), "db".to_owned())].into());
        let vmis = [relabelled];
        assert_eq!(acts(&set(1), &vmis), ["release a"]);
        assert_eq!(acts(&deleted(set(1)), &vmis), ["release a"]);
        let mut released = vmis[0].clone();
        released.metadata.owner_references = None;
        assert_eq!(acts(&set(1), &[released]), ["create"]);
    }

    #[test]
    fn one_that_ended_is_replaced_and_removed() {
        let ended = lived("a", &[("Running", 5), ("Succeeded", 1)]);
        assert_eq!(acts(&set(1), &[ended]), ["create", "clean a"]);
        // One that somebody deletes is replaced at once, as a pod would be.
        assert_eq!(acts(&set(1), &[deleted(owned("b", "Running"))]), ["create"]);
    }

    #[test]
    fn one_that_never_ran_holds_its_place_for_a_while() {
        let failed = |ago| lived("a", &[("Scheduled", 30), ("Failed", ago)]);
        let told = |vmi: &VirtualMachineInstance| {
            let mut set = set(1);
            set.status = Some(status::status(&set, &set.selector().unwrap(), &[]));
            acts(&set, std::slice::from_ref(vmi))
        };
        assert_eq!(told(&failed(3)), ["wait 7"]);
        assert_eq!(told(&failed(11)), ["create", "clean a"]);
    }

    #[test]
    fn a_paused_set_neither_makes_nor_ends() {
        let mut paused = set(1);
        paused.spec.paused = Some(true);
        assert!(acts(&paused, &[]).is_empty());
        assert!(acts(&paused, &[owned("a", "Running"), owned("b", "Failed")]).is_empty());
        assert_eq!(acts(&paused, &[instance("c", "Running")]), ["adopt c"]);
    }

    #[test]
    fn a_set_that_does_not_select_its_own_makes_none() {
        let mut strange = set(3);
        strange.spec.template.metadata.as_mut().unwrap().labels.clear();
        assert!(acts(&strange, &[]).is_empty());
        let mut everything = set(3);
        everything.spec.selector = Default::default();
        assert!(acts(&everything, &[instance("a", "Running")]).is_empty());
    }
}
