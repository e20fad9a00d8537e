//! What is said of a VMI for its pod's sake.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rvm_types::condition::{self, Condition, FALSE, TRUE};
use rvm_types::names::{conditions, events, reasons};
use rvm_types::{Phase, VirtualMachineInstance, VirtualMachineInstanceStatus};

const NOT_SCHEDULED: &str = "virt-launcher pod has not yet been scheduled";
const TERMINATING: &str = "virt-launcher pod is terminating";
const NOT_RUNNING: &str = "Guest VM is not reported as running";
const MISSING: &str = "The virt-launcher pod does not say whether it is ready";
const GONE: &str = "The virt-launcher pod is gone";

/// Reasons for which there is no pod.
const NOT_MADE: [&str; 2] = [events::FAILED_CREATE, reasons::FAILED_PVC_NOT_FOUND];

/// Reasons for which a container waits that are told of the VMI.
const WAITS: [&str; 2] = [reasons::ERR_IMAGE_PULL, reasons::IMAGE_PULL_BACK_OFF];

/// The status that a VMI has with this pod.
pub fn with_pod(vmi: &VirtualMachineInstance, pod: &Pod, now: Timestamp) -> VirtualMachineInstanceStatus {
    let mut status = vmi.status.clone().unwrap_or_default();
    let before_claim = is_open(&status);
    if before_claim {
        status.enter(Phase::Scheduling, second(now));
    }
    status.active_pods = active(pod);
    scheduled(&mut status, pod, now);
    if before_claim {
        waiting(&mut status, pod, now);
    }
    let condition = ready(&status, pod);
    set(&mut status, condition, now);
    status
}

/// The status of a VMI that has no pod, and had one.
pub fn without_pod(vmi: &VirtualMachineInstance, now: Timestamp) -> VirtualMachineInstanceStatus {
    let mut status = vmi.status.clone().unwrap_or_default();
    status.active_pods.clear();
    set(&mut status, not_ready(reasons::POD_NOT_EXISTS, GONE), now);
    status
}

/// The status of a VMI whose pod could not be made.
pub fn refused(
    vmi: &VirtualMachineInstance,
    (reason, why): (&str, &str),
    now: Timestamp,
) -> VirtualMachineInstanceStatus {
    let mut status = vmi.status.clone().unwrap_or_default();
    let condition = Condition::new(conditions::SYNCHRONIZED, FALSE).because(reason, why);
    set(&mut status, condition, now);
    set(
        &mut status,
        not_ready(reasons::POD_NOT_EXISTS, NOT_SCHEDULED),
        now,
    );
    status
}

/// The status of a VMI whose machine went with its pod.
pub fn failed(vmi: &VirtualMachineInstance, why: &str, now: Timestamp) -> VirtualMachineInstanceStatus {
    let mut status = vmi.status.clone().unwrap_or_default();
    status.enter(Phase::Failed, second(now));
    status.reason = Some("PodFailed".to_owned());
    set(&mut status, not_ready(reasons::GUEST_NOT_RUNNING, why), now);
    status
}

/// Whether nobody has taken the VMI yet.
pub fn is_open(status: &VirtualMachineInstanceStatus) -> bool {
    matches!(status.phase, None | Some(Phase::Pending | Phase::Scheduling))
}

/// Whether a pod will never run again.
pub fn is_down(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

/// Why a pod is down, as far as it says.
pub fn epitaph(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref();
    let said = status.and_then(|status| status.message.clone().or_else(|| status.reason.clone()));
    let ended = status.and_then(|status| {
        status
            .container_statuses
            .as_ref()?
            .first()?
            .state
            .as_ref()?
            .terminated
            .clone()
    });
    let ended = ended.map(|ended| {
        let reason = ended.reason.unwrap_or_else(|| "Ended".to_owned());
        format!("{reason}, exit status {}", ended.exit_code)
    });
    match said.or(ended) {
        Some(why) => format!("The pod {name} has ended: {why}"),
        None => format!("The pod {name} has ended"),
    }
}

pub fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn active(pod: &Pod) -> BTreeMap<String, String> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let uid = pod.metadata.uid.clone().filter(|_| !is_down(pod));
    uid.map(|uid| (uid, node.unwrap_or_default()))
        .into_iter()
        .collect()
}

/// What the scheduler says, where it found no node.
fn scheduled(status: &mut VirtualMachineInstanceStatus, pod: &Pod, now: Timestamp) {
    match pod_condition(pod, conditions::POD_SCHEDULED) {
        Some(said) if said.status == FALSE => {
            let told = Condition::new(conditions::POD_SCHEDULED, FALSE).because(
                said.reason.as_deref().unwrap_or_default(),
                said.message.clone().unwrap_or_default(),
            );
            set(status, told, now);
        }
        _ => {
            condition::remove(&mut status.conditions, conditions::POD_SCHEDULED);
        }
    }
}

/// What the container waits for, where that may last.
fn waiting(status: &mut VirtualMachineInstanceStatus, pod: &Pod, now: Timestamp) {
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let waits = containers.and_then(|all| all.first()?.state.as_ref()?.waiting.as_ref());
    let lasting = waits.and_then(|waits| {
        let reason = WAITS
            .iter()
            .find(|reason| waits.reason.as_deref() == Some(**reason))?;
        Some((*reason, waits.message.clone().unwrap_or_default()))
    });
    match lasting {
        Some((reason, message)) => {
            let told = Condition::new(conditions::SYNCHRONIZED, FALSE).because(reason, message);
            set(status, told, now);
        }
        // That the pod could not be made is over, now that it is there.
        None if reason_of(status, conditions::SYNCHRONIZED)
            .is_some_and(|reason| NOT_MADE.contains(&reason))
            && status.node_name.is_none() =>
        {
            condition::remove(&mut status.conditions, conditions::SYNCHRONIZED);
        }
        None => {}
    }
}

/// A VMI is as ready as its pod, once its guest runs.
fn ready(status: &VirtualMachineInstanceStatus, pod: &Pod) -> Condition {
    if pod.metadata.deletion_timestamp.is_some() {
        return not_ready(reasons::POD_TERMINATING, TERMINATING);
    }
    if status.phase != Some(Phase::Running) {
        return not_ready(reasons::GUEST_NOT_RUNNING, NOT_RUNNING);
    }
    match pod_condition(pod, conditions::READY) {
        Some(said) if said.status == TRUE => Condition::new(conditions::READY, TRUE),
        Some(said) => not_ready(
            said.reason.as_deref().unwrap_or_default(),
            said.message.as_deref().unwrap_or_default(),
        ),
        None => not_ready("PodConditionMissing", MISSING),
    }
}

fn not_ready(reason: &str, message: &str) -> Condition {
    Condition::new(conditions::READY, FALSE).because(reason, message)
}

fn reason_of<'a>(status: &'a VirtualMachineInstanceStatus, kind: &str) -> Option<&'a str> {
    condition::find(&status.conditions, kind)?.reason.as_deref()
}

fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn set(status: &mut VirtualMachineInstanceStatus, mut condition: Condition, now: Timestamp) {
    condition.last_transition_time = Some(second(now));
    condition::upsert(&mut status.conditions, condition);
}

/// Kubernetes keeps no finer time.
fn second(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
