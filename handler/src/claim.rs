//! Which node takes a VMI, so that no two ever start it.
//!
//! ```text
//!              Claim                         HandOver
//!   Pending ───────────► Scheduling, node A ───────────► Scheduled, node A ──► A alone starts it, once
//!                          │    ▲
//!                          └────┘ Claim by B, once A's heartbeat is older than the stale time
//! ```
//!
//! A claim is an annotation, `NODE/HANDLER/UID`: the node, the random id of its handler (`place.rs`), and the VMI's
//! own UID. Nobody can write such a claim into a manifest, since the API server chooses the UID; so a status that came
//! with a manifest, or an object that was read from one cluster and created in another, is not believed. And a handler
//! that has only the node's name in common with the one that claimed a VMI has nothing to do with that VMI.
//!
//! Each arrow is one write that carries the resourceVersion it was decided on, so of several writers one wins and
//! the others learn that they read the past. A may be slow and not dead when B takes over: then A's HandOver fails,
//! and A has started nothing yet. After the HandOver nobody else may ever start the VMI, dead node or not: that
//! promise is worth more than a machine that waits for its node. Clocks only decide when B tries, never who wins.

use std::time::Duration;

use jiff::Timestamp;
use rvm_types::admission::Cause;
use rvm_types::names::{annotations, conditions, finalizers, labels};
use rvm_types::{Phase, VirtualMachineInstance};

use crate::plan::Me;
use crate::status::Edit;
use crate::translate;
use crate::vm::VmId;

/// Whether this node may take a VMI.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It may.
    Fits,
    /// Another node has to.
    NotHere,
    /// No node can.
    Invalid(Vec<Cause>),
}

/// Whether a claim of another node may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// Its handler is gone.
    Yes,
    /// Not before this much time.
    NotFor(Duration),
}

/// Whether a VMI's wishes suit this node.
pub fn verdict(id: &VmId, vmi: &VirtualMachineInstance, me: &Me) -> Verdict {
    // What a pod was put to fits.
    if !me.in_pods && (me.cordoned || !vmi.suits(&me.labels)) {
        return Verdict::NotHere;
    }
    match translate::wants(id, vmi, me.in_pods) {
        Ok(_) => Verdict::Fits,
        Err(causes) => Verdict::Invalid(causes),
    }
}

/// Whether the node that claimed a VMI and has not started it looks dead. A claim younger than the stale time never
/// does, whatever its heartbeat says: its handler may have begun just now.
pub fn abandoned(
    vmi: &VirtualMachineInstance,
    heartbeat: Option<Timestamp>,
    now: Timestamp,
    stale_after: Duration,
) -> Abandoned {
    let alive = heartbeat
        .max(entered(vmi, &Phase::Scheduling))
        .unwrap_or(Timestamp::MIN);
    let silent_for = now.duration_since(alive);
    let left = jiff::SignedDuration::try_from(stale_after).unwrap_or(jiff::SignedDuration::MAX) - silent_for;
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => Abandoned::NotFor(left),
        _ => Abandoned::Yes,
    }
}

/// When a phase was entered last.
fn entered(vmi: &VirtualMachineInstance, phase: &Phase) -> Option<Timestamp> {
    let transitions = &vmi.status.as_ref()?.phase_transition_timestamps;
    let last = transitions
        .iter()
        .rev()
        .find(|transition| transition.phase.as_ref() == Some(phase))?;
    last.phase_transition_timestamp.as_ref().map(|time| time.0)
}

/// The claim: this node prepares the VMI.
pub fn claim(edit: &mut Edit, me: &Me, now: Timestamp) {
    stamp(edit, me);
    edit.note_origin();
    // It may have been told that no node could take it.
    edit.without_condition(conditions::POD_SCHEDULED);
    edit.re_enter(Phase::Scheduling, now);
}

/// The claim again, on a VMI whose machine is here though the claim was lost or is of our node's former handler: the
/// machine was started, so the VMI was handed over.
pub fn reclaim(edit: &mut Edit, me: &Me, now: Timestamp) {
    stamp(edit, me);
    if !matches!(
        edit.status().phase,
        Some(Phase::Scheduled | Phase::Running | Phase::Succeeded | Phase::Failed)
    ) {
        edit.enter(Phase::Scheduled, now);
    }
}

fn stamp(edit: &mut Edit, me: &Me) {
    let claim = format!("{}/{}/{}", me.node, me.handler, edit.uid());
    edit.annotation(annotations::CLAIM, &claim);
    edit.label(labels::NODE_NAME, &me.node);
    edit.add_finalizer(finalizers::FOREGROUND_DELETE);
    edit.status().node_name = Some(me.node.clone());
}

/// The hand-over: from now on this node alone may start the VMI.
pub fn hand_over(edit: &mut Edit, now: Timestamp) {
    edit.enter(Phase::Scheduled, now);
}

/// The end: the API server may forget the VMI.
pub fn release(edit: &mut Edit) {
    edit.remove_finalizer(finalizers::FOREGROUND_DELETE);
}

#[cfg(test)]
mod tests;
