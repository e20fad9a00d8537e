//! A guest's network in its pod: the cluster's network plugin has made the pod's half, and the guest's is made here, by whoever may.
//!
//! ```text
//!   masquerade   the cluster's network ── eth0 [the pod's namespace: rules] tap0 ── guest 10.0.2.2
//!   bridge       the cluster's network ── eth0 ── br0 ── tap0 ── guest, which has eth0's addresses from now on
//! ```
//!
//! What a bridge takes from the pod's link is written down before it is taken (`net.json`): whoever tries again, or comes after this
//! process, goes by that.
//!
//! The tap is given to the pod's user: rvmm takes hold of it by its name, for which it needs no right. DHCP is answered by this
//! process; the socket is opened again by whoever comes after it, as is whatever else is seen to of a machine that lives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::fs::OFlags;
use rvmm_spec::{MacAddress, ParseNetError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::files::USER;
use crate::networks::door::Door;
use crate::networks::model::{
    Addressing, Binding, MASQUERADE, MTU, POD_BRIDGE, POD_LINK, Plan, TAP, TAP_MAC,
};
use crate::networks::namespace::{self, Namespace};
use crate::networks::netlink::Netlink;
use crate::networks::node::{self, BuildError};
use crate::networks::wish::NetworkWish;
use crate::networks::{nft, rules, tap};

/// Longest `resolv.conf` of a pod that is read.
const MAX_RESOLV: u64 = 16 << 10;
/// Most name servers and domains that a guest is told, as the resolver of C libraries takes.
const MAX_SERVERS: usize = 3;
const MAX_DOMAINS: usize = 32;
/// The hardware address of the pod's link once its own is the guest's: nothing ever comes from it.
const LINK_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x03];

/// The guest's network in a pod cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    /// Its namespace.
    #[error("the pod's network is not to be had")]
    Namespace(#[source] io::Error),
    /// A pod on the node's own network.
    #[error("the pod is on its node's network, where nothing is changed")]
    Nodes,
    /// The cluster's network plugin.
    #[error("the pod has no IPv4 address, which its guest's network needs")]
    NoAddress,
    /// The cluster's network plugin gives each pod a network of its own.
    #[error(
        "the pod's IPv4 network /{0} has no router in it, so that a guest with the pod's address would find no way out: use masquerade"
    )]
    NoRouter(u8),
    /// Its link.
    #[error("the pod's link has no hardware address that a guest could have")]
    Mac(#[from] ParseNetError),
    /// What is made there.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// No thread.
    #[error("the pod's network cannot be worked in")]
    Thread,
}

/// Answers to guests' DHCP, by the machines' UIDs.
#[derive(Debug, Clone, Default)]
pub struct Doors(Arc<Mutex<BTreeMap<String, Option<AbortHandle>>>>);

// === impl Doors ===

impl Doors {
    /// Whether somebody else is to open this one's; whoever hears no is expected to.
    pub fn has(&self, uid: &str) -> bool {
        let mut doors = self.lock();
        let has = doors.contains_key(uid);
        if !has {
            doors.insert(uid.to_owned(), None);
        }
        has
    }

    /// Answers a guest from now on. To be called inside a runtime.
    pub fn open(&self, uid: &str, door: Door) -> io::Result<()> {
        #[expect(unsafe_code, reason = "tokio asks for it")]
        // SAFETY: the descriptor is owned, and nobody closes or replaces it before the AsyncFd that has it is gone.
        let ready = unsafe { AsyncFd::register_with_interest(door.descriptor()?, Interest::READABLE) }?;
        let task = tokio::spawn(async move {
            // An error is that of a namespace that is gone, and its guest with it.
            while let Ok(mut guard) = ready.readable().await {
                door.answer();
                guard.clear_ready();
            }
        });
        if let Some(before) = self
            .lock()
            .insert(uid.to_owned(), Some(task.abort_handle()))
            .flatten()
        {
            before.abort();
        }
        Ok(())
    }

