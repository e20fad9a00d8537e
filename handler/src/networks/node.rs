//! The node's network: a namespace with a bridge on which all pods are, and pasta's link, which leads outside.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::model::MTU;
use super::namespace::{self, Namespace, NamespaceError};
use super::netlink::{Index, Netlink, NetlinkError};
use super::nft::{self, NftError};
use super::range::Range;

/// The bridge.
const BRIDGE: &str = "pods";

/// Its hardware address, which is the pods' router.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// Pasta's link.
pub const OUTSIDE: &str = "outside";

/// The network of a node.
#[derive(Debug)]
pub struct Node {
    namespace: Namespace,
    user: Option<OwnedFd>,
    netlink: Netlink,
    bridge: Index,
}

/// A network cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Its links.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Its rules.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The guest's end.
    #[error(transparent)]
    Tap(#[from] super::tap::TapError),
    /// What answers the guest.
    #[error("nobody can answer the guest's DHCP")]
    Door(#[source] std::io::Error),
}

// === impl Node ===

impl Node {
    /// Makes the network, and has this thread be in it; without root in a user namespace of this user's own.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(range: Range) -> Result<Self, BuildError> {
        let root = rustix::process::geteuid().is_root();
        let user = (!root).then(namespace::become_own_root).transpose()?;
        let namespace = Namespace::enter_new()?;
        forward()?;
        let mut netlink = Netlink::open()?;
        let loopback = netlink.index("lo")?;
        netlink.switch_on(loopback, None, None)?;
        let bridge = netlink.add_bridge(BRIDGE, Some(ROUTER_MAC), MTU)?;
        netlink.add_address(bridge, range.router_v4().into(), range.prefix())?;
        if has_v6() {
            netlink.add_address(bridge, range.router_v6().into(), Range::V6_PREFIX)?;
        }
        nft::apply(&rules())?;
        Ok(Self {
            namespace,
            user,
            netlink,
            bridge,
        })
    }

    /// Where it is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The user namespace that it belongs to, if that is not the host's.
    pub fn user(&self) -> Option<&OwnedFd> {
        self.user.as_ref()
    }

    /// Switches a link of this namespace on, and connects it to all others.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn plug(&mut self, link: &str) -> Result<(), NetlinkError> {
        let index = self.netlink.index(link)?;
        self.netlink.plug(index, self.bridge)?;
        self.netlink.switch_on(index, None, None)
    }

    /// Removes a link, and so its other end, if it is there.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn remove(&mut self, link: &str) -> Result<(), NetlinkError> {
        self.netlink.remove(link)
    }
}

/// Has the namespace that this thread is in pass packets on, and its addresses be there at once.
///
/// # Errors
/// [`NamespaceError::Setting`].
pub fn forward() -> Result<(), NamespaceError> {
    namespace::set("ipv4/ip_forward", "1")?;
    if !has_v6() {
        return Ok(());
    }
    // Before there is any link: they begin with these.
    namespace::set("ipv6/conf/default/disable_ipv6", "0")?;
    namespace::set("ipv6/conf/default/accept_ra", "0")?;
    namespace::set("ipv6/conf/default/accept_dad", "0")?;
    namespace::set("ipv6/conf/all/forwarding", "1")
}

/// Whether the host's kernel has IPv6.
pub fn has_v6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// An address with its gateway, of those that the kernel can use.
pub fn usable<const N: usize>(addresses: [(IpAddr, u8); N]) -> impl Iterator<Item = (IpAddr, u8)> {
    addresses
        .into_iter()
        .filter(|(address, _)| address.is_ipv4() || has_v6())
}

fn rules() -> String {
    format!(
        "table inet rvm {{ chain out {{ type nat hook postrouting priority srcnat; policy accept; \
         oifname \"{OUTSIDE}\" masquerade; }}; }}"
    )
}
