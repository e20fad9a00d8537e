//! A guest's half of the conversation: its messages in frames, and what came back as another codec reads it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use rvm_dhcp::frame::{self, Link, Packet};
use rvm_dhcp::{Lease, Mac, Responder, Route, V4, V6, link_local};

pub const GUEST: Mac = Mac([0x02, 0xaa, 0, 0, 0, 2]);
pub const SERVER: Mac = Mac([0x02, 0xbb, 0, 0, 0, 1]);
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 2);

/// A lease with everything in it.
pub fn lease() -> Lease {
    let mut v4 = V4::new(GATEWAY, ADDRESS, 24);
    v4.dns = vec![Ipv4Addr::new(10, 0, 2, 3)];
    v4.ntp = vec![Ipv4Addr::new(10, 0, 2, 4)];
    v4.routes = vec![Route {
        network: Ipv4Addr::new(192, 168, 8, 0),
        prefix: 22,
        by: Ipv4Addr::new(10, 0, 2, 9),
    }];
    v4.private = vec![(240, "ours".to_owned())];
    v4.boot_file = Some("boot.efi".to_owned());
    let mut v6 = V6::new(link_local(SERVER), ADDRESS6, 120);
    v6.dns = vec!["fd10:0:2::3".parse().unwrap()];
    Lease {
        hostname: Some("vm".to_owned()),
        search: ["default.svc.cluster.local", "cluster.local"]
            .map(str::to_owned)
            .to_vec(),
        v4: Some(v4),
        v6: Some(v6),
        ..Lease::new(GUEST, SERVER, 1400)
    }
}

pub fn responder() -> Responder {
    Responder::new(lease()).unwrap()
}

/// A guest's DHCPv4 message in its frame.
pub fn over4(payload: &[u8]) -> Vec<u8> {
    let link = Link {
        from: GUEST,
        to: Mac::BROADCAST,
    };
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    frame::udp4(link, from, SocketAddrV4::new(Ipv4Addr::BROADCAST, 67), payload).unwrap()
}

/// A guest's DHCPv6 message in its frame.
pub fn over6(payload: &[u8]) -> Vec<u8> {
    let servers: Ipv6Addr = "ff02::1:2".parse().unwrap();
    let link = Link {
        from: GUEST,
        to: Mac::multicast(servers),
    };
    let from = SocketAddrV6::new(link_local(GUEST), 546, 0, 0);
    frame::udp6(link, from, SocketAddrV6::new(servers, 547, 0, 0), payload).unwrap()
}

/// A guest's router solicitation.
pub fn solicitation(from: Ipv6Addr) -> Vec<u8> {
    let routers: Ipv6Addr = "ff02::2".parse().unwrap();
    let link = Link {
        from: GUEST,
        to: Mac::multicast(routers),
    };
    frame::icmp6(link, from, routers, &[133, 0, 0, 0, 0, 0, 0, 0]).unwrap()
}

/// What is in an answer.
pub fn payload(frame: &[u8]) -> Vec<u8> {
    match frame::parse(frame).unwrap().1 {
        Packet::Udp4(udp) => udp.payload.to_vec(),
        Packet::Udp6(udp) => udp.payload.to_vec(),
        Packet::Icmp6(icmp) => icmp.payload.to_vec(),
    }
}