    /// The machine is over.
    pub fn close(&self, uid: &str) {
        if let Some(door) = self.lock().remove(uid).flatten() {
            door.abort();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Option<AbortHandle>>> {
        // Every entry is whole, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The plan of a guest's network in the pod of this process, which has these addresses.
///
/// # Errors
/// The pod has no address.
pub fn plan(wish: &NetworkWish, addresses: &[IpAddr], process: u32) -> Result<Plan, PodNetworkError> {
    let v4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|address| match address {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    });
    let (dns, search) = resolver(&read_resolv(process).map_err(PodNetworkError::Namespace)?);
    // Of the pod's half only its addresses matter: the rest is the plugin's.
    let pod = Addressing {
        v4: v4.ok_or(PodNetworkError::NoAddress)?,
        v4_prefix: 32,
        v4_gateway: Ipv4Addr::UNSPECIFIED,
        v6: v6.unwrap_or(Ipv6Addr::UNSPECIFIED),
        v6_prefix: 128,
        v6_gateway: Ipv6Addr::UNSPECIFIED,
    };
    let taken = match wish.binding {
        Binding::Masquerade => None,
        Binding::Bridge => Some(within(of_process(process)?, take)?),
    };
    let (pod, mac, mtu) = match taken {
        None => (pod, wish.mac, MTU),
        Some(Taken { link, mac, mtu }) => (link?, if wish.own_mac { wish.mac } else { mac? }, mtu),
    };
    Ok(Plan {
        network: wish.network.clone(),
        binding: wish.binding,
        mac,
        queues: wish.queues,
        mtu,
        pod,
        guest: match wish.binding {
            Binding::Masquerade => MASQUERADE,
            Binding::Bridge => pod,
        },
        dns,
        search,
        hostname: wish.hostname.clone(),
        ports: wish.ports.clone(),
    })
}

/// What a guest takes from the pod's link.
struct Taken {
    link: Result<Addressing, PodNetworkError>,
    mac: Result<MacAddress, ParseNetError>,
    mtu: u16,
}

/// Looks at what there is to take, in the namespace that this thread is in. Of IPv6 it is nothing: no router would tell the guest.
fn take() -> Result<Taken, BuildError> {
    let mut netlink = Netlink::open()?;
    let outer = netlink.index(POD_LINK)?;
    let address = netlink
        .addresses(outer)?
        .into_iter()
        .find_map(|(address, prefix)| match address {
            IpAddr::V4(v4) => Some((v4, prefix)),
            IpAddr::V6(_) => None,
        });
    let router = netlink.router(outer)?;
    Ok(Taken {
        link: on_link(address, router),
        mac: MacAddress::try_from(netlink.mac(outer)?),
        mtu: netlink.mtu(outer)?.min(MTU),
    })
}

/// An address with the router of its network.
fn on_link(address: Option<(Ipv4Addr, u8)>, router: Option<Ipv4Addr>) -> Result<Addressing, PodNetworkError> {
    let (v4, v4_prefix) = address.ok_or(PodNetworkError::NoAddress)?;
    let of_network =
        |address: Ipv4Addr| u64::from(u32::from(address)) >> 32_u32.saturating_sub(v4_prefix.into());
    let router = router.filter(|router| of_network(*router) == of_network(v4));
    Ok(Addressing {
        v4,
        v4_prefix,
        v4_gateway: router.ok_or(PodNetworkError::NoRouter(v4_prefix))?,
        v6: Ipv6Addr::UNSPECIFIED,
        v6_prefix: 128,
        v6_gateway: Ipv6Addr::UNSPECIFIED,
    })
}

/// Makes the guest's half in the pod of this process, in place of what an earlier try has made; the plan is told the pod's largest
/// packet. Blocks.
///
/// # Errors
/// [`PodNetworkError`].
pub fn furnish(plan: &mut Plan, process: u32) -> Result<Door, PodNetworkError> {
    let namespace = of_process(process)?;
    if plan.binding == Binding::Bridge {
        return within(namespace, || bridged(plan));
    }
    let (door, mtu) = within(namespace, || {
        let mut netlink = Netlink::open()?;
        netlink.remove(TAP)?;
        let outer = netlink.index(POD_LINK)?;
        let mut plan = plan.clone();
        plan.mtu = netlink.mtu(outer)?.min(MTU);
        if plan.has_v6() {
            node::forward()?;
        } else {
            namespace::set("ipv4/ip_forward", "1")?;
        }
        nft::apply(&rules::ruleset(&plan))?;
        tap::make(TAP, plan.queues, Some(USER))?;
        let inner = netlink.index(TAP)?;
        netlink.switch_on(inner, Some(TAP_MAC), Some(plan.mtu))?;
        let guest = &plan.guest;
        netlink.add_address(inner, guest.v4_gateway.into(), guest.v4_prefix)?;
        if plan.has_v6() {
            netlink.add_address(inner, guest.v6_gateway.into(), guest.v6_prefix)?;
        }
        let door = Door::open(&plan, inner).map_err(BuildError::Door)?;
        Ok((door, plan.mtu))
    })?;
    plan.mtu = mtu;
    Ok(door)
}

/// Has the guest take the place of the pod's link, in the namespace that this thread is in.
fn bridged(plan: &Plan) -> Result<Door, BuildError> {
    let mut netlink = Netlink::open()?;
    netlink.remove(TAP)?;
    netlink.remove(POD_BRIDGE)?;
    let outer = netlink.index(POD_LINK)?;
    // Nothing is told to a guest's frames before there are rules, and nobody holds the tap.
    nft::apply(&rules::ruleset(plan))?;
    // No link here has anything to say of its own: pods beside this one have bridges of the same addresses.
    if node::has_v6() {
        namespace::set("ipv6/conf/all/disable_ipv6", "1")?;
    }
    for (address, prefix) in netlink.addresses(outer)? {
        netlink.remove_address(outer, address, prefix)?;
    }
    // A bridge keeps for itself what is for the address of one of its ports, and that one is the guest's now.
    if netlink.mac(outer)? == plan.mac.octets() {
        netlink.switch_on(outer, Some(LINK_MAC), None)?;
    }
    tap::make(TAP, plan.queues, Some(USER))?;
    let inner = netlink.index(TAP)?;
    netlink.switch_on(inner, Some(TAP_MAC), Some(plan.mtu))?;
    let bridge = netlink.add_bridge(POD_BRIDGE, None, plan.mtu)?;
    netlink.plug(outer, bridge)?;
    netlink.plug(inner, bridge)?;
    Door::open(plan, inner).map_err(BuildError::Door)
}

/// Answers a guest's DHCP again, in the pod of this process. Blocks.
///
/// # Errors
/// [`PodNetworkError`].
pub fn reopen(plan: &Plan, process: u32) -> Result<Door, PodNetworkError> {
    within(of_process(process)?, || {
        let tap = Netlink::open()?.index(TAP)?;
        Door::open(plan, tap).map_err(BuildError::Door)
    })
}

/// The network of a pod's process. Ours is nobody's pod's: a tap or rules in it would be the whole node's.
fn of_process(process: u32) -> Result<Namespace, PodNetworkError> {
    let open = |path: String| File::open(path).map_err(PodNetworkError::Namespace);
    let theirs = open(format!("/proc/{process}/ns/net"))?;
    let identity = |file: &File| {
        let metadata = file.metadata().map_err(PodNetworkError::Namespace)?;
        Ok::<_, PodNetworkError>((metadata.dev(), metadata.ino()))
    };
    let theirs_is = identity(&theirs)?;
    let own = identity(&open("/proc/thread-self/ns/net".to_owned())?)?;
    // The node's, where we are in another; whoever may not look at its first process cannot have been put there.
    let first = File::open("/proc/1/ns/net").ok();
    let first = first.map(|first| identity(&first)).transpose()?;
    if own == theirs_is || first == Some(theirs_is) {
        return Err(PodNetworkError::Nodes);
    }
    Ok(Namespace::from(theirs))
}

/// Does something in another namespace, in a thread that goes with it.
fn within<T: Send>(
    namespace: Namespace,
    act: impl FnOnce() -> Result<T, BuildError> + Send,
) -> Result<T, PodNetworkError> {
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            namespace.enter()?;
            act()
        });
        let done = inside.join().map_err(|_| PodNetworkError::Thread)?;
        Ok(done?)
    })
}

