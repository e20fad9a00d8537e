//! What a VMI's owner reads: from what is known of its machine to phase, conditions and events. Pure.
//!
//! ```text
//!   Pending ──► Scheduling ──► Scheduled ──► Running ──► Succeeded   switched off, or stopped by its user
//!      │             │             └────────────┴──────► Failed      crashed, killed by nobody we know, lost
//!      └── Synchronized=False and why, for as long as it cannot be prepared
//! ```
//!
//! Every write is a merge patch of what changed and nothing else, with the uid and the resourceVersion of the
//! object that it was decided on: it takes hold on that very state or not at all. Texts are KubeVirt's own where it
//! has one, since people and programs look for them.

mod edit;
mod paused;

use jiff::Timestamp;
use rvm_types::admission::{self, Cause};
use rvm_types::condition::{self, Condition};
use rvm_types::domain::Machine as MachineType;
use rvm_types::names::{self, conditions, events, reasons};
use rvm_types::quantity::Quantity;
use rvm_types::status::{CpuTopology, InterfaceStatus, MemoryStatus};
use rvm_types::{Phase, VirtualMachineInstance, VirtualMachineInstanceStatus};
use rvmm_control::{Accelerator, EndReason, Ending, Info};

use crate::agent::Facts;
use crate::credentials::Outcome;
use crate::events::Happening;
use crate::hotplug::{self, Attempts};
use crate::networks::model::Plan;
pub use edit::Edit;

/// Longest text of ours in a status or an event: what ended a machine may quote anything.
const MAX_TEXT: usize = 1024;

const ORPHANED: &str = "The handler that runs the VirtualMachineInstance is gone and its node has another one, which does not \
                        find the machine. Delete the VirtualMachineInstance to give the machine up.";

/// No machine can, so neither the devices nor the disks of one are blamed for it.
const NOT_MIGRATABLE: &str = "rvm cannot move a machine to another node while it runs";

/// Something to be said of a VMI.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// It was seen.
    Accepted,
    /// No node can run it.
    Refused(Vec<Cause>),
    /// Its image comes: how much of it is here.
    Pulling(String),
    /// It could not be brought to what it should be, and will be tried again.
    OutOfSync {
        /// One word.
        reason: &'static str,
        /// What went wrong.
        message: String,
    },
    /// Its node has another handler than the one that runs it, and its machine is not here.
    Orphaned,
    /// Its guest runs, on this network, has said this, and this became of the disks that were to come and go.
    Running(Box<Info>, Option<Box<Plan>>, Option<Box<Facts>>, Box<Attempts>),
    /// It is over.
    Over(Over),
}

/// How a VMI ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Whether it ended as it should.
    pub well: bool,
    /// One word on why, where it did not.
    pub reason: Option<&'static str>,
    /// What happened.
    pub message: String,
}

// === impl Over ===

impl Over {
    /// From how the machine ended, and whether its user had asked for that.
    pub fn of(ending: &Ending, asked: bool) -> Self {
        let reason = match ending.reason {
            EndReason::Poweroff => None,
            EndReason::Killed if asked => None,
            EndReason::Killed => Some("Killed"),
            EndReason::Overdue => Some("GracePeriodExpired"),
            EndReason::Reset => Some("GuestReset"),
            EndReason::Failed => Some("MachineFailed"),
        };
        Self {
            well: reason.is_none(),
            reason,
            message: ending.message.clone(),
        }
    }

    /// It ended as it should.
    pub fn well(message: &str) -> Self {
        Self {
            well: true,
            reason: None,
            message: message.to_owned(),
        }
    }

    /// It ended as it should not.
    pub fn badly(reason: &'static str, message: &str) -> Self {
        Self {
            well: false,
            reason: Some(reason),
            message: message.to_owned(),
        }
    }
}

// === impl Report ===

