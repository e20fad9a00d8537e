//! What has to be done for one VMI, decided from what is wished and what is seen. Pure: no clock, no disk, no API.
//!
//! ```text
//!  nobody's ─► Accepted ─► Claim            (claim.rs: which node)
//!  mine      Scheduling ─► Prepare, HandOver
//!            Scheduled  ─► Start ─► wait ─► Running, be it paused, or Over
//!            Running    ─► keep its status true ─► Plug, Unplug ─► Over
//!            over       ─► nothing; a machine that still lives is ended
//!  deleted   ─► Stop ─► Over ─► RemoveRunDir, Release
//!  another's ─► nothing; but what is left here of it goes, and a dead node's claim may be taken over
//!  lost claim, and its machine is here ─► Reclaim
//! ```
//!
//! A plan holds at most one write. After it everything is looked at again, so each plan stands on the newest state
//! and a plan from a stale state fails at its write. What has effects on the node comes in an order that survives
//! being killed between any two steps: the run directory is made before the HandOver and started in after it, so
//! "handed over, never started" and "handed over, lost" can be told apart.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rvm_types::names::{conditions, events, finalizers};
use rvm_types::{Claim, Phase, VirtualMachineInstance};
use rvmm_control::{Info, State};

use crate::agent::Facts;
use crate::claim::{self, Abandoned, Verdict};
use crate::events::Happening;
use crate::hotplug::{self, Attempts};
use crate::networks::model::Plan;
use crate::status::{Edit, Over, Report};
use crate::vm::{Machine, VmId};
use crate::volumes::claims::Fit;

/// How often a machine that is about to answer is looked at.
pub const POLL: Duration = Duration::from_millis(50);

/// How long to wait where the API's view and the node's do not fit, which is a matter of a late watch event.
pub const SETTLE: Duration = Duration::from_secs(1);

/// How often a VMI is looked at again whose claims' disks are not here: nothing wakes us when they come.
pub const CLAIMS: Duration = Duration::from_secs(10);

/// How often it is looked whether a pod's process waits for its machine.
pub const BERTH: Duration = Duration::from_millis(500);

/// How long an rvmm may take from its start until it holds its run directory: it only has to read its spec and take
/// a lock, however slow its host is.
pub const LAUNCH_LIMIT: Duration = Duration::from_secs(120);

/// Who decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Me {
    /// This node.
    pub node: String,
    /// This handler's id: no other handler is this one, whatever its node is called.
    pub handler: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Nothing new may be put here.
    pub cordoned: bool,
    /// How old the heartbeat of a dead node is.
    pub stale_after: Duration,
    /// Machines run in pods here, for which others find nodes.
    pub in_pods: bool,
}

/// Whether there is a place for a machine that nobody has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Berth {
    /// Wherever a handler takes it.
    Anywhere,
    /// Its pod is here, and waits for it.
    Here,
    /// Its pod is here, and does not wait for it yet.
    Soon,
    /// Its pod is not here.
    Elsewhere,
}

// === impl Me ===

impl Me {
    /// Whether a claim is this handler's.
    pub fn made(&self, claim: Claim<'_>) -> bool {
        claim.node == self.node && claim.handler == self.handler
    }
}

/// What is seen besides the VMI itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its machine on this node.
    pub machine: Machine,
    /// Someone asked on this node for the machine to be ended.
    pub stop_requested: bool,
    /// When the handler that claimed it was last alive; only looked at where that is another one.
    pub owner_heartbeat: Option<Timestamp>,
    /// It could not be prepared, and is to be left alone until then.
    pub retry_at: Option<Timestamp>,
    /// Its network, as it was decided.
    pub network: Option<Plan>,
    /// What its guest said.
    pub facts: Option<Facts>,
    /// What became of the disks that were to come and go.
    pub attempts: Attempts,
    /// Whether its claims' disks are here; only looked at where it may be taken.
    pub claims: Fit,
    /// Whether there is a place for it; only looked at where it may be taken.
    pub berth: Berth,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Write: this node prepares it.
    Claim,
    /// Write: this node, and no other ever, starts it.
    HandOver,
    /// Write: its machine is here, so this node has it.
    Reclaim,
    /// Write: what is known of it.
    Report(Report),
    /// Write: it may be forgotten.
    Release,
    /// Get its image and disks, write its spec: everything but start it.
    Prepare,
    /// Start rvmm.
    Start,
    /// Record an event.
    Announce(Happening),
    /// Have the disk of this volume come.
    Plug(String),
    /// Have this device go.
    Unplug(String),
    /// Note that the end was asked for, then have the guest end, or rvmm.
    Stop,
    /// End an rvmm that does not come up.
    GiveUp,
    /// Remove its run directory and its disks.
    RemoveRunDir,
    /// Look again after this time.
    Wait(Duration),
}

