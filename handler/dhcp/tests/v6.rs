//! Conversations over DHCPv6 and with the router, read by another codec.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses the half of its protocol")]
mod guest;

use std::net::Ipv6Addr;

use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, Message, MessageType, OptionCode, Status, StatusCode,
};
use dhcproto::{Decodable, Decoder, Encodable};
use guest::{ADDRESS6, GUEST, SERVER, lease, over6, payload, responder, solicitation};
use rvm_dhcp::{Lease, Responder, frame, link_local};

fn client() -> DhcpOption {
    DhcpOption::ClientId(vec![0, 3, 0, 1, 2, 0xaa, 0, 0, 0, 2])
}

fn server() -> DhcpOption {
    DhcpOption::ServerId([&[0, 3, 0, 1], SERVER.0.as_slice()].concat())
}

fn association(id: u32, addresses: &[Ipv6Addr]) -> DhcpOption {
    let address = |addr: &Ipv6Addr| {
        DhcpOption::IAAddr(IAAddr {
            addr: *addr,
            preferred_life: 1,
            valid_life: 2,
            opts: DhcpOptions::new(),
        })
    };
    DhcpOption::IANA(IANA {
        id,
        t1: 0,
        t2: 0,
        opts: addresses.iter().map(address).collect(),
    })
}

fn say(kind: MessageType, options: &[DhcpOption]) -> Option<Message> {
    let mut message = Message::new_with_id(kind, [1, 2, 3]);
    message.set_opts(options.iter().cloned().collect());
    let answer = responder().answer(&over6(&message.to_vec().unwrap()))?;
    Some(Message::decode(&mut Decoder::new(&payload(&answer))).unwrap())
}

/// The addresses of the answer's first association, with the time that each has.
fn given(answer: &Message) -> Vec<(Ipv6Addr, u32)> {
    let Some(DhcpOption::IANA(iana)) = answer.opts().get(OptionCode::IANA) else {
        return Vec::new();
    };
    let addresses = iana.opts.iter().filter_map(|option| match option {
        DhcpOption::IAAddr(address) => Some((address.addr, address.valid_life)),
        _ => None,
    });
    addresses.collect()
}

fn status(options: &DhcpOptions) -> Option<Status> {
    match options.get(OptionCode::StatusCode) {
        Some(DhcpOption::StatusCode(StatusCode { status, .. })) => Some(*status),
        _ => None,
    }
}

#[test]
fn a_guest_is_offered_its_address_and_gets_it() {
    let offer = say(MessageType::Solicit, &[client(), association(7, &[])]).unwrap();
    assert_eq!(
        (offer.msg_type(), offer.xid()),
        (MessageType::Advertise, [1, 2, 3])
    );
    assert_eq!(offer.opts().get(OptionCode::ServerId), Some(&server()));
    assert_eq!(offer.opts().get(OptionCode::ClientId), Some(&client()));
    assert_eq!(given(&offer), [(ADDRESS6, u32::MAX)]);
    let wants = [client(), server(), association(7, &[ADDRESS6])];
    let reply = say(MessageType::Request, &wants).unwrap();
    assert_eq!(reply.msg_type(), MessageType::Reply);
    assert_eq!(given(&reply), [(ADDRESS6, u32::MAX)]);
    let dns = vec!["fd10:0:2::3".parse().unwrap()];
    assert_eq!(
        reply.opts().get(OptionCode::DomainNameServers),
        Some(&DhcpOption::DomainNameServers(dns))
    );
    let Some(DhcpOption::DomainSearchList(search)) = reply.opts().get(OptionCode::DomainSearchList) else {
        unreachable!("it is in the lease")
    };
    assert_eq!(search.len(), 2);
}

#[test]
fn who_is_in_a_hurry_gets_it_at_once() {
    let wants = [client(), DhcpOption::RapidCommit, association(7, &[])];
    let reply = say(MessageType::Solicit, &wants).unwrap();
    assert_eq!(reply.msg_type(), MessageType::Reply);
    assert!(reply.opts().get(OptionCode::RapidCommit).is_some());
    assert_eq!(given(&reply), [(ADDRESS6, u32::MAX)]);
}

#[test]
fn an_address_of_another_network_has_no_time_left() {
    let old: Ipv6Addr = "fd99::9".parse().unwrap();
    let reply = say(MessageType::Rebind, &[client(), association(7, &[old])]).unwrap();
    assert_eq!(given(&reply), [(ADDRESS6, u32::MAX), (old, 0)]);
    let renewed = say(
        MessageType::Renew,
        &[client(), server(), association(7, &[ADDRESS6])],
    );
    assert_eq!(given(&renewed.unwrap()), [(ADDRESS6, u32::MAX)]);
}

