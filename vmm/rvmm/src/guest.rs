//! One boot of a machine, whichever backend runs it.

use std::path::Path;

use event_manager::{EventManager, MutEventSubscriber, SubscriberId, SubscriberOps};
use rvmm_backends::console::Hub;
use rvmm_control::Accelerator;
use rvmm_machine::{Machine, OnEnd};
use rvmm_qemu::QemuGuest;
use rvmm_spec::Spec;

/// What the event loop holds.
pub type Subscriber = Box<dyn MutEventSubscriber>;

/// A guest that runs.
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
    /// Boots the machine. `on_end` is called once, from any thread, when the guest ends by itself.
    ///
    /// # Errors
    /// What is missing, or what the host refused.
    pub fn start(
        accelerator: Accelerator,
        spec: &Spec,
        hub: &Hub,
        work_dir: &Path,
        events: &mut EventManager<Subscriber>,
        on_end: OnEnd,
    ) -> anyhow::Result<Self> {
        Ok(match accelerator {
            Accelerator::Kvm => {
                let (machine, devices) = Machine::start(spec, hub, on_end)?;
                let subscribers = devices
                    .into_iter()
                    .map(|device| events.add_subscriber(device))
                    .collect();
                Self::Kvm { machine, subscribers }
            }
            Accelerator::Tcg => Self::Tcg(QemuGuest::start(spec, hub, work_dir, on_end)?),
        })
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
