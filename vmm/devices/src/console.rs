//! Where the bytes go that a guest prints, through the UART or the virtio console.

/// The host's end of a guest's console.
pub trait ConsoleOutput: Send + Sync {
    /// Takes what the guest printed. Called with the device locked, from the UART on a vCPU thread: must not block
    /// on a viewer and must bound what it keeps.
    fn write(&self, bytes: &[u8]);
}
