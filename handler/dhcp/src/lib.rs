//! Tells one guest its addresses: DHCPv4, DHCPv6 and router advertisements, as a function from frame to frame.
//!
//! ```
//! use std::net::Ipv4Addr;
//! use rvm_dhcp::{Lease, Mac, Responder, V4};
//!
//! let lease = Lease {
//!     v4: Some(V4::new(Ipv4Addr::new(10, 0, 2, 1), Ipv4Addr::new(10, 0, 2, 2), 24)),
//!     ..Lease::new(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]), 1500)
//! };
//! let responder = Responder::new(lease)?;
//! assert_eq!(responder.answer(b"whatever a guest sends"), None);
//! # Ok::<(), rvm_dhcp::LeaseError>(())
//! ```

pub mod frame;
mod lease;
mod names;
mod router;
mod v4;
mod v6;

use std::time::Duration;

pub use frame::Mac;
pub use lease::{Lease, LeaseError, Route, V4, V6, link_local};

use frame::Packet;

/// How often an unsolicited router advertisement is to be sent.
pub const ADVERTISE_EVERY: Duration = Duration::from_secs(600);

/// Answers one guest.
#[derive(Debug)]
pub struct Responder {
    lease: Lease,
}

impl Responder {
    /// A responder that gives this lease, once it was seen to fit what the protocols can say.
    pub fn new(lease: Lease) -> Result<Self, LeaseError> {
        lease.check()?;
        Ok(Self { lease })
    }

    /// What is to be sent back for a frame of the guest, if anything.
    pub fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let (link, packet) = frame::parse(frame)?;
        if link.from != self.lease.mac {
            return None;
        }
        match packet {
            Packet::Udp4(udp) => v4::answer(&self.lease, self.lease.v4.as_ref()?, &udp),
            Packet::Udp6(udp) => v6::answer(&self.lease, self.lease.v6.as_ref()?, &udp),
            Packet::Icmp6(icmp) => router::answer(&self.lease, self.lease.v6.as_ref()?, &icmp),
        }
    }

    /// A router advertisement that nobody asked for, to all on the link; none without IPv6.
    pub fn advertisement(&self) -> Option<Vec<u8>> {
        let v6 = self.lease.v6.as_ref()?;
        Some(router::to_all(&self.lease, v6))
    }
}
