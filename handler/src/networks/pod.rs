//! One machine's network: its namespace, in which its tap is, joined to the node's.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::door::Door;
use super::model::{Addressing, Binding, POD_BRIDGE, POD_LINK, Plan, Protocol, TAP, TAP_MAC};
use super::namespace::{self, Namespace, NamespaceError};
use super::netlink::{Index, Netlink};
use super::nft;
use super::node::{self, BuildError, Node};
use super::policy::{self, Isolation};
use super::rules;
use super::tap;

/// The network of a machine.
#[derive(Debug)]
pub struct Pod {
    plan: Plan,
    namespace: Namespace,
    /// Its link to the node, at the node's end.
    link: String,
    /// What tells the guest its addresses.
    door: Door,
    /// The rules of policies that it is kept to.
    policy: String,
}

// === impl Pod ===

impl Pod {
    /// Makes what is planned. This thread is in the node's namespace again then.
    ///
    /// # Errors
    /// [`BuildError`]; nothing is left then.
    pub fn build(plan: &Plan, node: &mut Node) -> Result<Self, BuildError> {
        let [_, _, third, fourth] = plan.pod.v4.octets();
        let link = format!("pod{third}.{fourth}");
        // A former one may still be about to go.
        node.remove(&link)?;
        let pod = away(node, |node| {
            let namespace = Namespace::enter_new()?;
            let tap = furnish(plan, node, &link)?;
            Ok(Self {
                plan: plan.clone(),
                namespace,
                link: link.clone(),
                door: Door::open(plan, tap).map_err(BuildError::Door)?,
                policy: policy::ruleset(plan, &Isolation::default()),
            })
        })?;
        node.plug(&link)?;
        Ok(pod)
    }

    /// What it was made from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where its tap is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where the guest's questions come in.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Keeps it to the rules of policies, which replace those that it was kept to.
    ///
    /// # Errors
    /// [`BuildError`]; the former rules hold then.
    pub fn isolate(&mut self, node: &mut Node, rules: String) -> Result<(), BuildError> {
        if rules == self.policy {
            return Ok(());
        }
        away(node, |_| {
            self.namespace.enter()?;
            if self.plan.binding == Binding::Bridge {
                namespace::filter_bridges()?;
            }
            Ok(nft::apply(&rules)?)
        })?;
        self.policy = rules;
        Ok(())
    }

    /// Begins to connect to a port of the guest: whether it listens is known when the socket can be written to.
    ///
    /// # Errors
    /// There is no way to the guest.
    pub fn dial(&self, node: &mut Node, protocol: Protocol, port: u16) -> Result<OwnedFd, BuildError> {
        let to = SocketAddr::from((self.plan.guest.v4, port));
        match self.plan.binding {
            // From the pod's own end, so that no rule of what is let in stands in the way.
            Binding::Masquerade => away(node, |_| {
                self.namespace.enter()?;
                connect(protocol, to).map_err(BuildError::Door)
            }),
            Binding::Bridge => connect(protocol, to).map_err(BuildError::Door),
        }
    }

    /// Takes it down, whoever still holds its namespace.
    ///
    /// # Errors
    /// [`BuildError::Netlink`].
    pub fn remove(self, node: &mut Node) -> Result<(), BuildError> {
        Ok(node.remove(&self.link)?)
    }
}

/// Does something in another namespace, and comes back to the node's.
fn away<T>(node: &mut Node, act: impl FnOnce(&Node) -> Result<T, BuildError>) -> Result<T, BuildError> {
    let done = act(node);
    let back: Result<(), NamespaceError> = node.namespace().enter();
    back?;
    done
}

/// Links, addresses and rules of the namespace that this thread is in. The guest's tap is told. Nothing can pass before all of it is
/// there: the node's end of the link is not switched on yet, and nobody holds the tap.
fn furnish(plan: &Plan, node: &Node, link: &str) -> Result<Index, BuildError> {
    // nft only knows the links by their names, so they may come meanwhile.
    let rules = nft::begin(&rules::ruleset(plan))?;
    let tap = links(plan, node, link);
    rules.finish()?;
    tap
}

/// Links and addresses of the namespace that this thread is in. The guest's tap is told.
fn links(plan: &Plan, node: &Node, link: &str) -> Result<Index, BuildError> {
    node::forward()?;
    let mut netlink = Netlink::open()?;
    let loopback = netlink.index("lo")?;
    netlink.switch_on(loopback, None, None)?;
    let outer = netlink.add_veth(POD_LINK, plan.mtu, link, node.namespace().as_fd())?;
    tap::make(TAP, plan.queues, None)?;
    let inner = netlink.index(TAP)?;
    netlink.switch_on(inner, Some(TAP_MAC), Some(plan.mtu))?;
    if plan.binding == Binding::Bridge {
        let bridge = netlink.add_bridge(POD_BRIDGE, None, plan.mtu)?;
        netlink.plug(outer, bridge)?;
        netlink.plug(inner, bridge)?;
        return Ok(inner);
    }
    let Addressing { v4, v6, .. } = plan.pod;
    let addresses = [(v4.into(), plan.pod.v4_prefix), (v6.into(), plan.pod.v6_prefix)];
    for (address, prefix) in node::usable(addresses) {
        netlink.add_address(outer, address, prefix)?;
    }
    let gateways: [(IpAddr, u8); 2] = [
        (plan.guest.v4_gateway.into(), plan.guest.v4_prefix),
        (plan.guest.v6_gateway.into(), plan.guest.v6_prefix),
    ];
    for (address, prefix) in node::usable(gateways) {
        netlink.add_address(inner, address, prefix)?;
    }
    let routers: [(IpAddr, u8); 2] = [(plan.pod.v4_gateway.into(), 0), (plan.pod.v6_gateway.into(), 0)];
    for (router, _) in node::usable(routers) {
        netlink.add_default_route(router)?;
    }
    Ok(inner)
}

pub(super) fn connect(protocol: Protocol, to: SocketAddr) -> std::io::Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}
