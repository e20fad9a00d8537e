//! What the hub types with: the socket of the console in focus.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rvmm_backends::console::GuestInput;

use crate::wishes::Wishes;

/// The hub's way into the guest.
pub(crate) struct Keyboard {
    pub socket: UnixStream,
    pub wishes: Arc<Wishes>,
}

// === impl Keyboard ===

impl GuestInput for Keyboard {
    fn push(&mut self, bytes: &[u8]) -> usize {
        match (&self.socket).write(bytes) {
            Ok(count) => count,
            // Closed: the input waits in the hub for the next boot.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.wishes.starve();
                0
            }
        }
    }
}
