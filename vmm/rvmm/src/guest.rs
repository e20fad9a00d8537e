//! One boot of a machine, whichever backend runs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use event_manager::{EventManager, MutEventSubscriber, SubscriberId, SubscriberOps};
use rvmm_backends::{Lasting, News, OnNews};
use rvmm_control::Accelerator;
use rvmm_machine::Machine;
use rvmm_qemu::QemuGuest;
use rvmm_spec::{MemorySize, Spec};

use crate::startup;

/// What the event loop holds.
pub type Subscriber = Box<dyn MutEventSubscriber>;

/// A guest that runs, or is about to.
pub enum Guest {
    /// In this process.
    Kvm {
        /// Its vCPUs and devices.
        machine: Machine,
        /// Its devices' places in the event loop.
        subscribers: Vec<SubscriberId>,
    },
    /// In a QEMU of ours.
    Tcg(QemuGuest),
}

// === impl Guest ===

impl Guest {
    /// Boots the machine, without waiting until it runs. What a start needs for a moment goes into `folder`. `on_news` is told, from any thread, what becomes of it.
    ///
    /// # Errors
    /// What is missing, or what the host refused, as far as that is seen at once.
    pub fn start(
        accelerator: Accelerator,
        spec: &Spec,
        folder: &Path,
        lasting: &Lasting,
        events: &mut EventManager<Subscriber>,
        on_news: &OnNews,
    ) -> anyhow::Result<Self> {
        Ok(match accelerator {
            Accelerator::Kvm => {
                let (machine, devices) = Machine::start(spec, lasting, Arc::clone(on_news))?;
                let subscribers = devices
                    .into_iter()
                    .map(|device| events.add_subscriber(device))
                    .collect();
                on_news(News::Running);
                startup::forget();
                Self::Kvm { machine, subscribers }
            }
            Accelerator::Tcg => Self::Tcg(QemuGuest::start(
                spec,
                folder,
                &lasting.hub,
                &lasting.agent,
                Arc::clone(on_news),
            )?),
        })
    }

    /// Makes its vCPUs stand still; it tells when they do.
    pub fn pause(&self) {
        match self {
            Self::Kvm { machine, .. } => machine.pause(),
            Self::Tcg(guest) => guest.pause(),
        }
    }

    /// Lets its vCPUs go on; it tells when they do.
    pub fn resume(&self) {
        match self {
            Self::Kvm { machine, .. } => machine.resume(),
            Self::Tcg(guest) => guest.resume(),
        }
    }

    /// Asks the guest to leave this much of its memory to itself and give back the rest; false where it has no balloon.
    pub fn balloon(&self, memory: MemorySize, bytes: u64) -> bool {
        match self {
            Self::Kvm { machine, .. } => machine.balloon().is_some_and(|balloon| {
                let back = memory.bytes().saturating_sub(bytes);
                balloon.set_target(MemorySize::from_bytes(back));
                true
            }),
            Self::Tcg(guest) => guest.balloon(bytes),
        }
    }

    /// Adds what this boot counted. QEMU counts nothing that we could ask for.
    pub fn add_counters(&self, sums: &mut BTreeMap<String, u64>) {
        if let Self::Kvm { machine, .. } = self {
            machine.add_counters(sums);
        }
    }

    /// Ends it, however it is, and waits until nothing of it is left.
    pub fn stop(self, events: &mut EventManager<Subscriber>) {
        match self {
            Self::Kvm { machine, subscribers } => {
                machine.stop();
                // A subscriber that is gone already is as good as removed.
                subscribers
                    .into_iter()
                    .for_each(|id| drop(events.remove_subscriber(id)));
            }
            Self::Tcg(guest) => guest.kill(),
        }
    }
}
