//! Frames that the host's kernel moves between a guest's rings and a tap, without rvmm (vhost-net, `linux/vhost.h`).
//!
//! ```text
//!   start of a boot  /dev/vhost-net: a thread of the kernel's in our name; which features of rings it knows
//!   DRIVER_OK        features, guest RAM; each queue: size, place, kick and call descriptors, the tap
//!   in between       nothing: guest and kernel speak through RAM, KVM rings the kick, the event loop hears the call
//!   reset, end       each queue: no tap any more. The kernel has finished with the queue when that returns
//! ```
//!
//! The kernel holds every address that a guest puts into its rings against the RAM that it was told of. The crate `vhost`
//! is not used: it takes no ring whose end is the end of RAM.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use rvmm_devices::virtio::net::{FrameServer, NetBackend, Offloads, ServedNet};
use rvmm_devices::virtio::served::{RingServer, Rings};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ref};

use crate::net::Tap;
use crate::wires::{Wires, borrowed};

/// Where the kernel's side is.
const DEVICE: &str = "/dev/vhost-net";

// `_IO`, `_IOR`, `_IOW` of 0xaf.
const SET_OWNER: libc::c_ulong = 0xaf01;
const GET_FEATURES: libc::c_ulong = 0x8008_af00;
const SET_FEATURES: libc::c_ulong = 0x4008_af00;
const SET_MEM_TABLE: libc::c_ulong = 0x4008_af03;
const SET_VRING_NUM: libc::c_ulong = 0x4008_af10;
const SET_VRING_ADDR: libc::c_ulong = 0x4028_af11;
const SET_VRING_BASE: libc::c_ulong = 0x4008_af12;
const SET_VRING_KICK: libc::c_ulong = 0x4008_af20;
const SET_VRING_CALL: libc::c_ulong = 0x4008_af21;
const NET_SET_BACKEND: libc::c_ulong = 0x4008_af30;

/// Regions of guest RAM that the kernel is told of; there is one.
const MAX_REGIONS: usize = 8;

/// A tap with the kernel behind it.
pub struct VhostNet {
    device: File,
    tap: Tap,
    memory: GuestMemoryMmap,
    wires: Wires,
    features: u64,
    /// How many queues it works on.
    started: usize,
}

