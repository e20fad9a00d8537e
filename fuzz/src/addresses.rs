//! What a guest says to those who tell it its addresses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use rvm_dhcp::frame::{self, Link};
use rvm_dhcp::{Lease, Mac, Responder, Route, V4, V6, link_local};

const GUEST: Mac = Mac([2, 0, 0, 0, 0, 2]);
const SERVER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const LONGEST_FRAME: usize = 1514;

fn responder() -> Responder {
    let mut v4 = V4::new(Ipv4Addr::new(10, 0, 2, 1), Ipv4Addr::new(10, 0, 2, 2), 24);
    v4.dns = vec![Ipv4Addr::new(10, 0, 2, 3); 8];
    v4.routes = vec![
        Route {
            network: Ipv4Addr::new(10, 9, 0, 0),
            prefix: 16,
            by: Ipv4Addr::new(10, 0, 2, 1),
        };
        16
    ];
    let mut v6 = V6::new(
        link_local(SERVER),
        Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 2),
        120,
    );
    v6.dns = vec![Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 3); 8];
    let lease = Lease {
        hostname: Some("vm".to_owned()),
        search: vec!["svc.cluster.local".to_owned(); 20],
        v4: Some(v4),
        v6: Some(v6),
        ..Lease::new(GUEST, SERVER, 1500)
    };
    Responder::new(lease).expect("the lease is within its bounds")
}

/// The first byte says how much of the frame is good already; an answer is the guest's, and fits its link.
pub fn frames(script: &[u8]) {
    let Some((how, rest)) = script.split_first() else {
        return;
    };
    let link = Link {
        from: GUEST,
        to: Mac::BROADCAST,
    };
    let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let frame = match how % 4 {
        0 => Some(rest.to_vec()),
        1 => frame::udp4(
            link,
            SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
            SocketAddrV4::new(Ipv4Addr::BROADCAST, 67),
            &discover(rest),
        ),
        2 => frame::udp6(
            link,
            SocketAddrV6::new(link_local(GUEST), 546, 0, 0),
            SocketAddrV6::new(servers, 547, 0, 0),
            rest,
        ),
        _ => frame::icmp6(link, link_local(GUEST), servers, rest),
    };
    if let Some(answer) = frame.and_then(|frame| responder().answer(&frame)) {
        let (link, _) = frame::parse(&answer).expect("what we send, we read");
        assert!(link.from == SERVER && (link.to == GUEST || link.to.0[0] & 1 == 1));
        assert!(answer.len() <= LONGEST_FRAME);
    }
}

/// A client's head, which the script's options follow.
fn discover(options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&GUEST.0);
    message.extend_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(options);
    message
}
