//! The network device whose frames never come to us: the host's kernel (vhost-net) moves them between the rings and a tap.
//!
//! It is a plainer interface than [`Net`](super::Net): one pair of queues, and no queue for commands.

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use super::{NetOptions, Offloads, spec};
use crate::virtio::device::{QueueError, Stop, VirtioDevice};
use crate::virtio::served::{RingServer, Served};

/// Who moves the frames.
pub trait FrameServer: RingServer {
    /// The driver takes frames with this left undone.
    fn set_offloads(&mut self, offloads: Offloads);
}

/// The device.
pub struct ServedNet {
    queues: Served<dyn FrameServer>,
    options: NetOptions,
}

// === impl ServedNet ===

impl ServedNet {
    /// How many queues there are: one for frames to the driver, one for those from it.
    pub const QUEUES: usize = 2;

    /// The interface.
    pub fn new(server: Box<dyn FrameServer>, options: NetOptions) -> Self {
        Self {
            queues: Served::new(server, Self::QUEUES),
            options,
        }
    }
}

impl VirtioDevice for ServedNet {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        // The server's share in these is to know how frames are spread over buffers.
        let frames = spec::FEATURE_MRG_RXBUF & self.queues.features();
        let mtu = self.options.mtu.map_or(0, |_| spec::FEATURE_MTU);
        (spec::FEATURES | spec::OFFLOADS) & !(spec::OF_COMMANDS | spec::FEATURE_MRG_RXBUF) | frames | mtu
    }

    fn queue_sizes(&self) -> &[u16] {
        &[spec::FRAME_QUEUE; Self::QUEUES]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        spec::read_config(&self.options, 1, offset, data);
    }

    fn activate(&mut self, acked: u64) {
        self.queues.server().set_offloads(spec::accepted(acked));
        self.queues.activate(acked);
    }

    fn process(&mut self, index: usize, queue: &mut Queue, _: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        self.queues.pass_on(index, queue)
    }

    fn served_elsewhere(&self) -> Option<u64> {
        Some(self.queues.features())
    }

    fn stop_queue(&mut self, index: usize) {
        self.queues.stop(index);
    }

    fn reset(&mut self) {
        self.queues.reset();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::virtio::driver::Rig;
    use crate::virtio::served::Rings;

    /// Notes what it is told.
    #[derive(Clone, Default)]
    struct Kernel {
        offloads: Arc<Mutex<Vec<Offloads>>>,
        started: Arc<Mutex<Vec<usize>>>,
    }

    impl RingServer for Kernel {
        fn features(&self) -> u64 {
            u64::MAX
        }

        fn start(&mut self, index: usize, _: Rings, _: u64) -> io::Result<()> {
            self.started.lock().unwrap().push(index);
            Ok(())
        }

        fn kick(&mut self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn stop(&mut self, index: usize) {
            self.started.lock().unwrap().retain(|started| *started != index);
        }
    }

    impl FrameServer for Kernel {
        fn set_offloads(&mut self, offloads: Offloads) {
            self.offloads.lock().unwrap().push(offloads);
        }
    }

    #[test]
    fn commands_are_not_offered_and_offloads_are_agreed_upon_at_the_start() {
        let kernel = Kernel::default();
        let mut rig = Rig::up(ServedNet::new(Box::new(kernel.clone()), NetOptions::default()));
        assert_eq!(rig.offered() & (spec::OF_COMMANDS | spec::FEATURE_MQ), 0);
        assert_ne!(rig.offered() & spec::FEATURE_MRG_RXBUF, 0);
        assert_eq!(kernel.offloads.lock().unwrap().len(), 1);
        for queue in 0..3 {
            rig.core.lock().unwrap().run_queue(queue);
        }
        assert_eq!(*kernel.started.lock().unwrap(), [0, 1]);
        rig.reset();
        assert!(kernel.started.lock().unwrap().is_empty());
    }
}
