//! What is to be done for a VM: a pure function of what there is.
//!
//! ```text
//!   its strategy's step ─► the instance made or ended ─┐   what is said of it is written once there is
//!   its status ─────────► written where it differs ◄───┘   nothing left to do; only then may the ended
//!   the ended instance ─► released                         instance go, since the status tells how it ended
//! ```

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use rvm_types::hotplug::{self, VolumeRequest};
use rvm_types::names::finalizers;
use rvm_types::vm::{RunStrategy, StateChange, StateChangeRequest, Template, VirtualMachineStatus};
use rvm_types::volume::Volume;
use rvm_types::{Phase, VirtualMachine, VirtualMachineInstance};

use super::failures;
use super::status::{self, Aspects};

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The VM.
    pub vm: &'a VirtualMachine,
    /// The instance of its name, whoever made it.
    pub vmi: Option<&'a VirtualMachineInstance>,
    /// The template that the instance was made from, if it is known and the VM has changed since.
    pub made_from: Option<&'a Template>,
    /// The time.
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Keeps the VM until its instance is gone.
    Hold,
    /// Lets the VM go.
    LetGo,
    /// Makes an instance, its processors stopped or not.
    Create { paused: bool },
    /// Ends the instance.
    Delete,
    /// Takes an instance that nobody owns.
    Adopt,
    /// Gives the instance up: it goes on without the VM.
    Disown,
    /// Lets an ended instance go.
    Release,
    /// Notes that the instance fits the VM's new generation.
    Follow,
    /// Asks for a start, for later.
    Request,
    /// Does what is asked for of volumes to the template and the instance.
    Rearrange,
    /// Makes Always the strategy.
    BeAlways,
    /// Writes the status.
    Report(Box<VirtualMachineStatus>),
    /// There is nothing to do before this much time.
    Wait(Duration),
}

/// Whose an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Ours,
    Nobody,
    Another,
}

/// The next steps; what is after them is planned when they are done. None where there is nothing to do until something changes.
pub fn plan(seen: &Seen) -> Vec<Step> {
    let Seen { vm, vmi, .. } = *seen;
    let whose = vmi.map(|vmi| owner(vm, vmi));
    let ours = vmi.filter(|_| whose == Some(Owner::Ours));
    if vm.metadata.deletion_timestamp.is_some() {
        return end(seen, whose);
    }
    if !holds(vm.metadata.finalizers.as_deref()) {
        return vec![Step::Hold];
    }
    if let Some(vmi) = vmi
        && whose == Some(Owner::Nobody)
        && vmi.metadata.deletion_timestamp.is_none()
    {
        return vec![Step::Adopt];
    }
    let act = match whose {
        Some(Owner::Another | Owner::Nobody) => Vec::new(),
        _ => follow_strategy(seen, ours),
    };
    if act.iter().any(|step| !matches!(step, Step::Wait(_))) {
        return act;
    }
    if rearranges(vm, ours) {
        return vec![Step::Rearrange];
    }
    let mut steps: Vec<Step> = report(seen, ours, act.is_empty()).into_iter().collect();
    steps.extend(release(ours));
    if steps.is_empty() { act } else { steps }
}

/// What is asked for of volumes, in its order.
pub fn requests(vm: &VirtualMachine) -> &[VolumeRequest] {
    vm.status.as_ref().map_or(&[], |status| &status.volume_requests)
}

/// Whether something that is asked for of volumes is to be done still.
fn rearranges(vm: &VirtualMachine, ours: Option<&VirtualMachineInstance>) -> bool {
    !status::unplugged(requests(vm), vm, ours).is_empty()
}

/// A VM that is being deleted takes its instance with it, unless that is to be left.
fn end(seen: &Seen, whose: Option<Owner>) -> Vec<Step> {
    let Seen { vm, vmi, .. } = *seen;
    let ours = vmi.filter(|_| whose == Some(Owner::Ours));
    // A garbage collector has made it an orphan; what keeps it is ours to take away.
    let orphaned =
        whose == Some(Owner::Nobody) && vmi.is_some_and(|vmi| holds(vmi.metadata.finalizers.as_deref()));
    if orphaned {
        return vec![Step::Disown];
    }
    let is_there = |finalizer: &&str| {
        vm.metadata
            .finalizers
            .iter()
            .flatten()
            .any(|known| known == finalizer)
    };
    let orphan = Some(finalizers::ORPHAN).filter(is_there).is_some();
    let mut steps: Vec<Step> = report(seen, ours, true).into_iter().collect();
    match ours {
        Some(_) if orphan => steps.push(Step::Disown),
        Some(vmi) if vmi.metadata.deletion_timestamp.is_none() => steps.push(Step::Delete),
        Some(_) => steps.extend(release(ours)),
        None if holds(vm.metadata.finalizers.as_deref()) || orphan => steps.push(Step::LetGo),
        None => return Vec::new(),
    }
    steps
}

/// What the run strategy says, given requests and failures.
fn follow_strategy(seen: &Seen, ours: Option<&VirtualMachineInstance>) -> Vec<Step> {
    let strategy = seen.vm.run_strategy();
    match ours {
        Some(vmi) => with_instance(seen, &strategy, vmi),
        None => without_instance(seen, &strategy),
    }
}

