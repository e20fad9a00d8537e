//! Layout of the console device (5.3).

/// Queue that the driver gives buffers for input to.
pub(super) const RECEIVE: usize = 0;
/// Queue that the driver puts output on.
pub(super) const TRANSMIT: usize = 1;
pub(super) const QUEUE_SIZES: [u16; 2] = [64, 64];

/// `struct virtio_console_config`: columns, rows, number of ports, emergency write. Without SIZE, MULTIPORT and
/// EMERG_WRITE none of it means anything.
pub(super) const CONFIG: [u8; 12] = [0; 12];
