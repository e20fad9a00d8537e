//! What a machine's network is to be: decided once, kept as `net.json` in its run directory, and all that DHCP, rules and the
//! namespace's links are made from.
//!
//! ```text
//!   node's network 10.244.0.0/24 ──veth── eth0 [pod namespace] tap0 ── guest
//!                                     Plan::pod              Plan::guest
//! ```
//!
//! A VMI has one interface at most, on the pod's network: others are refused before a plan is made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rvm_types::status::InterfaceStatus;
use rvmm_spec::MacAddress;
use serde::{Deserialize, Serialize};

/// One machine's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// The name of the VMI's network, which its interface bears too.
    pub network: String,
    /// How the pod's network reaches the guest.
    pub binding: Binding,
    /// The guest's hardware address.
    #[serde(with = "mac")]
    pub mac: MacAddress,
    /// Pairs of queues.
    pub queues: u8,
    /// The largest packet on all of the way.
    pub mtu: u16,
    /// By which others reach it.
    pub pod: Addressing,
    /// What DHCP gives the guest: the same as [`Plan::pod`], but behind a masquerade.
    pub guest: Addressing,
    /// What answers the guest's DNS queries.
    pub dns: Vec<IpAddr>,
    /// The domains in which the guest looks names up.
    pub search: Vec<String>,
    /// The guest's name.
    pub hostname: String,
    /// What is let in to the guest; everything where none is given. Of a masquerade only.
    pub ports: Vec<Port>,
}

// === impl Plan ===

impl Plan {
    /// Whether the pod can be reached by IPv6; a cluster's need not be.
    pub fn has_v6(&self) -> bool {
        !self.pod.v6.is_unspecified()
    }

    /// What is told of it: others reach the guest by the pod's addresses, whichever it has itself.
    pub fn status(&self) -> InterfaceStatus {
        let mut addresses = vec![self.pod.v4.to_string()];
        addresses.extend(self.has_v6().then(|| self.pod.v6.to_string()));
        InterfaceStatus {
            name: Some(self.network.clone()),
            ip_address: addresses.first().cloned(),
            ip_addresses: addresses,
            mac: Some(self.mac.to_string()),
            pod_interface_name: Some(POD_LINK.to_owned()),
            queue_count: Some(self.queues.into()),
            link_state: Some("up".to_owned()),
            info_source: Some("domain".to_owned()),
            ..InterfaceStatus::default()
        }
    }
}

/// How the pod's network reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Binding {
    /// The guest has an address of its own, behind the pod's by translation.
    Masquerade,
    /// The guest has the pod's address; the namespace only switches frames.
    Bridge,
}

/// The addresses of one end, and what is the way out from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Addressing {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// How many bits of that are its network's.
    pub v4_prefix: u8,
    /// Its router.
    pub v4_gateway: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// How many bits of that are its network's.
    pub v6_prefix: u8,
    /// Its router.
    pub v6_gateway: Ipv6Addr,
}

/// A port that is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// Of which protocol.
    pub protocol: Protocol,
    /// Its number, never 0.
    pub port: u16,
}

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The guest's side of a masquerade: KubeVirt's addresses, the same in each machine.
pub const MASQUERADE: Addressing = Addressing {
    v4: Ipv4Addr::new(10, 0, 2, 2),
    v4_prefix: 24,
    v4_gateway: Ipv4Addr::new(10, 0, 2, 1),
    v6: Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 2),
    v6_prefix: 120,
    v6_gateway: Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 1),
};

/// The largest packet between pods, and so of the guest.
pub const MTU: u16 = 1500;

/// The pod's end of the veth.
pub const POD_LINK: &str = "eth0";

/// The guest's tap. Behind a masquerade it bears the guest's gateway; else it and [`POD_LINK`] are ports of [`POD_BRIDGE`].
pub const TAP: &str = "tap0";

/// The bridge of the binding of this name, within the pod's namespace.
pub const POD_BRIDGE: &str = "br0";

/// The hardware address of [`TAP`], which is the guest's router behind a masquerade and its DHCP server always.
pub const TAP_MAC: [u8; 6] = [0x02, 0x00, 0x00, 0x00, 0x00, 0x01];

/// A hardware address as text.
mod mac {
    use rvmm_spec::MacAddress;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(mac: &MacAddress, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<MacAddress, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_back_as_it_was_written() {
        let plan = Plan {
            network: "default".to_owned(),
            binding: Binding::Masquerade,
            mac: "02:11:22:33:44:55".parse().unwrap(),
            queues: 1,
            mtu: 1500,
            pod: Addressing {
                v4: Ipv4Addr::new(10, 244, 0, 7),
                ..MASQUERADE
            },
            guest: MASQUERADE,
            dns: vec!["169.254.1.53".parse().unwrap()],
            search: vec!["example.org".to_owned()],
            hostname: "vm".to_owned(),
            ports: vec![Port {
                protocol: Protocol::Udp,
                port: 53,
            }],
        };
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    }
}
