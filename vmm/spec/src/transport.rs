//! How the guest reaches its virtio devices.

use crate::limits::{MAX_PCI_DEVICES, MAX_VIRTIO_DEVICES};

/// Which bus the virtio devices are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// virtio-mmio: windows at fixed addresses that the device tree lists. The least work for a guest.
    #[default]
    Mmio,
    /// virtio-pci: functions on a PCI bus, with an interrupt for each queue; more of them, and they can come and go.
    Pci,
}

// === impl Transport ===

impl Transport {
    /// How many devices it has room for.
    pub fn max_devices(self) -> usize {
        match self {
            Self::Mmio => MAX_VIRTIO_DEVICES,
            Self::Pci => MAX_PCI_DEVICES,
        }
    }
}
