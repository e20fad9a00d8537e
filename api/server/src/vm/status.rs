//! What is said of a VM: its conditions, and the one word that people read.

use jiff::Timestamp;
use rvm_types::condition::{self, Condition, FALSE, TRUE};
use rvm_types::hotplug::VolumeRequest;
use rvm_types::names::{annotations, conditions, events, reasons};
use rvm_types::vm::{RunStrategy, StateChange, StateChangeRequest, VirtualMachineStatus};
use rvm_types::{Phase, VirtualMachine, VirtualMachineInstance};

use super::failures;

/// Conditions that are the VM's own; all others are its instance's.
const OWN: [&str; 3] = [
    conditions::READY,
    conditions::FAILURE,
    conditions::RESTART_REQUIRED,
];

/// What else is known of a VM.
#[derive(Debug, Clone, Copy, Default)]
pub struct Aspects {
    /// Its instance was made from another template.
    pub restart: bool,
    /// Its strategy has nothing left to do for now.
    pub settled: bool,
    /// The instance of its name is another's.
    pub taken: bool,
}

/// What the status of a VM has to be, given its instance and what else is known.
pub fn status(
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    aspects: Aspects,
    now: Timestamp,
) -> VirtualMachineStatus {
    let mut status = vm.status.clone().unwrap_or_default();
    status.created = Some(vmi.is_some());
    status.ready = Some(vmi.is_some_and(|vmi| holds(vmi, conditions::READY)));
    status.state_change_requests = pending(&status.state_change_requests, vmi).to_vec();
    status.volume_requests = unplugged(&status.volume_requests, vm, vmi);
    status.start_failure = failures::after(status.start_failure.as_ref(), vmi, now);
    status.desired_generation = vm.metadata.generation;
    if let Some(generation) = vmi.and_then(generation).or(vm.metadata.generation) {
        status.observed_generation = Some(generation);
    }
    if aspects.settled {
        status.run_strategy = Some(vm.run_strategy());
    }
    set_conditions(&mut status.conditions, vmi, aspects);
    status.printable_status = Some(word(vm, &status, vmi).to_owned());
    status
}

/// Requests that are not done yet. They are done in their order.
pub fn pending<'a>(
    requests: &'a [StateChangeRequest],
    vmi: Option<&VirtualMachineInstance>,
) -> &'a [StateChangeRequest] {
    let uid = vmi.and_then(|vmi| vmi.metadata.uid.as_deref());
    // One that ends or has ended is not the one that was asked for.
    let mut left = requests;
    while let [first, rest @ ..] = left {
        let done = match first.action {
            StateChange::Start => vmi.is_some_and(lives),
            // The end of an instance that is no more.
            StateChange::Stop => uid.is_none() || first.uid.as_deref().is_some_and(|of| Some(of) != uid),
            StateChange::Other(_) => true,
        };
        if !done {
            break;
        }
        left = rest;
    }
    left
}

/// Whether an instance neither ends nor has ended.
pub fn lives(vmi: &VirtualMachineInstance) -> bool {
    vmi.metadata.deletion_timestamp.is_none() && !vmi.phase().is_some_and(Phase::is_final)
}

/// What is asked for of volumes and not done in the template, or not in an instance that lives and takes such.
pub fn unplugged(
    requests: &[VolumeRequest],
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
) -> Vec<VolumeRequest> {
    let live = vmi.filter(|vmi| lives(vmi) && vmi.takes_volumes());
    let is_left = |request: &&VolumeRequest| {
        let in_template = request.is_done(&vm.spec.template.spec);
        !in_template || live.is_some_and(|vmi| !request.is_done(&vmi.spec))
    };
    requests.iter().filter(is_left).cloned().collect()
}

/// The generation of its VM that an instance was made from.
pub fn generation(vmi: &VirtualMachineInstance) -> Option<i64> {
    let annotations = vmi.metadata.annotations.as_ref()?;
    annotations.get(annotations::VM_GENERATION)?.parse().ok()
}

/// Whether a condition of an instance holds.
fn holds(vmi: &VirtualMachineInstance, kind: &str) -> bool {
    of(vmi, kind).is_some_and(Condition::is_true)
}

fn of<'a>(vmi: &'a VirtualMachineInstance, kind: &str) -> Option<&'a Condition> {
    condition::find(&vmi.status.as_ref()?.conditions, kind)
}

