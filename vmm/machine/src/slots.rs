//! virtio-mmio slots: a transport at its place on the bus, and its doorbells in the event loop.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rvmm_devices::IrqLine;
use rvmm_devices::virtio::transport::QUEUE_NOTIFY;
use rvmm_devices::virtio::{MmioTransport, VirtioDevice};
use rvmm_hypervisor::{HypervisorError, Vm};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::layout::Window;

/// The number under which the back end's descriptor is watched; queues have theirs from 0.
const BACKEND: u32 = u32::MAX;

/// A virtio device with its doorbells. A subscriber of the event loop.
pub struct Slot {
    transport: Arc<Mutex<MmioTransport>>,
    doorbells: Arc<Vec<EventFd>>,
    backend: Option<Backend>,
}

/// A descriptor that becomes readable when a queue has something to fetch.
pub struct Backend {
    /// Watched for new input. The device holds it open, and its slot holds the device.
    pub fd: RawFd,
    /// The queue to work on then.
    pub queue: usize,
}

// === impl Slot ===

impl Slot {
    /// Puts a device behind its registers. A doorbell that KVM does not catch, and work that a device puts off to
    /// give others their turn, both ring it here.
    ///
    /// # Errors
    /// The kernel's, when it gives no descriptors.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemoryMmap,
        irq: Arc<dyn IrqLine>,
        backend: Option<Backend>,
    ) -> Result<Self, HypervisorError> {
        let doorbells = device
            .queue_sizes()
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC))
            .collect::<Result<Vec<_>, _>>();
        let doorbells = Arc::new(
            doorbells.map_err(|error| HypervisorError::kernel("no descriptor for a doorbell", error))?,
        );
        let bells = Arc::clone(&doorbells);
        let kick = move |queue: usize| {
            // A counter that is full has rung already.
            bells.get(queue).map(|bell| bell.write(1).ok());
        };
        let transport = MmioTransport::new(device, memory, irq, Arc::new(kick));
        Ok(Self {
            transport: Arc::new(Mutex::new(transport)),
            doorbells,
            backend,
        })
    }

    /// The transport, for its place on the bus.
    pub fn transport(&self) -> &Arc<Mutex<MmioTransport>> {
        &self.transport
    }

    /// Makes the kernel ring the doorbells, so that a kick costs the guest no exit to us.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn bind(&self, vm: &dyn Vm, window: Window) -> Result<(), HypervisorError> {
        (0..)
            .zip(self.doorbells.iter())
            .try_for_each(|(queue, bell)| vm.bind_doorbell(window.base + QUEUE_NOTIFY, queue, bell))
    }

    fn run(&self, queue: usize) {
        self.transport
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
        if let Some(backend) = &self.backend {
            // Edges: input that the guest has no buffers for stays where it is, and must not wake us again.
            let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
            ops.add(Events::with_data_raw(backend.fd, BACKEND, edges)).ok();
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        if events.data() == BACKEND {
            self.backend.iter().for_each(|backend| self.run(backend.queue));
            return;
        }
        let queue = usize::try_from(events.data()).unwrap_or(usize::MAX);
        if let Some(bell) = self.doorbells.get(queue) {
            // Empty when it was answered already.
            bell.read().ok();
            self.run(queue);
        }
    }
}
