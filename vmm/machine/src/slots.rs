//! A virtio device's place in the event loop: its doorbells ring here, and what feeds it from outside.

use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rvmm_devices::virtio::{Core, Kick, VirtioDevice};
use rvmm_hypervisor::HypervisorError;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Descriptors of the back end are watched under the numbers from here on, queues under those from 0.
const FEEDS: u32 = 1 << 16;

/// A virtio device with its doorbells. A subscriber of the event loop.
pub struct Slot {
    core: Arc<Mutex<Core>>,
    doorbells: Doorbells,
    backend: Option<Backend>,
}

/// One eventfd a queue. A doorbell that KVM does not catch, and work that a device puts off to give others their
/// turn, both ring it too.
#[derive(Clone)]
pub struct Doorbells(Arc<Vec<EventFd>>);

/// What comes from outside: for each descriptor that becomes readable, the queues that have something to fetch. The
/// device holds the descriptors open, and its slot holds the device.
pub struct Backend {
    feeds: Vec<(RawFd, Range<usize>)>,
}

// === impl Backend ===

impl Backend {
    /// One descriptor, for these queues.
    pub fn new(fd: RawFd, queues: Range<usize>) -> Self {
        Self {
            feeds: vec![(fd, queues)],
        }
    }
}

impl FromIterator<(RawFd, Range<usize>)> for Backend {
    fn from_iter<I: IntoIterator<Item = (RawFd, Range<usize>)>>(feeds: I) -> Self {
        Self {
            feeds: feeds.into_iter().collect(),
        }
    }
}

// === impl Doorbells ===

impl Doorbells {
    /// One for each queue of this device.
    ///
    /// # Errors
    /// The kernel's, when it gives no descriptors.
    pub fn new(device: &dyn VirtioDevice) -> Result<Self, HypervisorError> {
        let queues = device.queue_sizes().iter();
        let bells = queues.map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC));
        let bells = bells.collect::<Result<Vec<_>, _>>();
        bells
            .map(|bells| Self(Arc::new(bells)))
            .map_err(|error| HypervisorError::kernel("no descriptor for a doorbell", error))
    }

    /// Rings one from this process.
    pub fn kick(&self) -> Arc<Kick> {
        let bells = Arc::clone(&self.0);
        Arc::new(move |queue| {
            if let Some(bell) = bells.get(queue) {
                // A counter that is full has rung already.
                bell.write(1).ok();
            }
        })
    }

    /// They, in the order of the queues.
    pub fn iter(&self) -> std::slice::Iter<'_, EventFd> {
        self.0.iter()
    }
}

// === impl Slot ===

impl Slot {
    /// A device that is behind its registers already.
    pub fn new(core: Arc<Mutex<Core>>, doorbells: Doorbells, backend: Option<Backend>) -> Self {
        Self {
            core,
            doorbells,
            backend,
        }
    }

    /// The device.
    pub fn core(&self) -> &Arc<Mutex<Core>> {
        &self.core
    }

    fn run(&self, queue: usize) {
        self.core
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .run_queue(queue);
    }
}

impl MutEventSubscriber for Slot {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Refused only when the kernel has no memory left.
        for (queue, bell) in (0..).zip(self.doorbells.iter()) {
            ops.add(Events::with_data_raw(bell.as_raw_fd(), queue, EventSet::IN))
                .ok();
        }
        let feeds = self.backend.iter().flat_map(|backend| &backend.feeds);
        for (number, (fd, _)) in (FEEDS..).zip(feeds) {
            // Edges: input that the guest has no buffers for stays where it is, and must not wake us again.
            let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
            ops.add(Events::with_data_raw(*fd, number, edges)).ok();
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        if let Some(feed) = events.data().checked_sub(FEEDS) {
            let feeds = self.backend.as_ref().map(|backend| &backend.feeds);
            let feed = usize::try_from(feed).ok().and_then(|feed| feeds?.get(feed));
            let queues = feed.iter().flat_map(|(_, queues)| queues.clone());
            queues.for_each(|queue| self.run(queue));
            return;
        }
        let queue = usize::try_from(events.data()).unwrap_or(usize::MAX);
        if let Some(bell) = self.doorbells.0.get(queue) {
            // Empty when it was answered already.
            bell.read().ok();
            self.run(queue);
        }
    }
}