/// What to do now. Nothing, when all is as it should be.
pub fn plan(id: &VmId, vmi: &VirtualMachineInstance, seen: &Seen, me: &Me, now: Timestamp) -> Vec<Step> {
    let deleted = vmi.metadata.deletion_timestamp.is_some();
    match Claim::on(vmi) {
        Some(claim) if me.made(claim) && deleted => ending(vmi, seen, me, now),
        Some(claim) if me.made(claim) => own(id, vmi, seen, me, now),
        // Nobody else uses our run directory, so a machine in it is ours, whatever became of the claim on it.
        Some(claim) if claim.node == me.node && was_started(&seen.machine) => vec![Step::Reclaim],
        None if was_started(&seen.machine) => vec![Step::Reclaim],
        Some(claim) if claim.node == me.node => formers(id, vmi, seen, me, now),
        Some(_) => anothers(id, vmi, seen, me, now),
        None if deleted && has_finalizer(vmi) => vec![Step::Release],
        None if deleted => vec![],
        None => nobodys(id, vmi, seen, me, now),
    }
}

/// The write that a step is, as a patch, and what is recorded once it is done. Nothing for other steps, and where
/// the object says it already.
pub fn write(
    step: &Step,
    vmi: &VirtualMachineInstance,
    me: &Me,
    now: Timestamp,
) -> Option<(serde_json::Value, Vec<Happening>)> {
    let mut edit = Edit::of(vmi);
    let mut events = Vec::new();
    match step {
        Step::Claim => claim::claim(&mut edit, me, now),
        Step::Reclaim => claim::reclaim(&mut edit, me, now),
        Step::HandOver => claim::hand_over(&mut edit, now),
        Step::Release => claim::release(&mut edit),
        Step::Report(report) => {
            report.apply(&mut edit, now);
            if me.in_pods && matches!(report, Report::Running(..)) {
                // A machine is as ready as its pod, which whoever made that says.
                edit.keep_condition(conditions::READY);
            }
            events = report.events(vmi);
        }
        _ => return None,
    }
    edit.patch().map(|patch| (patch, events))
}

fn nobodys(id: &VmId, vmi: &VirtualMachineInstance, seen: &Seen, me: &Me, now: Timestamp) -> Vec<Step> {
    match (vmi.phase(), seen.berth) {
        (Some(Phase::Pending), Berth::Anywhere) => take(id, vmi, seen, me, now),
        (Some(Phase::Pending | Phase::Scheduling), Berth::Here) => take(id, vmi, seen, me, now),
        (Some(Phase::Pending | Phase::Scheduling), Berth::Soon) => vec![Step::Wait(BERTH)],
        (Some(Phase::Pending | Phase::Scheduling), Berth::Elsewhere) => vec![],
        // Without a claim any other phase is only what somebody wrote.
        _ => vec![Step::Report(Report::Accepted)],
    }
}

fn take(id: &VmId, vmi: &VirtualMachineInstance, seen: &Seen, me: &Me, now: Timestamp) -> Vec<Step> {
    // A pod moves to no other node, whatever became of the handler there.
    if me.in_pods && seen.berth != Berth::Here {
        return vec![];
    }
    match claim::verdict(id, vmi, me) {
        Verdict::Fits => match &seen.claims {
            Fit::Here => vec![Step::Claim],
            Fit::Elsewhere => vec![Step::Wait(CLAIMS)],
            // Every node sees the same, so it is written once.
            Fit::NotYet { reason, message } => {
                let (reason, message) = (*reason, message.clone());
                let mut steps = if_it_changes(Report::OutOfSync { reason, message }, vmi, me, now);
                steps.push(Step::Wait(CLAIMS));
                steps
            }
        },
        Verdict::NotHere => vec![],
        Verdict::Invalid(causes) => if_it_changes(Report::Refused(causes), vmi, me, now),
    }
}

