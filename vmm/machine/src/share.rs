//! A shared folder of the spec as a device.

use rvmm_backends::vhost_user::Servers;
use rvmm_devices::virtio::fs::Fs;
use rvmm_spec::Share;
use vm_memory::GuestMemoryMmap;

use crate::MachineError;
use crate::network::Fed;
use crate::slots::Backend;

/// The device, once its server is there. What the guest kicks the server hears at once; what the server used the event
/// loop hears, which interrupts the guest, since a wired interrupt has to be pulsed.
///
/// # Errors
/// There is no server, or not one of files.
pub fn folder(share: &Share, servers: &Servers, memory: &GuestMemoryMmap) -> Result<Fed, MachineError> {
    let served = servers
        .serve(share.socket(), memory)
        .map_err(MachineError::Share)?;
    let wires = served.wires().map_err(MachineError::Share)?;
    // A server that is gone is found out at any queue.
    let backend = Backend::new(served.as_raw_fd(), 0..1).with_wires(wires);
    Ok((Box::new(Fs::new(Box::new(served), share.tag())), Some(backend)))
}

#[cfg(test)]
mod tests;
