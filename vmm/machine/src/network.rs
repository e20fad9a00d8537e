//! A network interface and the descriptors that feed it.

use std::os::fd::{AsRawFd, RawFd};

use rvmm_backends::net::{Passt, Tap};
use rvmm_devices::virtio::VirtioDevice;
use rvmm_devices::virtio::net::{Link, Net, NetBackend, NetOptions};
use rvmm_spec::Network;

use crate::MachineError;
use crate::slots::Backend;

/// A device, and what feeds it.
pub type Fed = (Box<dyn VirtioDevice>, Option<Backend>);

/// One end of the network, and its descriptor.
type End = (RawFd, Box<dyn NetBackend>);

/// The interface, on its network.
///
/// # Errors
/// The network is not there, or not for us.
pub fn interface(net: &rvmm_spec::Net, link: &Link) -> Result<Fed, MachineError> {
    let ends = match &net.network {
        Network::Tap(name) => {
            let taps = Tap::open(name, net.queues).map_err(MachineError::Tap)?;
            taps.into_iter().map(end).collect()
        }
        Network::Passt(path) => vec![end(Passt::connect(path).map_err(MachineError::Passt)?)],
    };
    let (descriptors, backends): (Vec<RawFd>, Vec<_>) = ends.into_iter().unzip();
    let queues = (0..).map(|pair| Net::receive_queue(pair)..Net::receive_queue(pair) + 1);
    let feeds = descriptors.into_iter().zip(queues).collect();
    let options = NetOptions {
        mac: net.mac.octets(),
        mtu: net.mtu,
        link: link.clone(),
    };
    Ok((Box::new(Net::new(backends, options)), Some(feeds)))
}

fn end<B: NetBackend + AsRawFd + 'static>(backend: B) -> End {
    (backend.as_raw_fd(), Box::new(backend))
}