fn own(id: &VmId, vmi: &VirtualMachineInstance, seen: &Seen, me: &Me, now: Timestamp) -> Vec<Step> {
    match vmi.phase() {
        Some(Phase::Scheduling) => prepare(seen, now),
        Some(Phase::Scheduled) => start(seen, now),
        Some(Phase::Running) => keep(vmi, seen, me, now),
        Some(Phase::Succeeded | Phase::Failed) => match seen.machine {
            Machine::Alive(_) | Machine::Silent => vec![Step::Stop],
            Machine::Launching(since) => launching(since, now),
            _ => vec![],
        },
        // Somebody has overwritten the status.
        _ if was_started(&seen.machine) => vec![Step::Reclaim],
        _ => nobodys(id, vmi, seen, me, now),
    }
}

fn prepare(seen: &Seen, now: Timestamp) -> Vec<Step> {
    match (&seen.machine, seen.retry_at) {
        (Machine::Absent | Machine::Prepared, Some(later)) if later > now => {
            vec![Step::Wait(until(later, now))]
        }
        (Machine::Absent | Machine::Prepared, _) => vec![Step::Prepare, Step::HandOver],
        // It was started, so it was handed over: what we see of the API is old.
        _ => vec![Step::Wait(SETTLE)],
    }
}

fn start(seen: &Seen, now: Timestamp) -> Vec<Step> {
    match &seen.machine {
        Machine::Prepared if seen.stop_requested => over(Over::well("It was stopped before it started.")),
        Machine::Prepared => vec![Step::Start],
        Machine::Launching(since) => launching(*since, now),
        Machine::Silent | Machine::Alive(_) if seen.stop_requested => vec![Step::Stop],
        Machine::Silent => vec![Step::Wait(POLL)],
        // Paused it is up as well: it was to start so, or failed at once.
        Machine::Alive(info) if matches!(info.state, State::Running | State::Paused) => {
            vec![Step::Report(report_running(info, seen))]
        }
        Machine::Alive(_) => vec![Step::Wait(POLL)],
        Machine::Absent | Machine::Ended(_) | Machine::Lost => over(ended(seen)),
    }
}

fn keep(vmi: &VirtualMachineInstance, seen: &Seen, me: &Me, now: Timestamp) -> Vec<Step> {
    match &seen.machine {
        Machine::Silent | Machine::Alive(_) if seen.stop_requested => vec![Step::Stop],
        Machine::Alive(info) => match if_it_changes(report_running(info, seen), vmi, me, now) {
            told if told.is_empty() => hotplug::steps(vmi, info, &seen.attempts, now),
            told => told,
        },
        Machine::Launching(since) => launching(*since, now),
        Machine::Silent => vec![Step::Wait(SETTLE)],
        Machine::Absent | Machine::Prepared | Machine::Ended(_) | Machine::Lost => over(ended(seen)),
    }
}

fn ending(vmi: &VirtualMachineInstance, seen: &Seen, me: &Me, now: Timestamp) -> Vec<Step> {
    let started = matches!(vmi.phase(), Some(Phase::Scheduled | Phase::Running));
    match &seen.machine {
        Machine::Alive(_) | Machine::Silent if seen.stop_requested => vec![Step::Stop],
        Machine::Alive(info) if info.agent && !vmi.grace_period().is_zero() => {
            let told = Happening::normal(events::SHUTTING_DOWN, "Signaled Graceful Shutdown");
            vec![Step::Announce(told), Step::Stop]
        }
        Machine::Alive(_) | Machine::Silent => {
            let told = Happening::normal(events::DELETED, "Signaled Deletion");
            vec![Step::Announce(told), Step::Stop]
        }
        Machine::Launching(since) => launching(*since, now),
        Machine::Absent | Machine::Prepared if started => over(Over::well("It was deleted.")),
        Machine::Ended(_) | Machine::Lost if started => over(ended(seen)),
        // Its pod goes first: what is left of a VMI must not outlive it.
        _ if me.in_pods && has_pods(vmi) => vec![Step::RemoveRunDir, Step::Wait(SETTLE)],
        _ => vec![Step::RemoveRunDir, Step::Release],
    }
}