/// How names are found in the pod, as the kubelet has written it there.
fn read_resolv(process: u32) -> io::Result<String> {
    let mut options = File::options();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = match options.open(format!("/proc/{process}/root/etc/resolv.conf")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let mut text = Vec::new();
    file.take(MAX_RESOLV).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Name servers and domains of a `resolv.conf`.
fn resolver(text: &str) -> (Vec<IpAddr>, Vec<String>) {
    let (mut servers, mut domains) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
            // The last one counts.
            Some("search") => domains = words.take(MAX_DOMAINS).map(str::to_owned).collect(),
            _ => {}
        }
    }
    servers.truncate(MAX_SERVERS);
    (servers, domains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_asks_whom_its_pod_asks() {
        let text = "search default.svc.cluster.local cluster.local\n# no\nnameserver 10.96.0.10\nnameserver x\noptions ndots:5\n";
        let (servers, domains) = resolver(text);
        assert_eq!(servers, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(domains, ["default.svc.cluster.local", "cluster.local"]);
        assert_eq!(resolver(""), (vec![], vec![]));
    }

    #[test]
    fn nothing_is_made_in_the_nodes_own_network() {
        let own = of_process(std::process::id());
        assert!(matches!(own, Err(PodNetworkError::Nodes)), "{own:?}");
    }

    #[test]
    fn a_guest_with_the_pods_address_needs_a_router_in_its_network() {
        let of = |address: &str, prefix, router: &str| {
            let address = address.parse().ok().map(|address| (address, prefix));
            on_link(address, router.parse().ok()).map_err(|error| error.to_string())
        };
        let found = of("10.1.2.3", 24, "10.1.2.1").unwrap();
        assert_eq!(
            (found.v4_prefix, found.v4_gateway),
            (24, Ipv4Addr::new(10, 1, 2, 1))
        );
        for (prefix, router) in [(32, "169.254.1.1"), (24, "10.1.3.1"), (24, "")] {
            assert!(
                of("10.1.2.3", prefix, router)
                    .unwrap_err()
                    .ends_with("use masquerade")
            );
        }
        assert!(of("10.1.2.3", 0, "192.0.2.1").is_ok());
        assert!(of("", 24, "10.1.2.1").unwrap_err().contains("no IPv4 address"));
    }

    #[test]
    fn a_door_is_opened_by_one() {
        let doors = Doors::default();
        assert!(!doors.has("a") && doors.has("a"));
        doors.close("a");
        assert!(!doors.has("a"));
    }
}