#[test]
fn a_guest_that_moved_hears_whether_it_fits() {
    let confirm = |address| say(MessageType::Confirm, &[client(), association(7, &[address])]).unwrap();
    assert_eq!(status(confirm(ADDRESS6).opts()), Some(Status::Success));
    assert_eq!(
        status(confirm(Ipv6Addr::LOCALHOST).opts()),
        Some(Status::NotOnLink)
    );
    assert_eq!(say(MessageType::Confirm, &[client(), association(7, &[])]), None);
}

#[test]
fn there_is_one_address_and_no_prefix() {
    let prefixes = DhcpOption::IAPD(IAPD {
        id: 9,
        t1: 0,
        t2: 0,
        opts: DhcpOptions::new(),
    });
    let wants = [client(), association(1, &[]), association(2, &[]), prefixes];
    let reply = say(MessageType::Solicit, &wants).unwrap();
    let all = reply.opts().get_all(OptionCode::IANA).unwrap();
    let [DhcpOption::IANA(one), DhcpOption::IANA(two)] = all else {
        unreachable!("two were asked for")
    };
    let refused = [status(&one.opts), status(&two.opts)];
    assert!(refused.contains(&None) && refused.contains(&Some(Status::NoAddrsAvail)));
    let Some(DhcpOption::IAPD(prefix)) = reply.opts().get(OptionCode::IAPD) else {
        unreachable!("one was asked for")
    };
    assert_eq!(status(&prefix.opts), Some(Status::NoPrefixAvail));
}

#[test]
fn names_are_told_without_an_address_too() {
    let reply = say(MessageType::InformationRequest, &[]).unwrap();
    assert!(reply.opts().get(OptionCode::DomainNameServers).is_some());
    assert!(reply.opts().get(OptionCode::IANA).is_none());
}

#[test]
fn giving_back_is_acknowledged() {
    let gives = [client(), server(), association(7, &[ADDRESS6])];
    for kind in [MessageType::Release, MessageType::Decline] {
        assert_eq!(status(say(kind, &gives).unwrap().opts()), Some(Status::Success));
    }
}

#[test]
fn what_is_not_for_this_server_is_not_answered() {
    let other = DhcpOption::ServerId(vec![0, 3, 0, 1, 9, 9, 9, 9, 9, 9]);
    assert_eq!(
        say(
            MessageType::Request,
            &[client(), other.clone(), association(7, &[])]
        ),
        None
    );
    assert_eq!(say(MessageType::Request, &[client(), association(7, &[])]), None);
    assert_eq!(say(MessageType::Solicit, &[association(7, &[])]), None);
    assert_eq!(say(MessageType::Solicit, &[client(), server()]), None);
    assert_eq!(say(MessageType::Reply, &[client()]), None);
    let long = DhcpOption::ClientId(vec![1; 131]);
    assert_eq!(say(MessageType::Solicit, &[long, association(7, &[])]), None);
}

/// An advertisement without its checksum.
fn advertised(frame: &[u8]) -> Vec<u8> {
    let mut message = payload(frame);
    message[2..4].fill(0);
    message
}

#[test]
fn a_solicitation_is_answered_with_the_router() {
    let answer = responder().answer(&solicitation(link_local(GUEST))).unwrap();
    assert_eq!(frame::parse(&answer).unwrap().0.to, GUEST);
    let message = advertised(&answer);
    let head = [134, 0, 0, 0, 64, 0xc0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(message[..16], head);
    assert_eq!(message[16..24], [5, 1, 0, 0, 0, 0, 0x05, 0x78], "the MTU");
    assert_eq!(message[24..28], [3, 4, 120, 0x80], "the prefix, on the link only");
    let network: Ipv6Addr = "fd10:0:2::".parse().unwrap();
    assert_eq!(message[40..56], network.octets());
    assert_eq!(message[56..60], [25, 3, 0, 0], "one name server");
    assert_eq!(message[80..82], [31, 7], "the search list");
    assert_eq!(message.len(), 80 + 7 * 8);
}

#[test]
fn a_guest_without_an_address_hears_what_all_hear() {
    let answer = responder().answer(&solicitation(Ipv6Addr::UNSPECIFIED)).unwrap();
    assert_eq!(Some(&answer), responder().advertisement().as_ref());
    let to = frame::parse(&answer).unwrap().0.to;
    assert_eq!(to, frame::Mac([0x33, 0x33, 0, 0, 0, 1]));
}

#[test]
fn a_link_without_a_way_out_has_no_default_router() {
    let mut lease = lease();
    lease.v6.as_mut().unwrap().routed = false;
    let answer = Responder::new(lease).unwrap().advertisement().unwrap();
    assert_eq!(payload(&answer)[6..8], [0, 0]);
}

#[test]
fn there_is_no_ipv6_where_the_lease_has_none() {
    let lease = Lease { v6: None, ..lease() };
    let responder = Responder::new(lease).unwrap();
    assert_eq!(responder.answer(&solicitation(link_local(GUEST))), None);
    assert_eq!(responder.advertisement(), None);
}