fn with_instance(seen: &Seen, strategy: &RunStrategy, vmi: &VirtualMachineInstance) -> Vec<Step> {
    if vmi.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let told = matches!(first(seen, Some(vmi)), Some(request) if request.action == StateChange::Stop);
    let failed = vmi.phase() == Some(&Phase::Failed);
    let ended = vmi.phase().is_some_and(Phase::is_final);
    let stop = match strategy {
        RunStrategy::Always | RunStrategy::RerunOnFailure => told || ended,
        RunStrategy::Manual => told,
        RunStrategy::Halted => true,
        RunStrategy::Once | RunStrategy::Other(_) => false,
    };
    // The failed one is gone when it is to be replaced, so that it failed has to be kept.
    if *strategy == RunStrategy::RerunOnFailure && failed && !asked(seen) {
        return vec![Step::Request, Step::Delete];
    }
    if stop {
        return vec![Step::Delete];
    }
    let newer = status::generation(vmi) != seen.vm.metadata.generation;
    if newer && fits(seen, vmi) == Some(true) {
        vec![Step::Follow]
    } else {
        Vec::new()
    }
}

fn without_instance(seen: &Seen, strategy: &RunStrategy) -> Vec<Step> {
    let request = first(seen, None).filter(|request| request.action == StateChange::Start);
    let followed = seen
        .vm
        .status
        .as_ref()
        .and_then(|status| status.run_strategy.as_ref());
    let start = match strategy {
        RunStrategy::Always => true,
        // A new strategy starts one; after that, only a failure or somebody does.
        RunStrategy::RerunOnFailure | RunStrategy::Once => request.is_some() || followed != Some(strategy),
        RunStrategy::Manual => request.is_some(),
        RunStrategy::Halted if request.is_some() => return vec![Step::BeAlways],
        RunStrategy::Halted | RunStrategy::Other(_) => false,
    };
    if !start {
        return Vec::new();
    }
    let failure = seen
        .vm
        .status
        .as_ref()
        .and_then(|status| status.start_failure.as_ref());
    match failures::left(failure, seen.now) {
        Some(left) => vec![Step::Wait(left)],
        None => {
            let paused = request.is_some_and(StateChangeRequest::is_paused);
            vec![Step::Create { paused }]
        }
    }
}

/// Whether an instance is what the template would make now; nothing where it is not known from what it was made. What comes and goes
/// while it runs only has to be there, or gone.
fn fits(seen: &Seen, vmi: &VirtualMachineInstance) -> Option<bool> {
    let (made_from, template) = (seen.made_from?, &seen.vm.spec.template);
    let fixed = |template: &Template| Template {
        spec: hotplug::fixed(&template.spec),
        ..template.clone()
    };
    let has = |volume: &Volume| vmi.hotpluggable().any(|has| has.name == volume.name);
    let mut wanted = template
        .spec
        .volumes
        .iter()
        .filter(|volume| volume.is_hotpluggable());
    let mut former = made_from
        .spec
        .volumes
        .iter()
        .filter(|volume| volume.is_hotpluggable());
    let is_wanted = |volume: &Volume| {
        template
            .spec
            .volumes
            .iter()
            .any(|other| other.name == volume.name)
    };
    Some(
        fixed(made_from) == fixed(template)
            && wanted.all(has)
            && former.all(|volume| is_wanted(volume) || !has(volume)),
    )
}

/// The request that is next.
fn first<'a>(seen: &Seen<'a>, vmi: Option<&VirtualMachineInstance>) -> Option<&'a StateChangeRequest> {
    let requests = &seen.vm.status.as_ref()?.state_change_requests;
    status::pending(requests, vmi).first()
}

/// Whether a start is asked for already.
fn asked(seen: &Seen) -> bool {
    let requests = seen
        .vm
        .status
        .iter()
        .flat_map(|status| &status.state_change_requests);
    requests
        .into_iter()
        .any(|request| request.action == StateChange::Start)
}

fn report(seen: &Seen, ours: Option<&VirtualMachineInstance>, settled: bool) -> Option<Step> {
    let restart = ours.is_some_and(|vmi| {
        let newer = status::generation(vmi) != seen.vm.metadata.generation;
        newer && fits(seen, vmi) == Some(false)
    });
    let aspects = Aspects {
        restart,
        settled,
        taken: ours.is_none() && seen.vmi.is_some(),
    };
    let wanted = status::status(seen.vm, ours, aspects, seen.now);
    (seen.vm.status.as_ref() != Some(&wanted)).then(|| Step::Report(Box::new(wanted)))
}

/// An instance that is deleted is let go when it has ended, or when nobody else holds it: then nobody ever ran it.
fn release(ours: Option<&VirtualMachineInstance>) -> Option<Step> {
    let vmi = ours.filter(|vmi| vmi.metadata.deletion_timestamp.is_some())?;
    let held = vmi.metadata.finalizers.as_deref();
    let alone = held.is_some_and(|held| held.iter().all(|name| name == finalizers::VM_CONTROLLER));
    let ended = vmi.phase().is_some_and(Phase::is_final);
    (holds(held) && (ended || alone)).then_some(Step::Release)
}

fn holds(held: Option<&[String]>) -> bool {
    held.is_some_and(|held| held.iter().any(|name| name == finalizers::VM_CONTROLLER))
}

fn owner(vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> Owner {
    let owners = vmi.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner: &&OwnerReference| owner.controller == Some(true));
    match controllers.next() {
        None => Owner::Nobody,
        Some(owner) if Some(&owner.uid) == vm.metadata.uid.as_ref() => Owner::Ours,
        Some(_) => Owner::Another,
    }
}

#[cfg(test)]
mod tests;