impl Report {
    /// Writes the report into a VMI's status.
    pub fn apply(&self, edit: &mut Edit, now: Timestamp) {
        match self {
            Self::Accepted => {
                // Whatever a status says before anybody claimed the VMI, its author wrote.
                edit.forget_status();
                edit.enter(Phase::Pending, now);
            }
            Self::Refused(causes) => {
                let message = admission::summary(causes);
                edit.condition(not_synchronized(reasons::FAILED_CREATE, &message), now);
            }
            Self::OutOfSync { reason, message } => edit.condition(not_synchronized(reason, message), now),
            Self::Pulling(how_far) => {
                edit.condition(not_synchronized(events::PULLING, how_far), now);
            }
            Self::Orphaned => {
                let orphaned = Condition::new(conditions::READY, condition::FALSE);
                edit.condition(orphaned.because(reasons::NODE_UNRESPONSIVE, ORPHANED), now);
            }
            Self::Running(info, network, facts, attempts) => {
                running(edit, info, now);
                paused::apply(edit, info, now);
                let network = network.iter().map(|plan| plan.status()).collect();
                said(edit.status(), info.agent, network, facts.as_deref());
                credentials(edit, info.agent, facts.as_deref(), now);
                let volumes = hotplug::statuses(edit.before(), info, attempts);
                edit.status().volume_status = volumes;
            }
            Self::Over(over) => {
                let phase = if over.well {
                    Phase::Succeeded
                } else {
                    Phase::Failed
                };
                edit.enter(phase, now);
                edit.status().reason = over.reason.map(str::to_owned);
                edit.condition(not_ready(&over.message), now);
            }
        }
    }

    /// A VMI could not be prepared, for so many times now. Whose image cannot be had is said to be waited for, from the second time on,
    /// as the kubelet does.
    pub fn not_prepared(reason: &'static str, message: String, failures: u32) -> Self {
        if reason == reasons::ERR_IMAGE_PULL && failures > 1 {
            let message = format!("Back-off: {message}");
            return Self::OutOfSync {
                reason: reasons::IMAGE_PULL_BACK_OFF,
                message,
            };
        }
        Self::OutOfSync { reason, message }
    }

    /// What is recorded once the report has been written; `vmi` is the object before that.
    pub fn events(&self, vmi: &VirtualMachineInstance) -> Vec<Happening> {
        let started = vmi.phase() == Some(&Phase::Running);
        match self {
            Self::Accepted | Self::Pulling(_) => vec![],
            Self::Refused(causes) => vec![Happening::warning(
                reasons::FAILED_CREATE,
                admission::summary(causes),
            )],
            Self::OutOfSync { reason, message } => vec![out_of_sync(reason, message)],
            Self::Orphaned => vec![Happening::warning(events::SYNC_FAILED, ORPHANED)],
            Self::Running(info, _, facts, attempts) if started => {
                let outcome = facts.as_ref().and_then(|facts| facts.credentials.as_ref());
                let credentials = outcome.and_then(|outcome| credentials_told(vmi, outcome));
                let paused = paused::event(info, vmi);
                let volumes = hotplug::events(vmi, info, attempts);
                credentials.into_iter().chain(paused).chain(volumes).collect()
            }
            Self::Running(..) => vec![Happening::normal(
                events::STARTED,
                "VirtualMachineInstance started.",
            )],
            Self::Over(over) if over.well => {
                vec![Happening::normal(
                    events::STOPPED,
                    "The VirtualMachineInstance was shut down.",
                )]
            }
            Self::Over(_) if started => {
                vec![Happening::warning(
                    events::STOPPED,
                    "The VirtualMachineInstance crashed.",
                )]
            }
            Self::Over(over) => vec![Happening::warning(events::SYNC_FAILED, &over.message)],
        }
    }
}

fn out_of_sync(reason: &str, message: &str) -> Happening {
    match reason {
        reasons::ERR_IMAGE_PULL => Happening::warning(events::FAILED, message),
        reasons::IMAGE_PULL_BACK_OFF => Happening::normal(events::BACK_OFF, message),
        _ => Happening::warning(events::SYNC_FAILED, message),
    }
}

fn not_synchronized(reason: &str, message: &str) -> Condition {
    Condition::new(conditions::SYNCHRONIZED, condition::FALSE).because(reason, bounded(message))
}

fn not_ready(message: &str) -> Condition {
    Condition::new(conditions::READY, condition::FALSE).because(reasons::GUEST_NOT_RUNNING, bounded(message))
}