/// Whether a condition of an instance does not hold for this reason.
fn fails_for(vmi: &VirtualMachineInstance, kind: &str, reason: &str) -> bool {
    of(vmi, kind)
        .is_some_and(|condition| condition.status == FALSE && condition.reason.as_deref() == Some(reason))
}

fn set_conditions(all: &mut Vec<Condition>, vmi: Option<&VirtualMachineInstance>, aspects: Aspects) {
    let theirs: &[Condition] = vmi
        .and_then(|vmi| vmi.status.as_ref())
        .map_or(&[], |status| &status.conditions);
    let is_own = |kind: &str| OWN.contains(&kind);
    all.retain(|old| is_own(&old.condition_type) || condition::find(theirs, &old.condition_type).is_some());
    for theirs in theirs.iter().filter(|theirs| !is_own(&theirs.condition_type)) {
        condition::upsert(all, theirs.clone());
    }
    condition::upsert(all, ready(vmi));
    if vmi.is_some() {
        condition::remove(all, conditions::FAILURE);
    }
    if aspects.taken {
        let taken = "a VirtualMachineInstance of this name belongs to another object";
        condition::upsert(
            all,
            Condition::new(conditions::FAILURE, TRUE).because(events::FAILED_CREATE, taken),
        );
    }
    if aspects.restart {
        let required = Condition::new(conditions::RESTART_REQUIRED, TRUE).because(
            "RestartRequired",
            "a non-live-updatable field was changed in the template spec",
        );
        condition::upsert(all, required);
    } else {
        condition::remove(all, conditions::RESTART_REQUIRED);
    }
}

fn ready(vmi: Option<&VirtualMachineInstance>) -> Condition {
    let not = |reason, message| Condition::new(conditions::READY, FALSE).because(reason, message);
    match vmi {
        None => not(reasons::VMI_NOT_EXISTS, "VMI does not exist"),
        Some(vmi) => of(vmi, conditions::READY).cloned().unwrap_or_else(|| {
            not(
                reasons::VMI_CONDITION_MISSING,
                "VMI is missing the Ready condition",
            )
        }),
    }
}

/// The one word: the first that fits.
fn word(
    vm: &VirtualMachine,
    status: &VirtualMachineStatus,
    vmi: Option<&VirtualMachineInstance>,
) -> &'static str {
    if vm.metadata.deletion_timestamp.is_some() {
        return "Terminating";
    }
    if let Some(vmi) = vmi
        && let Some(word) = word_of_instance(status, vmi)
    {
        return word;
    }
    let wanted = vm.run_strategy() != RunStrategy::Halted;
    if status.start_failure.is_some() && wanted {
        return "CrashLoopBackOff";
    }
    if vmi.is_none_or(|vmi| vmi.phase().is_some_and(Phase::is_final)) {
        return "Stopped";
    }
    "Unknown"
}

fn word_of_instance(status: &VirtualMachineStatus, vmi: &VirtualMachineInstance) -> Option<&'static str> {
    let phase = vmi.phase();
    if phase.is_some_and(Phase::is_final) {
        return None;
    }
    let stop = |request: &StateChangeRequest| request.action == StateChange::Stop;
    let told_to_stop = status.state_change_requests.first().is_some_and(stop);
    if vmi.metadata.deletion_timestamp.is_some() || told_to_stop {
        return Some("Stopping");
    }
    if phase == Some(&Phase::Running) {
        let paused = holds(vmi, conditions::PAUSED);
        return Some(if paused { "Paused" } else { "Running" });
    }
    let told = [
        (
            conditions::SYNCHRONIZED,
            reasons::FAILED_PVC_NOT_FOUND,
            "ErrorPvcNotFound",
        ),
        (
            conditions::POD_SCHEDULED,
            reasons::UNSCHEDULABLE,
            "ErrorUnschedulable",
        ),
        (conditions::SYNCHRONIZED, reasons::ERR_IMAGE_PULL, "ErrImagePull"),
        (
            conditions::SYNCHRONIZED,
            reasons::IMAGE_PULL_BACK_OFF,
            "ImagePullBackOff",
        ),
    ];
    let failing = told.iter().find(|(kind, reason, _)| fails_for(vmi, kind, reason));
    let starting = phase.is_none_or(Phase::is_before_running);
    match failing {
        Some((_, _, word)) => Some(word),
        None => starting.then_some("Starting"),
    }
}
