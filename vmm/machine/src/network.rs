//! A network interface and the descriptors that feed it.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use rvmm_backends::net::{Passt, Tap};
use rvmm_backends::vhost_net::VhostNet;
use rvmm_devices::virtio::VirtioDevice;
use rvmm_devices::virtio::net::{Link, Net, NetBackend, NetOptions, ServedNet};
use rvmm_spec::Network;
use vm_memory::GuestMemoryMmap;

use crate::MachineError;
use crate::slots::Backend;

/// A device, and what feeds it.
pub type Fed = (Box<dyn VirtioDevice>, Option<Backend>);

/// One end of the network, and its descriptor.
type End = (RawFd, Box<dyn NetBackend>);

/// The interface, on its network, of a guest with this memory.
///
/// # Errors
/// The network is not there, or not for us.
pub fn interface(net: &rvmm_spec::Net, link: &Link, memory: &GuestMemoryMmap) -> Result<Fed, MachineError> {
    if net.vhost {
        return served(net, link, memory);
    }
    through_us(net, link)
}

/// The host's kernel moves the frames. What the guest kicks it hears at once; what it used the event loop hears, which
/// interrupts the guest, since a wired interrupt has to be pulsed.
fn served(net: &rvmm_spec::Net, link: &Link, memory: &GuestMemoryMmap) -> Result<Fed, MachineError> {
    let taps = match &net.network {
        Network::Tap(name) => Tap::open(name, 1).map_err(MachineError::Tap)?,
        Network::Passt(_) => Vec::new(),
    };
    let tap = taps.into_iter().next().ok_or(MachineError::NoTap)?;
    let server = VhostNet::open(tap, memory).map_err(MachineError::Vhost)?;
    let wires = server.wires().map_err(MachineError::Vhost)?;
    let device = ServedNet::new(Box::new(server), options(net, link));
    Ok((Box::new(device), Some(Backend::elsewhere(wires))))
}

fn through_us(net: &rvmm_spec::Net, link: &Link) -> Result<Fed, MachineError> {
    let ends: Vec<End> = match &net.network {
        Network::Tap(name) => {
            let taps = Tap::open(name, net.queues).map_err(MachineError::Tap)?;
            taps.into_iter().map(end).collect()
        }
        Network::Passt(path) => vec![end(Passt::connect(path).map_err(MachineError::Passt)?)],
    };
    Ok(device(net, ends, link))
}

/// The interface, on a tap that somebody else attached, or on a passt, which begins anew with each connection.
///
/// # Errors
/// It is another tap, or attached in another way; or the passt is not there.
pub fn interface_on(net: &rvmm_spec::Net, queues: Vec<File>, link: &Link) -> Result<Fed, MachineError> {
    let Network::Tap(name) = &net.network else {
        return through_us(net, link);
    };
    let taps = Tap::adopt(name, queues).map_err(MachineError::Tap)?;
    Ok(device(net, taps.into_iter().map(end).collect(), link))
}

fn device(net: &rvmm_spec::Net, ends: Vec<End>, link: &Link) -> Fed {
    let (descriptors, backends): (Vec<RawFd>, Vec<_>) = ends.into_iter().unzip();
    let queues = (0..).map(|pair| Net::receive_queue(pair)..Net::receive_queue(pair) + 1);
    let feeds = descriptors.into_iter().zip(queues).collect();
    (Box::new(Net::new(backends, options(net, link))), Some(feeds))
}

fn options(net: &rvmm_spec::Net, link: &Link) -> NetOptions {
    NetOptions {
        mac: net.mac.octets(),
        mtu: net.mtu,
        link: link.clone(),
    }
}

fn end<B: NetBackend + AsRawFd + 'static>(backend: B) -> End {
    (backend.as_raw_fd(), Box::new(backend))
}