/// The kernel does not move frames here.
#[derive(Debug, thiserror::Error)]
pub enum VhostError {
    /// It has no such thing, or keeps it from this user.
    #[error("vhost=on needs '{DEVICE}', which cannot be opened; load it with: modprobe vhost_net")]
    Open(#[source] io::Error),
    /// It does not do what is asked.
    #[error("'{DEVICE}' cannot be used")]
    Refused(#[source] io::Error),
}

/// `struct vhost_vring_state` and `struct vhost_vring_file`: a queue and a number.
#[repr(C)]
struct OfQueue<T> {
    index: u32,
    value: T,
}

/// `struct vhost_vring_addr`.
#[repr(C)]
struct Places {
    index: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// `struct vhost_memory_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    guest: u64,
    len: u64,
    here: u64,
    flags: u64,
}

/// `struct vhost_memory`.
#[repr(C)]
struct Table {
    count: u32,
    padding: u32,
    regions: [Region; MAX_REGIONS],
}

// === impl VhostNet ===

impl VhostNet {
    /// The kernel's side of this tap, for a guest with this memory.
    ///
    /// # Errors
    /// It is not there.
    pub fn open(tap: Tap, memory: &GuestMemoryMmap) -> Result<Self, VhostError> {
        let device = OpenOptions::new().read(true).write(true).open(DEVICE);
        let device = device.map_err(VhostError::Open)?;
        let mut vhost = Self {
            device,
            tap,
            memory: memory.clone(),
            wires: Wires::new(ServedNet::QUEUES).map_err(VhostError::Refused)?,
            features: 0,
            started: 0,
        };
        vhost.features = vhost.introduce().map_err(VhostError::Refused)?;
        Ok(vhost)
    }

    /// The ends of the wires that are not the kernel's.
    ///
    /// # Errors
    /// The kernel gives no more descriptors.
    pub fn wires(&self) -> Result<Wires, VhostError> {
        self.wires.try_clone().map_err(VhostError::Refused)
    }

    /// Has the kernel work in our name, and asks what it knows.
    fn introduce(&self) -> io::Result<u64> {
        let mut features = 0;
        #[expect(unsafe_code, reason = "vhost is spoken to by ioctl only")]
        // SAFETY: SET_OWNER takes nothing; GET_FEATURES writes the 64 bits that it is given.
        let done = unsafe {
            answer(ioctl(&self.device, SET_OWNER))?;
            answer(ioctl_with_mut_ref(&self.device, GET_FEATURES, &mut features))
        };
        done.map(|()| features)
    }

    fn tell<T>(&self, request: libc::c_ulong, value: &T) -> io::Result<()> {
        #[expect(unsafe_code, reason = "vhost is spoken to by ioctl only")]
        // SAFETY: each request above that is told something reads the `repr(C)` structure of its name in linux/vhost.h
        // out of the reference, which outlives the call, and writes nothing.
        let done = unsafe { ioctl_with_ref(&self.device, request, value) };
        answer(done)
    }

    fn tell_of<T>(&self, request: libc::c_ulong, index: u32, value: T) -> io::Result<()> {
        self.tell(request, &OfQueue { index, value })
    }

    /// What a guest's driver has agreed upon, and its memory.
    fn begin(&self, features: u64) -> io::Result<()> {
        self.tell(SET_FEATURES, &(features & self.features))?;
        let mut table = Table {
            count: 0,
            padding: 0,
            regions: [Region::default(); MAX_REGIONS],
        };
        for region in self.memory.iter() {
            let entry = table.regions.get_mut(table.count as usize);
            *entry.ok_or(io::ErrorKind::Unsupported)? = Region {
                guest: region.start_addr().raw_value(),
                len: region.len(),
                here: region.as_ptr() as u64,
                flags: 0,
            };
            table.count += 1;
        }
        self.tell(SET_MEM_TABLE, &table)
    }

    /// Where guest RAM is mapped here.
    fn here(&self, place: u64) -> io::Result<u64> {
        let found = self.memory.get_host_address(GuestAddress(place));
        Ok(found.map_err(io::Error::other)? as u64)
    }
}

impl RingServer for VhostNet {
    fn features(&self) -> u64 {
        self.features
    }

    fn start(&mut self, index: usize, rings: Rings, features: u64) -> io::Result<()> {
        let unknown = || io::Error::from(io::ErrorKind::InvalidInput);
        let ring = u32::try_from(index).map_err(io::Error::other)?;
        let kick = self.wires.kicks.get(index).ok_or_else(unknown)?;
        let call = self.wires.calls.get(index).ok_or_else(unknown)?;
        if self.started == 0 {
            self.begin(features)?;
        }
        self.tell_of(SET_VRING_NUM, ring, u32::from(rings.size))?;
        self.tell_of(SET_VRING_BASE, ring, 0_u32)?;
        let places = Places {
            index: ring,
            flags: 0,
            descriptors: self.here(rings.descriptors)?,
            used: self.here(rings.used)?,
            available: self.here(rings.available)?,
            log: 0,
        };
        self.tell(SET_VRING_ADDR, &places)?;
        let number = |event: &EventFd| borrowed(event).as_raw_fd();
        self.tell_of(SET_VRING_KICK, ring, number(kick))?;
        self.tell_of(SET_VRING_CALL, ring, number(call))?;
        self.tell_of(NET_SET_BACKEND, ring, self.tap.as_raw_fd())?;
        self.started += 1;
        Ok(())
    }

    fn kick(&mut self, index: usize) -> io::Result<()> {
        if let Some(kick) = self.wires.kicks.get(index) {
            // A counter that is full has rung already.
            kick.write(1).ok();
        }
        Ok(())
    }

    fn stop(&mut self, index: usize) {
        self.started = self.started.saturating_sub(1);
        if let Ok(ring) = u32::try_from(index)
            && let Err(error) = self.tell_of(NET_SET_BACKEND, ring, -1_i32)
        {
            // It only fails for a queue that there is not.
            tracing::warn!("the kernel keeps a queue of a network interface: {error}");
        }
    }
}

impl FrameServer for VhostNet {
    fn set_offloads(&mut self, offloads: Offloads) {
        self.tap.set_offloads(offloads);
    }
}

fn answer(code: libc::c_int) -> io::Result<()> {
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
