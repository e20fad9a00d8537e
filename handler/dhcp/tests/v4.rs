//! Conversations over DHCPv4, read by another codec.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses the half of its protocol")]
mod guest;

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use guest::{ADDRESS, GATEWAY, GUEST, lease, over4, payload, responder};
use rvm_dhcp::Responder;
use rvm_dhcp::frame;

fn message(kind: MessageType, options: &[DhcpOption]) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(0x1234_5678, none, none, none, none, &GUEST.0);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message
}

fn frame_of(message: &Message) -> Vec<u8> {
    over4(&message.to_vec().unwrap())
}

fn say(message: &Message) -> Option<Message> {
    let answer = responder().answer(&frame_of(message))?;
    Some(Message::decode(&mut Decoder::new(&payload(&answer))).unwrap())
}

fn option(message: &Message, code: OptionCode) -> DhcpOption {
    message.opts().get(code).unwrap().clone()
}

#[test]
fn a_guest_is_offered_its_address_and_gets_it() {
    let offer = say(&message(
        MessageType::Discover,
        &[DhcpOption::MaxMessageSize(1500)],
    ))
    .unwrap();
    assert!(offer.opts().has_msg_type(MessageType::Offer));
    assert_eq!((offer.yiaddr(), offer.xid()), (ADDRESS, 0x1234_5678));
    assert_eq!(
        option(&offer, OptionCode::ServerIdentifier),
        DhcpOption::ServerIdentifier(GATEWAY)
    );
    let wants = [
        DhcpOption::RequestedIpAddress(ADDRESS),
        DhcpOption::ServerIdentifier(GATEWAY),
        DhcpOption::ClientIdentifier(vec![1, 2, 3]),
        DhcpOption::MaxMessageSize(1500),
    ];
    let ack = say(&message(MessageType::Request, &wants)).unwrap();
    assert!(ack.opts().has_msg_type(MessageType::Ack));
    assert_eq!(ack.yiaddr(), ADDRESS);
    assert_eq!(
        option(&ack, OptionCode::ClientIdentifier),
        DhcpOption::ClientIdentifier(vec![1, 2, 3])
    );
    assert_eq!(
        option(&ack, OptionCode::AddressLeaseTime),
        DhcpOption::AddressLeaseTime(u32::MAX)
    );
}

#[test]
fn all_that_is_in_the_lease_is_told() {
    let ack = say(&message(
        MessageType::Discover,
        &[DhcpOption::MaxMessageSize(1500)],
    ))
    .unwrap();
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    assert_eq!(option(&ack, OptionCode::SubnetMask), DhcpOption::SubnetMask(mask));
    assert_eq!(
        option(&ack, OptionCode::Router),
        DhcpOption::Router(vec![GATEWAY])
    );
    assert_eq!(
        option(&ack, OptionCode::InterfaceMtu),
        DhcpOption::InterfaceMtu(1400)
    );
    assert_eq!(
        option(&ack, OptionCode::Hostname),
        DhcpOption::Hostname("vm".to_owned())
    );
    let domain = "default.svc.cluster.local".to_owned();
    assert_eq!(
        option(&ack, OptionCode::DomainName),
        DhcpOption::DomainName(domain)
    );
    let DhcpOption::DomainSearch(search) = option(&ack, OptionCode::DomainSearch) else {
        unreachable!("the code says so")
    };
    let search: Vec<_> = search.iter().map(ToString::to_string).collect();
    assert_eq!(search, ["default.svc.cluster.local.", "cluster.local."]);
    let DhcpOption::ClasslessStaticRoute(routes) = option(&ack, OptionCode::ClasslessStaticRoute) else {
        unreachable!("the code says so")
    };
    let routes: Vec<_> = routes.iter().map(|(net, by)| format!("{net} {by}")).collect();
    assert_eq!(routes, ["192.168.8.0/22 10.0.2.9", "0.0.0.0/0 10.0.2.1"]);
    assert_eq!(
        option(&ack, OptionCode::BootfileName),
        DhcpOption::BootfileName(b"boot.efi".to_vec())
    );
    assert!(ack.opts().contains(OptionCode::from(240)));
}

