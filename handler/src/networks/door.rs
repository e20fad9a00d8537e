//! Where a guest's DHCP and router solicitations come in: a packet socket on its tap, in the keeper.
//!
//! The kernel lets through only what the responder could answer, so that a guest's other frames cost nothing here, and no more than
//! [`MAX_AT_ONCE`] frames are answered before others have their turn.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rvm_dhcp::{Lease, Mac, Responder, V4, V6, link_local};

use super::model::{Binding, Plan, TAP_MAC};
use super::node::{ROUTER_MAC, has_v6};

/// Longest frame that is read: no guest's question is longer.
const MAX_FRAME: usize = 2048;

/// Frames of one guest in its turn.
const MAX_AT_ONCE: usize = 16;

/// `AF_PACKET` and `ETH_P_ALL` as a packet socket's address has them.
const AF_PACKET: u16 = 17;
const ETH_P_ALL: u16 = 0x0003;

/// How many rows [`FILTER`] has.
const FILTER_ROWS: u16 = 20;

/// Frames that the kernel lets through: UDP to port 67 over IPv4 (no later fragment), UDP to port 547 and router solicitations over
/// IPv6. Each row is an instruction of the classic BPF machine: code, jump if true, jump if false, operand.
const FILTER: [libc::sock_filter; FILTER_ROWS as usize] = [
    row(0x28, 0, 0, 12),      //  0  load the ethertype
    row(0x15, 0, 8, 0x0800),  //  1  IPv4, or go to 10
    row(0x30, 0, 0, 23),      //  2  load the protocol
    row(0x15, 0, 14, 17),     //  3  UDP, or drop
    row(0x28, 0, 0, 20),      //  4  load flags and offset
    row(0x45, 12, 0, 0x1fff), // 5  drop what is not the first fragment
    row(0xb1, 0, 0, 14),      //  6  X = the header's length
    row(0x48, 0, 0, 16),      //  7  load the port
    row(0x15, 10, 9, 67),     //  8  take, or drop
    row(0x06, 0, 0, 0),       //  9  drop
    row(0x15, 0, 7, 0x86dd),  // 10  IPv6, or drop
    row(0x30, 0, 0, 20),      // 11  load the next header
    row(0x15, 0, 2, 17),      // 12  UDP, or go to 15
    row(0x28, 0, 0, 56),      // 13  load the port
    row(0x15, 4, 3, 547),     // 14  take, or drop
    row(0x15, 0, 2, 58),      // 15  ICMPv6, or drop
    row(0x30, 0, 0, 54),      // 16  load the type
    row(0x15, 1, 0, 133),     // 17  take a router solicitation, or drop
    row(0x06, 0, 0, 0),       // 18  drop
    row(0x06, 0, 0, 0xffff),  // 19  take
];

/// What answers one guest.
#[derive(Debug)]
pub struct Door {
    socket: OwnedFd,
    responder: Responder,
}

// === impl Door ===

impl Door {
    /// Opens it on the guest's tap, which is in the namespace that this thread is in.
    ///
    /// # Errors
    /// The kernel's, or that of a lease that cannot be told.
    pub fn open(plan: &Plan, tap: u32) -> io::Result<Self> {
        let responder = Responder::new(lease(plan)).map_err(io::Error::other)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Until it is bound it hears nothing.
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        filter(&socket)?;
        bind(&socket, tap)?;
        let door = Self { socket, responder };
        // A guest that asks before it hears this needs nothing of it.
        if let Some(frame) = door.responder.advertisement() {
            door.say(&frame);
        }
        Ok(door)
    }

    /// Answers what has come.
    pub fn answer(&self) {
        let mut frame = [0; MAX_FRAME];
        for _ in 0..MAX_AT_ONCE {
            let Ok((count, length)) = rustix::net::recv(&self.socket, &mut frame[..], RecvFlags::TRUNC)
            else {
                return;
            };
            if length <= MAX_FRAME
                && let Some(answer) = self.responder.answer(frame.get(..count).unwrap_or_default())
            {
                self.say(&answer);
            }
        }
    }

    fn say(&self, frame: &[u8]) {
        // A guest that does not listen asks again.
        rustix::net::send(&self.socket, frame, SendFlags::empty()).ok();
    }
}

impl Door {
    /// A copy, to wait on.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the guest is told.
fn lease(plan: &Plan) -> Lease {
    let guest = &plan.guest;
    let router = match plan.binding {
        Binding::Masquerade => TAP_MAC,
        Binding::Bridge => ROUTER_MAC,
    };
    let mut v4 = V4::new(guest.v4_gateway, guest.v4, guest.v4_prefix);
    v4.dns = plan
        .dns
        .iter()
        .filter_map(|server| match server {
            std::net::IpAddr::V4(server) => Some(*server),
            std::net::IpAddr::V6(_) => None,
        })
        .collect();
    let mut v6 = V6::new(link_local(Mac(router)), guest.v6, guest.v6_prefix);
    v6.dns = plan
        .dns
        .iter()
        .filter_map(|server| match server {
            std::net::IpAddr::V6(server) => Some(*server),
            std::net::IpAddr::V4(_) => None,
        })
        .collect();
    Lease {
        hostname: Some(plan.hostname.clone()),
        search: plan.search.clone(),
        v4: Some(v4),
        v6: (has_v6() && plan.has_v6()).then_some(v6),
        // To a guest that shares the pod's address its router tells itself.
        ..Lease::new(Mac(plan.mac.octets()), Mac(router), plan.mtu)
    }
}

const fn row(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn filter(socket: &OwnedFd) -> io::Result<()> {
    let mut rows = FILTER;
    let program = libc::sock_fprog {
        len: FILTER_ROWS,
        filter: rows.as_mut_ptr(),
    };
    let size = size(&program)?;
    #[expect(
        unsafe_code,
        reason = "no safe way to filter a socket is known to our libraries"
    )]
    // SAFETY: the option reads a struct sock_fprog of this size, whose rows live until after the call; the kernel copies them.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    done(set)
}

fn bind(socket: &OwnedFd, link: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: AF_PACKET,
        sll_protocol: ETH_P_ALL.to_be(),
        sll_ifindex: i32::try_from(link).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = size(&address)?;
    #[expect(
        unsafe_code,
        reason = "no safe way to bind a packet socket is known to our libraries"
    )]
    // SAFETY: bind reads a struct sockaddr_ll of this size.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    done(bound)
}

fn size<T>(value: &T) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
