//! One boot of a machine, whichever backend runs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_manager::{EventManager, MutEventSubscriber, SubscriberId, SubscriberOps};
use rvmm_backends::plugged::Plugged;
use rvmm_backends::{Lasting, News, OnNews};
use rvmm_control::Stats;
use rvmm_machine::Machine;
use rvmm_qemu::QemuGuest;
use rvmm_spec::{DeviceId, MemorySize, OnStart, Spec};

use crate::startup;
use crate::walls::Backend;

/// What the event loop holds.
pub type Subscriber = Box<dyn MutEventSubscriber>;

/// What is booted.
pub struct Wanted<'a> {
    /// The machine as it is to begin.
    pub spec: &'a Spec,
    /// What was plugged into it since.
    pub plugged: Vec<Plugged>,
}

/// A guest that runs, or is about to.
pub enum Guest {
    /// In this process.
    Kvm {
        /// Its vCPUs and devices.
        machine: Box<Machine>,
        /// Its devices' places in the event loop.
        subscribers: Vec<(Option<DeviceId>, SubscriberId)>,
    },
    /// In a QEMU of ours.
    Tcg(QemuGuest),
}

// === impl Guest ===

impl Guest {
    /// Boots the machine, without waiting until it runs. `on_news` is told, from any thread, what becomes of it.
    ///
    /// # Errors
    /// What is missing, or what the host refused, as far as that is seen at once.
    pub fn start(
        backend: &Backend,
        wanted: Wanted<'_>,
        lasting: &Lasting,
        events: &mut EventManager<Subscriber>,
        on_news: &OnNews,
    ) -> anyhow::Result<Self> {
        let Wanted { spec, plugged } = wanted;
        Ok(match backend {
            Backend::Kvm(sandbox) => {
                let (machine, devices) =
                    Machine::start(spec, lasting, plugged, sandbox, Arc::clone(on_news))?;
                let subscribers = devices
                    .into_iter()
                    .map(|(owner, device)| (owner, events.add_subscriber(device)))
                    .collect();
                if spec.on_start() == OnStart::Run {
                    on_news(News::Running);
                }
                startup::forget();
                Self::Kvm {
                    machine: Box::new(machine),
                    subscribers,
                }
            }
            Backend::Tcg {
                launcher, work_dir, ..
            } => Self::Tcg(QemuGuest::start(
                launcher,
                spec,
                work_dir,
                &lasting.hub,
                &lasting.agent,
                plugged,
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

    /// Plugs a device in. `on_done` is told what came of it, unless the guest ends before.
    ///
    /// # Errors
    /// What was opened for it is not what it should be, or there is no place for it.
    pub fn plug(
        &mut self,
        device: Plugged,
        events: &mut EventManager<Subscriber>,
        on_done: impl FnOnce(Result<(), String>) + Send + 'static,
    ) -> anyhow::Result<()> {
        match self {
            Self::Kvm { machine, subscribers } => {
                let owner = device.id.clone();
                if let Some(feed) = machine.plug(device)? {
                    subscribers.push((Some(owner), events.add_subscriber(feed)));
                }
                on_done(Ok(()));
            }
            Self::Tcg(guest) => guest.plug(device, on_done)?,
        }
        Ok(())
    }

    /// Pulls out what was plugged in, and tells as [`Guest::plug`] does.
    pub fn unplug(
        &mut self,
        id: &DeviceId,
        events: &mut EventManager<Subscriber>,
        on_done: impl FnOnce(Result<(), String>) + Send + 'static,
    ) {
        match self {
            Self::Kvm { machine, subscribers } => {
                machine.unplug(id);
                let gone = subscribers.extract_if(.., |(owner, _)| owner.as_ref() == Some(id));
                gone.for_each(|(_, feed)| drop(events.remove_subscriber(feed)));
                on_done(Ok(()));
            }
            Self::Tcg(guest) => guest.unplug(id, on_done),
        }
    }

    /// Adds what this boot has counted by its end. What QEMU counted ends with it.
    pub fn add_counters(&self, sums: &mut BTreeMap<String, u64>) {
        if let Self::Kvm { machine, .. } = self {
            machine.add_counters(sums);
        }
    }

    /// Hands what this boot has counted until now, and what its guest last said of its memory, to `on_counted`: at once, or when QEMU has
    /// told, unless the guest ends before.
    pub fn count(&self, on_counted: impl FnOnce(Stats) + Send + 'static) {
        match self {
            Self::Kvm { machine, .. } => {
                let mut stats = Stats::default();
                machine.add_counters(&mut stats.counters);
                if let Some(balloon) = machine.balloon() {
                    let said = balloon.stats();
                    let named = said.iter().map(|(name, value)| (format!("guest.{name}"), value));
                    stats.gauges.extend(named);
                }
                on_counted(stats);
            }
            Self::Tcg(guest) => guest.count(on_counted),
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
                    .for_each(|(_, id)| drop(events.remove_subscriber(id)));
            }
            Self::Tcg(guest) => guest.kill(),
        }
    }
}