#[test]
fn a_small_client_gets_what_fits() {
    let mut long = lease();
    long.v4.as_mut().unwrap().private = (224..254).map(|code| (code, "x".repeat(200))).collect();
    let responder = Responder::new(long).unwrap();
    let asked = frame_of(&message(MessageType::Discover, &[]));
    let answer = responder.answer(&asked).unwrap();
    assert!(answer.len() <= 576 + 14, "{}", answer.len());
    let offer = Message::decode(&mut Decoder::new(&payload(&answer))).unwrap();
    assert!(offer.opts().contains(OptionCode::DomainNameServer));
    assert!(!offer.opts().contains(OptionCode::from(253)));
}

#[test]
fn another_address_is_refused_to_everybody_at_once() {
    let wants = DhcpOption::RequestedIpAddress(Ipv4Addr::new(192, 168, 1, 7));
    let asked = frame_of(&message(MessageType::Request, &[wants]));
    let answer = responder().answer(&asked).unwrap();
    assert_eq!(frame::parse(&answer).unwrap().0.to, frame::Mac::BROADCAST);
    let nak = Message::decode(&mut Decoder::new(&payload(&answer))).unwrap();
    assert!(nak.opts().has_msg_type(MessageType::Nak));
    assert!(nak.yiaddr().is_unspecified());
    assert!(!nak.opts().contains(OptionCode::SubnetMask));
}

#[test]
fn a_lease_is_renewed_to_the_address_that_has_it() {
    let mut renewal = message(MessageType::Request, &[]);
    renewal.set_ciaddr(ADDRESS);
    let ack = say(&renewal).unwrap();
    assert!(ack.opts().has_msg_type(MessageType::Ack));
    assert_eq!((ack.ciaddr(), ack.yiaddr()), (ADDRESS, ADDRESS));
}

#[test]
fn a_guest_with_an_address_of_its_own_is_told_the_rest() {
    let mut inform = message(MessageType::Inform, &[]);
    inform.set_ciaddr(Ipv4Addr::new(10, 0, 2, 77));
    let ack = say(&inform).unwrap();
    assert!(ack.yiaddr().is_unspecified());
    assert!(!ack.opts().contains(OptionCode::AddressLeaseTime));
    assert!(ack.opts().contains(OptionCode::DomainNameServer));
}

#[test]
fn a_client_that_needs_broadcasts_gets_them() {
    let mut discover = message(MessageType::Discover, &[]);
    let link = |message: &Message| {
        frame::parse(&responder().answer(&frame_of(message)).unwrap())
            .unwrap()
            .0
    };
    assert_eq!(link(&discover).to, GUEST);
    discover.set_flags(Flags::default().set_broadcast());
    assert_eq!(link(&discover).to, frame::Mac::BROADCAST);
}

#[test]
fn what_is_not_for_this_server_is_not_answered() {
    let other = DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 9, 9, 9));
    assert_eq!(
        say(&message(
            MessageType::Request,
            &[other, DhcpOption::RequestedIpAddress(ADDRESS)]
        )),
        None
    );
    assert_eq!(say(&message(MessageType::Decline, &[])), None);
    assert_eq!(say(&message(MessageType::Release, &[])), None);
    let mut relayed = message(MessageType::Discover, &[]);
    relayed.set_giaddr(Ipv4Addr::new(1, 2, 3, 4));
    assert_eq!(say(&relayed), None);
    let mut stranger = message(MessageType::Discover, &[]);
    stranger.set_chaddr(&[9; 6]);
    assert_eq!(say(&stranger), None);
}

#[test]
fn there_is_no_ipv4_where_the_lease_has_none() {
    let lease = rvm_dhcp::Lease { v4: None, ..lease() };
    let asked = frame_of(&message(MessageType::Discover, &[]));
    assert_eq!(Responder::new(lease).unwrap().answer(&asked), None);
}
