//! Makes a guest's tap in the namespace that this thread is in, where it stays for rvmm to attach to.

use std::fs::{File, OpenOptions};
use std::io;

use rustix::ioctl::{self, IntegerSetter, Setter, opcode};

/// `TUNSETIFF`, `TUNSETOWNER` and `TUNSETPERSIST` of `linux/if_tun.h`.
const TUNSETIFF: ioctl::Opcode = opcode::write::<std::ffi::c_int>(b'T', 202);
const TUNSETOWNER: ioctl::Opcode = opcode::write::<std::ffi::c_int>(b'T', 204);
const TUNSETPERSIST: ioctl::Opcode = opcode::write::<std::ffi::c_int>(b'T', 203);

const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// Where taps are made.
const TUN: &str = "/dev/net/tun";

/// There is no tap.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The host has none, or not for us.
    #[error(
        "'{TUN}' cannot be opened, which a guest's network needs: load the module tun, and let this user open it"
    )]
    Tun(#[source] io::Error),
    /// Anything else.
    #[error("no tap can be made")]
    Make(#[source] io::Error),
}

/// `struct ifreq` as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes the tap of this name, for so many pairs of queues, and for this user where it is not ours.
///
/// # Errors
/// [`TapError`].
pub fn make(name: &str, queues: u8, owner: Option<u32>) -> Result<(), TapError> {
    let file = OpenOptions::new().read(true).write(true).open(TUN);
    let file = file.map_err(TapError::Tun)?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | if queues > 1 { IFF_MULTI_QUEUE } else { 0 },
        rest: [0; 22],
    };
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    attach(&file, request)
        .and_then(|()| owner.map_or(Ok(()), |owner| give(&file, owner)))
        .and_then(|()| persist(&file))
        .map_err(|error| TapError::Make(error.into()))
}

#[expect(unsafe_code, reason = "taps are made by ioctl only")]
fn attach(file: &File, request: InterfaceRequest) -> rustix::io::Result<()> {
    // SAFETY: TUNSETIFF reads a struct ifreq and writes it back, which is what lies there, whole.
    unsafe { ioctl::ioctl(file, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }
}

#[expect(unsafe_code, reason = "taps are made by ioctl only")]
fn give(file: &File, owner: u32) -> rustix::io::Result<()> {
    let owner = usize::try_from(owner).map_err(|_| rustix::io::Errno::INVAL)?;
    // SAFETY: TUNSETOWNER takes a number and no pointer.
    unsafe { ioctl::ioctl(file, IntegerSetter::<TUNSETOWNER>::new_usize(owner)) }
}

#[expect(unsafe_code, reason = "taps are made by ioctl only")]
fn persist(file: &File) -> rustix::io::Result<()> {
    // SAFETY: TUNSETPERSIST takes a number and no pointer.
    unsafe { ioctl::ioctl(file, IntegerSetter::<TUNSETPERSIST>::new_usize(1)) }
}