fn running(edit: &mut Edit, info: &Info, now: Timestamp) {
    edit.enter(Phase::Running, now);
    // Without it a deletion would not wait for the machine's end.
    edit.add_finalizer(names::finalizers::FOREGROUND_DELETE);
    edit.without_condition(conditions::SYNCHRONIZED);
    edit.condition(Condition::new(conditions::READY, condition::TRUE), now);
    for kind in [conditions::LIVE_MIGRATABLE, conditions::STORAGE_LIVE_MIGRATABLE] {
        let fixed = Condition::new(kind, condition::FALSE).because(reasons::NOT_MIGRATABLE, NOT_MIGRATABLE);
        edit.condition(fixed, now);
    }
    if info.agent {
        edit.condition(Condition::new(conditions::AGENT_CONNECTED, condition::TRUE), now);
    } else {
        edit.without_condition(conditions::AGENT_CONNECTED);
    }
    match info.accelerator {
        Accelerator::Kvm => edit.without_condition(conditions::SOFTWARE_EMULATION),
        Accelerator::Tcg => {
            let emulated = Condition::new(conditions::SOFTWARE_EMULATION, condition::TRUE).because(
                reasons::CROSS_ARCHITECTURE_EMULATION,
                bounded(&info.accelerator_reason),
            );
            edit.condition(emulated, now);
        }
    }
    let memory = Some(Quantity::from(format!("{}Ki", info.memory_bytes >> 10).as_str()));
    let status = edit.status();
    status.machine = Some(MachineType {
        machine_type: Some(names::MACHINE.to_owned()),
        ..MachineType::default()
    });
    status.current_cpu_topology = Some(CpuTopology {
        cores: Some(info.cpus.into()),
        sockets: Some(1),
        threads: Some(1),
        ..CpuTopology::default()
    });
    status.memory = Some(MemoryStatus {
        guest_at_boot: memory.clone(),
        guest_current: memory.clone(),
        guest_requested: memory,
        ..MemoryStatus::default()
    });
}

/// The interfaces as they were made, and what the guest has to say.
fn said(
    status: &mut VirtualMachineInstanceStatus,
    agent: bool,
    network: Vec<InterfaceStatus>,
    facts: Option<&Facts>,
) {
    // The agent was not asked yet by us. What it told another handler stands meanwhile.
    if agent && facts.is_none() && status.guest_os_info.is_some() {
        return;
    }
    status.interfaces = network;
    status.guest_os_info = None;
    status.fs_freeze_status = None;
    if let Some(facts) = facts {
        facts.tell(status);
    }
}

/// Whether the guest's agent has set what it was to set.
fn credentials(edit: &mut Edit, agent: bool, facts: Option<&Facts>, now: Timestamp) {
    let kind = conditions::ACCESS_CREDENTIALS_SYNCHRONIZED;
    match facts.map(|facts| &facts.credentials) {
        Some(Some(Ok(()))) => edit.condition(Condition::new(kind, condition::TRUE), now),
        Some(Some(Err(why))) => {
            let failed = Condition::new(kind, condition::FALSE);
            edit.condition(
                failed.because(events::ACCESS_CREDENTIALS_SYNC_FAILED, bounded(why)),
                now,
            );
        }
        // Not known to us yet.
        None if agent => {}
        Some(None) | None => edit.without_condition(kind),
    }
}

/// What is recorded when that is news.
fn credentials_told(vmi: &VirtualMachineInstance, outcome: &Outcome) -> Option<Happening> {
    let conditions = vmi.status.iter().flat_map(|status| &status.conditions);
    let before = conditions
        .filter(|one| one.condition_type == conditions::ACCESS_CREDENTIALS_SYNCHRONIZED)
        .map(|one| one.status.as_str())
        .next();
    match outcome {
        Ok(()) if before != Some(condition::TRUE) => Some(Happening::normal(
            events::ACCESS_CREDENTIALS_SYNC_SUCCESS,
            "Access credentials sync successful.",
        )),
        Err(why) if before != Some(condition::FALSE) => Some(Happening::warning(
            events::ACCESS_CREDENTIALS_SYNC_FAILED,
            format!("Access credentials sync failed: {}", bounded(why)),
        )),
        _ => None,
    }
}

/// Cuts a text that came from elsewhere.
pub fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
