//! A tap: an interface of the host whose other end we hold.
//!
//! The tap is made by whoever sets up the network, never here: it belongs to a bridge and a user, and a tap that appeared
//! because of a mistyped name would be a network that leads nowhere.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rvmm_devices::virtio::net::NetBackend;
use rvmm_spec::TapName;
use vm_memory::VolatileSlice;
use vmm_sys_util::ioctl::{ioctl_with_ref, ioctl_with_val};

use crate::transfer;

/// `_IOW('T', 202, int)` and `_IOW('T', 208, unsigned int)` of `linux/if_tun.h`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;

const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;

/// Where taps are opened.
const TUN: &str = "/dev/net/tun";

/// The open end of a tap.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

/// The tap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface has this name.
    #[error("tap '{0}' does not exist; create it with: ip tuntap add dev {0} mode tap && ip link set {0} up")]
    Missing(String),
    /// An interface of another kind, or a tap of several queues.
    #[error("network interface '{0}' is not a tap with one queue")]
    Kind(String),
    /// It can have one user at a time.
    #[error("tap '{0}' is in use by another process")]
    InUse(String),
    /// It belongs to someone else.
    #[error(
        "tap '{0}' may not be used by this user; its owner is set with: ip tuntap add dev {0} mode tap user NAME"
    )]
    Permission(String),
    /// The host has no taps, or keeps them from this process.
    #[error("no taps without '{TUN}', which cannot be opened")]
    Tun(#[source] io::Error),
    /// Anything else.
    #[error("tap '{0}' cannot be used")]
    Io(String, #[source] io::Error),
}

/// `struct ifreq` as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

// === impl Tap ===

impl Tap {
    /// Opens an existing tap. It carries whole frames, each computed to its end: no offload is on, whatever a former user
    /// has set.
    ///
    /// # Errors
    /// [`TapError`], which names the tap.
    pub fn open(name: &TapName) -> Result<Self, TapError> {
        let before = index_of(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(TUN)
            .map_err(TapError::Tun)?;
        attach(&file, name)?;
        // Attaching makes a tap where none is. Should ours have gone since we looked, that one goes with this file.
        if index_of(name)? != before {
            return Err(TapError::Missing(name.as_str().to_owned()));
        }
        Ok(Self { file })
    }
}

impl NetBackend for Tap {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.file.read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        transfer::send(self.file.as_fd(), frame)
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// The number of an interface in our network namespace (`/sys` may show another one's).
fn index_of(name: &TapName) -> Result<u32, TapError> {
    let failed = |errno: rustix::io::Errno| TapError::Io(name.as_str().to_owned(), errno.into());
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(failed)?;
    match rustix::net::netdevice::name_to_index(&socket, name.as_str()) {
        Ok(index) => Ok(index),
        Err(rustix::io::Errno::NODEV) => Err(TapError::Missing(name.as_str().to_owned())),
        Err(errno) => Err(failed(errno)),
    }
}

fn attach(file: &File, name: &TapName) -> Result<(), TapError> {
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI,
        rest: [0; 22],
    };
    // A `TapName` leaves room for the NUL at the end.
    for (to, from) in request.name.iter_mut().zip(name.as_str().bytes()) {
        *to = from;
    }
    #[expect(unsafe_code, reason = "taps are set up by ioctl only")]
    // SAFETY: TUNSETIFF reads a `struct ifreq` of 40 bytes, which `request` is, and keeps no pointer to it.
    let attached = unsafe { ioctl_with_ref(file, TUNSETIFF, &request) };
    if attached < 0 {
        return Err(refusal(name.as_str().to_owned(), io::Error::last_os_error()));
    }
    #[expect(unsafe_code, reason = "taps are set up by ioctl only")]
    // SAFETY: TUNSETOFFLOAD takes a number and no pointer.
    let plain = unsafe { ioctl_with_val(file, TUNSETOFFLOAD, 0) };
    if plain < 0 {
        return Err(TapError::Io(name.as_str().to_owned(), io::Error::last_os_error()));
    }
    Ok(())
}

fn refusal(name: String, error: io::Error) -> TapError {
    match error.raw_os_error() {
        Some(libc::EBUSY) => TapError::InUse(name),
        Some(libc::EPERM) => TapError::Permission(name),
        Some(libc::EINVAL) => TapError::Kind(name),
        _ => TapError::Io(name, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn refused(name: &str) -> String {
        Tap::open(&name.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_tap_that_does_not_exist_is_not_made() {
        let wanted = "tap 'rvm-none0' does not exist; create it with: ip tuntap add dev rvm-none0 mode tap && ip link set rvm-none0 up";
        assert_eq!(refused("rvm-none0"), wanted);
        assert_eq!(refused("rvm-none0"), wanted);
    }

    #[test]
    fn the_kernels_refusals_say_what_is_wrong() {
        let text = |errno| refusal("t".to_owned(), io::Error::from_raw_os_error(errno)).to_string();
        assert_eq!(text(libc::EBUSY), "tap 't' is in use by another process");
        assert_eq!(
            text(libc::EINVAL),
            "network interface 't' is not a tap with one queue"
        );
        assert!(text(libc::EPERM).contains("may not be used by this user"));
    }

    #[test]
    fn the_request_has_the_kernels_size() {
        assert_eq!(size_of::<InterfaceRequest>(), size_of::<libc::ifreq>());
    }

    #[test]
    fn frames_pass_through_a_tap_that_exists() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: taps in a network namespace of its own need root");
            return;
        }
        let ip = |arguments: &str| {
            let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
            assert!(done.success(), "ip {arguments}");
        };
        #[expect(unsafe_code, reason = "a network namespace is a matter of the whole thread")]
        // SAFETY: CLONE_NEWNET shares no memory or descriptors anew; only this thread's network changes.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        ip("tuntap add dev t0 mode tap");
        ip("link set t0 up");
        let mut tap = Tap::open(&"t0".parse().unwrap()).unwrap();
        assert_eq!(refused("t0"), "tap 't0' is in use by another process");
        assert_eq!(
            refused("lo"),
            "network interface 'lo' is not a tap with one queue"
        );

        // Neighbour discovery and the like: the host always has something to say on a new link.
        let mut frame = [0; 2048];
        while tap.receive(&mut frame).unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let mut sent = [0xff; 60];
        tap.send(&[VolatileSlice::from(&mut sent[..])]).unwrap();
        let received = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = received.lines().find(|line| line.contains("t0:")).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some("60"));
    }
}
