//! A driver's words over virtio-mmio.

use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
    VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW,
    VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH,
    VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_STATUS,
};

use super::{Registers, Rig};
use crate::BusDevice;
use crate::virtio::MmioTransport;

impl Rig {
    pub fn read(&mut self, register: u32) -> u32 {
        read(&mut self.transport, register)
    }

    pub fn write(&mut self, register: u32, value: u32) {
        write(&mut self.transport, register, value);
    }

    pub fn interrupt_status(&mut self) -> u32 {
        self.read(VIRTIO_MMIO_INTERRUPT_STATUS)
    }
}

fn read(transport: &mut MmioTransport, register: u32) -> u32 {
    let mut data = [0; 4];
    transport.read(u64::from(register), &mut data);
    u32::from_le_bytes(data)
}

fn write(transport: &mut MmioTransport, register: u32, value: u32) {
    transport.write(u64::from(register), &value.to_le_bytes());
}

impl Registers for MmioTransport {
    fn offered(&mut self) -> u64 {
        write(self, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
        let low = read(self, VIRTIO_MMIO_DEVICE_FEATURES);
        write(self, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        u64::from(low) | u64::from(read(self, VIRTIO_MMIO_DEVICE_FEATURES)) << 32
    }

    fn accept(&mut self, features: u64) {
        write(self, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        write(self, VIRTIO_MMIO_DRIVER_FEATURES, (features & 0xffff_ffff) as u32);
        write(self, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        write(self, VIRTIO_MMIO_DRIVER_FEATURES, (features >> 32) as u32);
    }

    fn status(&mut self) -> u32 {
        read(self, VIRTIO_MMIO_STATUS)
    }

    fn set_status(&mut self, status: u32) {
        write(self, VIRTIO_MMIO_STATUS, status);
    }

    fn place_queue(&mut self, index: u32, size: u32, desc: u64, avail: u64, used: u64) {
        write(self, VIRTIO_MMIO_QUEUE_SEL, index);
        write(self, VIRTIO_MMIO_QUEUE_NUM, size);
        for (low, high, addr) in [
            (VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, desc),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, avail),
            (VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH, used),
        ] {
            write(self, low, (addr & 0xffff_ffff) as u32);
            write(self, high, (addr >> 32) as u32);
        }
    }

    fn set_ready(&mut self, index: u32, ready: bool) {
        write(self, VIRTIO_MMIO_QUEUE_SEL, index);
        write(self, VIRTIO_MMIO_QUEUE_READY, u32::from(ready));
    }

    fn is_ready(&mut self, index: u32) -> bool {
        write(self, VIRTIO_MMIO_QUEUE_SEL, index);
        read(self, VIRTIO_MMIO_QUEUE_READY) == 1
    }
}
