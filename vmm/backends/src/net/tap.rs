//! A tap: an interface of the host whose other end we hold.
//!
//! The tap is made by whoever sets up the network, never here: it belongs to a bridge and a user, and a tap that appeared
//! because of a mistyped name would be a network that leads nowhere.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rvmm_devices::virtio::net::{HEADER_LEN, NetBackend, Offloads};
use rvmm_spec::TapName;
use vm_memory::VolatileSlice;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use crate::transfer;

/// `_IOW('T', 202, int)`, `_IOR('T', 210, unsigned int)`, `_IOW('T', 208, unsigned int)`, `_IOW('T', 216, int)`, `_IOW('T', 217, int)` of
/// `linux/if_tun.h`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUNSETQUEUE: libc::c_ulong = 0x4004_54d9;

const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_ATTACH_QUEUE: u16 = 0x0200;
const IFF_DETACH_QUEUE: u16 = 0x0400;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;
const TUN_F_TSO_ECN: libc::c_ulong = 8;

/// Where taps are opened.
const TUN: &str = "/dev/net/tun";

/// The open end of a tap, or one of its queues.
#[derive(Debug)]
pub struct Tap {
    file: File,
    /// Whether it is a queue among others: whether it is in use.
    used: Option<bool>,
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
    /// An interface of another kind, or a tap of one queue.
    #[error(
        "network interface '{0}' is not a tap with several queues; create it with: ip tuntap add dev {0} mode tap multi_queue"
    )]
    SingleQueue(String),
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
    /// A descriptor that came from elsewhere.
    #[error("what came along is not tap '{0}', attached without packet information and with virtio headers")]
    Handed(String),
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
    /// Opens an existing tap with so many queues, one at least; there is a `Tap` for each. Frames pass with a header that
    /// says what is left undone in them: nothing, until the driver says what it takes, whatever a former user has set.
    ///
    /// # Errors
    /// [`TapError`], which names the tap.
    pub fn open(name: &TapName, queues: u8) -> Result<Vec<Self>, TapError> {
        let before = index_of(name)?;
        let several = queues > 1;
        let taps = (0..queues.max(1))
            .map(|_| Self::attach(name, several))
            .collect::<Result<_, _>>()?;
        // Attaching makes a tap where none is. Should ours have gone since we looked, that one goes with these files.
        if index_of(name)? != before {
            return Err(TapError::Missing(name.as_str().to_owned()));
        }
        Ok(taps)
    }

    /// The queues of a tap that another process attached, one for each file.
    ///
    /// # Errors
    /// [`TapError::Handed`] where one is no tap, or was attached in another way than [`Tap::open`] does.
    pub fn adopt(name: &TapName, files: Vec<File>) -> Result<Vec<Self>, TapError> {
        let several = files.len() > 1;
        let adopt = |file| Self::adopt_queue(name, file, several);
        files.into_iter().map(adopt).collect()
    }

    fn adopt_queue(name: &TapName, file: File, several: bool) -> Result<Self, TapError> {
        let other = || TapError::Handed(name.as_str().to_owned());
        let mut request = InterfaceRequest::flags(0);
        get(&file, TUNGETIFF, &mut request).map_err(|_| other())?;
        let kind = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        let is_named = request.name == InterfaceRequest::new(name, 0).name;
        if request.flags & kind != kind || (request.flags & IFF_MULTI_QUEUE != 0) != several || !is_named {
            return Err(other());
        }
        rustix::io::ioctl_fionbio(&file, true).map_err(|_| other())?;
        Self::set_up(name, file, several)
    }

    /// What keeps it attached, for another process to [`Tap::adopt`].
    pub fn into_file(self) -> File {
        self.file
    }

    fn attach(name: &TapName, several: bool) -> Result<Self, TapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(TUN)
            .map_err(TapError::Tun)?;
        let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | if several { IFF_MULTI_QUEUE } else { 0 };
        let attached = set(&file, TUNSETIFF, &InterfaceRequest::new(name, flags));
        attached.map_err(|error| refusal(name.as_str().to_owned(), several, error))?;
        Self::set_up(name, file, several)
    }

    fn set_up(name: &TapName, file: File, several: bool) -> Result<Self, TapError> {
        let failed = |error| TapError::Io(name.as_str().to_owned(), error);
        let header = libc::c_int::try_from(HEADER_LEN).unwrap_or(0);
        set(&file, TUNSETVNETHDRSZ, &header).map_err(failed)?;
        let tap = Self {
            file,
            used: several.then_some(true),
        };
        tap.offload(0).map_err(failed)?;
        Ok(tap)
    }

    fn offload(&self, flags: libc::c_ulong) -> io::Result<()> {
        #[expect(unsafe_code, reason = "taps are set up by ioctl only")]
        // SAFETY: TUNSETOFFLOAD takes a number and no pointer.
        let set = unsafe { ioctl_with_val(&self.file, TUNSETOFFLOAD, flags) };
        if set < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

// === impl InterfaceRequest ===

impl InterfaceRequest {
    fn new(name: &TapName, flags: u16) -> Self {
        let mut request = Self::flags(flags);
        // A `TapName` leaves room for the NUL at the end.
        for (to, from) in request.name.iter_mut().zip(name.as_str().bytes()) {
            *to = from;
        }
        request
    }

    fn flags(flags: u16) -> Self {
        Self {
            name: [0; 16],
            flags,
            rest: [0; 22],
        }
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

    fn send(&mut self, header: &[u8; HEADER_LEN], frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        transfer::send(self.file.as_fd(), header, frame).map(drop)
    }

    fn has_offloads(&self) -> bool {
        true
    }

    fn set_offloads(&mut self, offloads: Offloads) {
        let flags = [
            (offloads.checksum, TUN_F_CSUM),
            (offloads.checksum && offloads.tso4, TUN_F_TSO4),
            (offloads.checksum && offloads.tso6, TUN_F_TSO6),
            (
                offloads.checksum && offloads.ecn && (offloads.tso4 || offloads.tso6),
                TUN_F_TSO_ECN,
            ),
        ];
        let flags = flags.iter().map(|&(on, flag)| if on { flag } else { 0 }).sum();
        // A kernel that does not know one of them does the work itself, as it did before.
        self.offload(flags).ok();
    }

    fn set_used(&mut self, used: bool) {
        if self.used.is_some_and(|now| now != used) {
            let flag = if used { IFF_ATTACH_QUEUE } else { IFF_DETACH_QUEUE };
            // One that cannot be taken out of use goes on to get its share of frames, which wait in vain.
            if set(&self.file, TUNSETQUEUE, &InterfaceRequest::flags(flag)).is_ok() {
                self.used = Some(used);
            }
        }
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

/// Gives the kernel a value of the type that the request reads.
fn set<T>(file: &File, request: libc::c_ulong, value: &T) -> io::Result<()> {
    #[expect(unsafe_code, reason = "taps are set up by ioctl only")]
    // SAFETY: the requests used here read a `struct ifreq` of 40 bytes or an `int`, which the callers give them, and keep
    // no pointer to it.
    let done = unsafe { ioctl_with_ref(file, request, value) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Has the kernel fill in a value of the type that the request writes.
fn get(file: &File, request: libc::c_ulong, value: &mut InterfaceRequest) -> io::Result<()> {
    #[expect(unsafe_code, reason = "taps are asked by ioctl only")]
    // SAFETY: TUNGETIFF writes a `struct ifreq`, which `InterfaceRequest` has the size of.
    let done = unsafe { ioctl_with_mut_ref(file, request, value) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn refusal(name: String, several: bool, error: io::Error) -> TapError {
    match error.raw_os_error() {
        Some(libc::EBUSY) => TapError::InUse(name),
        Some(libc::EPERM) => TapError::Permission(name),
        Some(libc::EINVAL) if several => TapError::SingleQueue(name),
        Some(libc::EINVAL) => TapError::Kind(name),
        _ => TapError::Io(name, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn refused(name: &str) -> String {
        Tap::open(&name.parse().unwrap(), 1).unwrap_err().to_string()
    }

    #[test]
    fn a_tap_that_does_not_exist_is_not_made() {
        let wanted = "tap 'rvm-none0' does not exist; create it with: ip tuntap add dev rvm-none0 mode tap && ip link set rvm-none0 up";
        assert_eq!(refused("rvm-none0"), wanted);
        assert_eq!(refused("rvm-none0"), wanted);
    }

    #[test]
    fn the_kernels_refusals_say_what_is_wrong() {
        let text = |errno| refusal("t".to_owned(), false, io::Error::from_raw_os_error(errno)).to_string();
        assert_eq!(text(libc::EBUSY), "tap 't' is in use by another process");
        assert_eq!(
            text(libc::EINVAL),
            "network interface 't' is not a tap with one queue"
        );
        let several = refusal("t".to_owned(), true, io::Error::from_raw_os_error(libc::EINVAL));
        assert!(several.to_string().ends_with("mode tap multi_queue"), "{several}");
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
        let mut taps = Tap::open(&"t0".parse().unwrap(), 1).unwrap();
        let tap = &mut taps[0];
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
        tap.send(&[0; HEADER_LEN], &[VolatileSlice::from(&mut sent[..])])
            .unwrap();
        let received = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = received.lines().find(|line| line.contains("t0:")).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some("60"));

        let file = |tap: &Tap| vec![tap.file.try_clone().unwrap()];
        let adopt = |name: &str, files| Tap::adopt(&name.parse().unwrap(), files);
        assert_eq!(adopt("t0", file(tap)).unwrap().len(), 1);
        assert!(matches!(adopt("t9", file(tap)), Err(TapError::Handed(_))));
        let other = vec![File::open("/dev/null").unwrap()];
        assert!(matches!(adopt("t0", other), Err(TapError::Handed(_))));

        ip("tuntap add dev t1 mode tap multi_queue");
        ip("link set t1 up");
        let mut queues = Tap::open(&"t1".parse().unwrap(), 3).unwrap();
        queues.iter_mut().for_each(|queue| queue.set_used(false));
        queues.iter_mut().for_each(|queue| queue.set_used(true));
        queues[2].set_offloads(Offloads {
            checksum: true,
            tso4: true,
            ..Offloads::default()
        });
        let [.., last] = &mut queues[..] else {
            unreachable!()
        };
        last.send(&[0; HEADER_LEN], &[VolatileSlice::from(&mut sent[..])])
            .unwrap();
        // A checksum that lies outside its frame is the kernel's to refuse, too.
        let mut wrong = [0; HEADER_LEN];
        wrong[0] = 1;
        wrong[6] = 200;
        assert!(last.send(&wrong, &[VolatileSlice::from(&mut sent[..])]).is_err());
    }
}
