//! A network interface as QEMU's arguments.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::fd::RawFd;

use rvmm_spec::{Net, Network, Transport};

use super::{Arguments, escaped};

impl Arguments {
    /// `taps` are the queues of its tap, if it has one.
    pub(super) fn net(&mut self, index: usize, net: &Net, taps: &[RawFd]) {
        let boot_rom = match self.transport {
            Transport::Mmio => "",
            Transport::Pci => ",romfile=",
        };
        let mut device = format!(",netdev=net{index},mac={}{boot_rom}", net.mac);
        match &net.network {
            Network::Tap(_) => {
                let fds: Vec<_> = taps.iter().map(RawFd::to_string).collect();
                let several = fds.len() > 1;
                let word = if several { "fds" } else { "fd" };
                self.option("-netdev", format!("tap,id=net{index},{word}={}", fds.join(":")));
                device.push_str(if several { ",mq=on" } else { "" });
            }
            Network::Passt(path) => {
                let mut netdev = OsString::from(format!(
                    "stream,id=net{index},server=off,addr.type=unix,addr.path="
                ));
                netdev.push(escaped(path.as_os_str()));
                self.option("-netdev", netdev);
            }
        }
        if let Some(mtu) = net.mtu {
            // Writing to a string cannot fail.
            let _ = write!(device, ",host_mtu={mtu}");
        }
        self.device("virtio-net", device);
    }
}
