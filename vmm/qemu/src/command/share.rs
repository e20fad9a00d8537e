//! Shared folders as QEMU's arguments.

use std::ffi::OsString;

use rvmm_spec::Share;

use super::{Arguments, escaped};

/// QEMU's name of the device.
pub(super) const DEVICE: &str = "vhost-user-fs";

impl Arguments {
    /// The next one; QEMU connects to its server itself. A tag may hold commas.
    pub(super) fn share(&mut self, index: usize, share: &Share) {
        let mut server = OsString::from(format!("socket,id=share{index},path="));
        server.push(escaped(share.socket().as_os_str()));
        self.option("-chardev", server);
        let mut options = OsString::from(format!(",chardev=share{index},queue-size=1024,tag="));
        options.push(escaped(share.tag().as_ref()));
        self.device(DEVICE, options);
    }
}
