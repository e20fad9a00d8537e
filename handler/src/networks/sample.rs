//! Plans for this folder's own tests.

use super::model::{Addressing, Binding, MASQUERADE, Plan};

/// The address of the pod, and of a bridged guest.
const POD: Addressing = Addressing {
    v4: std::net::Ipv4Addr::new(10, 244, 0, 7),
    v4_prefix: 24,
    v4_gateway: std::net::Ipv4Addr::new(10, 244, 0, 1),
    v6: std::net::Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 7),
    v6_prefix: 64,
    v6_gateway: std::net::Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 1),
};

/// A guest behind its pod's address.
pub fn masquerade() -> Plan {
    Plan {
        network: "default".to_owned(),
        binding: Binding::Masquerade,
        mac: "02:11:22:33:44:55".parse().unwrap(),
        queues: 1,
        mtu: 1500,
        pod: POD,
        guest: MASQUERADE,
        dns: vec![],
        search: vec![],
        hostname: "vm".to_owned(),
        ports: vec![],
    }
}

/// A guest with its pod's address.
pub fn bridge() -> Plan {
    Plan {
        binding: Binding::Bridge,
        guest: POD,
        ..masquerade()
    }
}
