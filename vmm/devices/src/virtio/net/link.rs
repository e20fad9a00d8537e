//! The cable, as those outside the guest may pull it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

/// Whether the interface is connected. Whoever changes it then has the transport tell the driver (`config_changed`).
#[derive(Debug, Clone)]
pub struct Link(Arc<AtomicBool>);

// === impl Link ===

impl Link {
    /// While it is down, no frame passes.
    pub fn set_up(&self, up: bool) {
        self.0.store(up, Ordering::SeqCst);
    }

    /// Whether frames pass.
    pub fn is_up(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// As the driver reads it.
    pub(super) fn status(&self) -> u16 {
        u16::try_from(VIRTIO_NET_S_LINK_UP)
            .ok()
            .filter(|_| self.is_up())
            .unwrap_or(0)
    }
}

impl Default for Link {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}
