//! Layout of the console device (5.3).

/// Queue that the driver gives buffers for input to.
pub(super) const RECEIVE: usize = 0;
/// Queue that the driver puts output on.
pub(super) const TRANSMIT: usize = 1;
/// Queue that the driver gives buffers for our control messages to.
pub(super) const CONTROL_RECEIVE: usize = 2;
/// Queue that the driver puts its control messages on.
pub(super) const CONTROL_TRANSMIT: usize = 3;
/// The second port's queues.
pub(super) const PORT_RECEIVE: usize = 4;
pub(super) const PORT_TRANSMIT: usize = 5;
/// With one port only the first two are there.
pub(super) const QUEUE_SIZES: [u16; 6] = [64; 6];
pub(super) const QUEUES_OF_ONE_PORT: usize = 2;

/// More than one port, and a control queue that tells of them.
pub(super) const F_MULTIPORT: u64 = 1 << 1;

/// `struct virtio_console_config`: columns, rows, number of ports, emergency write. Without SIZE, MULTIPORT and
/// EMERG_WRITE none of it means anything.
pub(super) const CONFIG: [u8; 12] = [0; 12];
/// The same with two ports.
pub(super) const CONFIG_OF_TWO: [u8; 12] = [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];

/// Bytes of `struct virtio_console_control`: le32 port, le16 event, le16 value.
pub(super) const CONTROL_LEN: usize = 8;

/// Events of control messages (5.3.6.2).
pub(super) mod event {
    /// The driver knows the device, or has failed to.
    pub const DEVICE_READY: u16 = 0;
    /// There is this port.
    pub const PORT_ADD: u16 = 1;
    /// The driver can use this port.
    pub const PORT_READY: u16 = 3;
    /// This port is a console.
    pub const CONSOLE_PORT: u16 = 4;
    /// The other end of this port is open, or not.
    pub const PORT_OPEN: u16 = 6;
    /// The name of this port follows.
    pub const PORT_NAME: u16 = 7;
}
