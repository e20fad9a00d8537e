//! A virtio device's place in the event loop: its doorbells ring here, and what feeds it from outside.

use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rvmm_backends::Wires;
use rvmm_devices::virtio::{Core, Kick, VirtioDevice};
use rvmm_hypervisor::HypervisorError;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Descriptors of the back end are watched under the numbers from here on, queues under those from 0.
const FEEDS: u32 = 1 << 16;

/// What another process rings is watched under the numbers from here on.
const CALLS: u32 = 1 << 17;

/// A virtio device with its doorbells. A subscriber of the event loop.
pub struct Slot {
    core: Arc<Mutex<Core>>,
    doorbells: Doorbells,
    backend: Option<Backend>,
}

/// One eventfd a queue, which the guest rings. A doorbell that KVM does not catch, and work that a device puts off to give
/// others their turn, both ring it too. Where another process serves the rings, KVM rings that process's eventfds, and
/// those here only begin its work.
#[derive(Clone)]
pub struct Doorbells {
    ours: Arc<Vec<EventFd>>,
    caught: Arc<Vec<EventFd>>,
}

/// What comes from outside: for each descriptor that becomes readable, the queues that have something to fetch. The
/// device holds the descriptors open, and its slot holds the device.
pub struct Backend {
    feeds: Vec<(RawFd, Range<usize>)>,
    /// To another process that serves the rings.
    wires: Option<Wires>,
}

// === impl Backend ===

impl Backend {
    /// One descriptor, for these queues.
    pub fn new(fd: RawFd, queues: Range<usize>) -> Self {
        Self {
            feeds: vec![(fd, queues)],
            wires: None,
        }
    }

    /// None, for a device whose rings somebody else serves.
    pub fn elsewhere(wires: Wires) -> Self {
        Self {
            feeds: Vec::new(),
            wires: Some(wires),
        }
    }

    /// That process, too.
    pub fn with_wires(mut self, wires: Wires) -> Self {
        self.wires = Some(wires);
        self
    }

    fn calls(&self) -> &[EventFd] {
        self.wires.as_ref().map_or(&[], |wires| &wires.calls)
    }
}

impl FromIterator<(RawFd, Range<usize>)> for Backend {
    fn from_iter<I: IntoIterator<Item = (RawFd, Range<usize>)>>(feeds: I) -> Self {
        Self {
            feeds: feeds.into_iter().collect(),
            wires: None,
        }
    }
}

// === impl Doorbells ===

impl Doorbells {
    /// One for each queue of this device, which has this back end.
    ///
    /// # Errors
    /// The kernel's, when it gives no descriptors.
    pub fn new(device: &dyn VirtioDevice, backend: Option<&mut Backend>) -> Result<Self, HypervisorError> {
        let queues = device.queue_sizes().iter();
        let bells = queues.map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC));
        let bells = bells.collect::<Result<Vec<_>, _>>();
        let ours = bells.map_err(|error| HypervisorError::kernel("no descriptor for a doorbell", error))?;
        let ours = Arc::new(ours);
        let wires = backend.and_then(|backend| backend.wires.as_mut());
        let caught = match wires {
            Some(wires) => Arc::new(std::mem::take(&mut wires.kicks)),
            None => Arc::clone(&ours),
        };
        Ok(Self { ours, caught })
    }

    /// Rings one from this process.
    pub fn kick(&self) -> Arc<Kick> {
        let bells = Arc::clone(&self.ours);
        Arc::new(move |queue| {
            if let Some(bell) = bells.get(queue) {
                // A counter that is full has rung already.
                bell.write(1).ok();
            }
        })
    }

    /// Those that KVM is to ring, in the order of the queues.
    pub fn caught(&self) -> std::slice::Iter<'_, EventFd> {
        self.caught.iter()
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

    /// What has a queue run.
    pub fn kick(&self) -> Arc<Kick> {
        self.doorbells.kick()
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
        let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
        for (queue, bell) in (0..).zip(self.doorbells.ours.iter()) {
            // Edges: each ring is one, so that nobody has to read the counter. That is a system call less for a request.
            ops.add(Events::with_data_raw(bell.as_raw_fd(), queue, edges))
                .ok();
        }
        let feeds = self.backend.iter().flat_map(|backend| &backend.feeds);
        for (number, (fd, _)) in (FEEDS..).zip(feeds) {
            // Edges: input that the guest has no buffers for stays where it is, and must not wake us again.
            ops.add(Events::with_data_raw(*fd, number, edges)).ok();
        }
        let calls = self.backend.iter().flat_map(Backend::calls);
        for (number, call) in (CALLS..).zip(calls) {
            ops.add(Events::with_data_raw(call.as_raw_fd(), number, EventSet::IN))
                .ok();
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        if let Some(queue) = events.data().checked_sub(CALLS) {
            let queue = usize::try_from(queue).unwrap_or(usize::MAX);
            if let Some(call) = self
                .backend
                .as_ref()
                .and_then(|backend| backend.calls().get(queue))
            {
                call.read().ok();
                self.core()
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .announce(queue);
            }
            return;
        }
        if let Some(feed) = events.data().checked_sub(FEEDS) {
            let feeds = self.backend.as_ref().map(|backend| &backend.feeds);
            let feed = usize::try_from(feed).ok().and_then(|feed| feeds?.get(feed));
            let queues = feed.iter().flat_map(|(_, queues)| queues.clone());
            queues.for_each(|queue| self.run(queue));
            return;
        }
        self.run(usize::try_from(events.data()).unwrap_or(usize::MAX));
    }
}
