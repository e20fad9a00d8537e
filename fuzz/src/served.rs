//! The queue side of a device whose rings another process serves: what that process is told of them.

use std::io;

use rvmm_devices::virtio::fs::Fs;
use rvmm_devices::virtio::served::{RingServer, Rings};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::queues::{MAX_STEPS, drive, ram};

/// A server of rings that is told nothing impossible: rings in RAM, and each queue started and stopped in turn. It dies
/// after a while.
#[derive(Default)]
struct Server {
    serves: [bool; Fs::QUEUES],
    told: usize,
}

impl Server {
    fn hear(&mut self) -> io::Result<()> {
        self.told += 1;
        if self.told > MAX_STEPS / 4 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl RingServer for Server {
    fn features(&self) -> u64 {
        1 << 32 | 1 << 29
    }

    fn start(&mut self, index: usize, rings: Rings, features: u64) -> io::Result<()> {
        self.hear()?;
        assert!(!self.serves[index], "a queue is started that is served");
        assert_eq!(features & !self.features(), 0, "a feature that was not offered");
        assert!(rings.size.is_power_of_two() && rings.size <= 1024);
        let size = u64::from(rings.size);
        let memory = ram();
        for (address, len) in [
            (rings.descriptors, 16 * size),
            (rings.available, 6 + 2 * size),
            (rings.used, 6 + 8 * size),
        ] {
            let end = address.checked_add(len - 1).expect("rings do not wrap");
            assert!(
                memory.address_in_range(GuestAddress(address)) && memory.address_in_range(GuestAddress(end)),
                "rings outside RAM"
            );
        }
        self.serves[index] = true;
        Ok(())
    }

    fn kick(&mut self, index: usize) -> io::Result<()> {
        assert!(self.serves[index], "a queue is kicked that is not served");
        self.hear()
    }

    fn stop(&mut self, index: usize) {
        assert!(self.serves[index], "a queue is stopped that is not served");
        self.serves[index] = false;
    }
}

/// A shared folder.
pub fn fs(script: &[u8]) {
    drive(Box::new(Fs::new(Box::new(Server::default()), "fuzzed")), script);
}