fn has_pods(vmi: &VirtualMachineInstance) -> bool {
    vmi.status
        .as_ref()
        .is_some_and(|status| !status.active_pods.is_empty())
}

fn anothers(id: &VmId, vmi: &VirtualMachineInstance, seen: &Seen, me: &Me, now: Timestamp) -> Vec<Step> {
    match &seen.machine {
        Machine::Alive(_) | Machine::Silent => return vec![Step::Stop],
        Machine::Launching(since) => return launching(*since, now),
        Machine::Prepared | Machine::Ended(_) | Machine::Lost => return vec![Step::RemoveRunDir],
        Machine::Absent => {}
    }
    if vmi.phase() != Some(&Phase::Scheduling) {
        return vec![];
    }
    match claim::abandoned(vmi, seen.owner_heartbeat, now, me.stale_after) {
        Abandoned::NotFor(left) => vec![Step::Wait(left)],
        Abandoned::Yes if vmi.metadata.deletion_timestamp.is_some() => vec![Step::Release],
        Abandoned::Yes => take(id, vmi, seen, me, now),
    }
}

/// A VMI that a former handler of this node claimed, and whose machine is not here. That handler has lost the node's
/// name and ends when it sees so; a machine that it started may still run, somewhere.
fn formers(id: &VmId, vmi: &VirtualMachineInstance, seen: &Seen, me: &Me, now: Timestamp) -> Vec<Step> {
    let deleted = vmi.metadata.deletion_timestamp.is_some();
    match vmi.phase() {
        Some(Phase::Scheduled | Phase::Running) if !deleted => if_it_changes(Report::Orphaned, vmi, me, now),
        Some(Phase::Scheduling) if !deleted => anothers(id, vmi, seen, me, now),
        _ if deleted => vec![Step::RemoveRunDir, Step::Release],
        _ => vec![],
    }
}

/// An rvmm that does not come up would otherwise be waited for for ever.
fn launching(since: Timestamp, now: Timestamp) -> Vec<Step> {
    match Duration::try_from(now.duration_since(since)) {
        Ok(waited) if waited >= LAUNCH_LIMIT => vec![Step::GiveUp],
        _ => vec![Step::Wait(POLL)],
    }
}

/// Whether an rvmm was started in the run directory that is here.
fn was_started(machine: &Machine) -> bool {
    !matches!(machine, Machine::Absent | Machine::Prepared)
}

/// How a machine of ours that no longer runs has ended.
fn ended(seen: &Seen) -> Over {
    match &seen.machine {
        Machine::Ended(ending) => Over::of(ending, seen.stop_requested),
        Machine::Lost if seen.stop_requested => Over::well("It was stopped."),
        Machine::Lost => Over::badly(
            "Crashed",
            "The machine's process is gone without having said why.",
        ),
        _ => Over::badly(
            "RunDirectoryLost",
            "The machine's run directory is gone: its node was restarted.",
        ),
    }
}

fn over(over: Over) -> Vec<Step> {
    vec![Step::Report(Report::Over(over))]
}

fn report_running(info: &Info, seen: &Seen) -> Report {
    Report::Running(
        Box::new(info.clone()),
        seen.network.clone().map(Box::new),
        seen.facts.clone().map(Box::new),
        Box::new(seen.attempts.clone()),
    )
}

fn if_it_changes(report: Report, vmi: &VirtualMachineInstance, me: &Me, now: Timestamp) -> Vec<Step> {
    let step = Step::Report(report);
    if write(&step, vmi, me, now).is_some() {
        vec![step]
    } else {
        vec![]
    }
}

fn has_finalizer(vmi: &VirtualMachineInstance) -> bool {
    let finalizers = vmi.metadata.finalizers.iter().flatten();
    finalizers
        .into_iter()
        .any(|known| known == finalizers::FOREGROUND_DELETE)
}

pub(crate) fn until(later: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
