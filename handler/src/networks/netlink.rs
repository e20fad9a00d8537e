//! Links, addresses and routes of the namespace that this thread is in, by netlink.

mod told;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice};

/// Longest answer: an acknowledgement quotes the request.
const MAX_ANSWER: usize = 16 << 10;

/// The kernel could not do it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct NetlinkError {
    what: String,
    #[source]
    source: io::Error,
}

/// A conversation with the kernel about one namespace: a socket stays in the one that it was made in.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A link's number.
pub type Index = u32;

// === impl Netlink ===

impl Netlink {
    /// Speaks of the namespace that this thread is in now.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn open() -> Result<Self, NetlinkError> {
        let flags = SocketFlags::CLOEXEC;
        let kind = net::AddressFamily::NETLINK;
        // The protocol of number 0, NETLINK_ROUTE.
        let socket = net::socket_with(kind, SocketType::RAW, flags, None);
        Ok(Self {
            socket: socket.map_err(|error| failed("there is no netlink", error.into()))?,
            sequence: 0,
        })
    }

    /// The link of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn index(&self, name: &str) -> Result<Index, NetlinkError> {
        netdevice::name_to_index(&self.socket, name)
            .map_err(|error| failed(&format!("there is no link '{name}'"), error.into()))
    }

    /// Makes a bridge, which is up, with this hardware address.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_bridge(&mut self, name: &str, mac: Option<[u8; 6]>, mtu: u16) -> Result<Index, NetlinkError> {
        let mut message = link(name, mac, mtu);
        // Without its own snooping a bridge lets all of IPv6's neighbour discovery pass, whoever asked for what.
        let data = InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)]);
        let info = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)];
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.ask(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &format!("no bridge '{name}' can be made"),
        )?;
        self.index(name)
    }

    /// Makes a pair of links, one here, which is up, and one in another namespace, which is to be switched on there.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_veth(
        &mut self,
        name: &str,
        mtu: u16,
        peer: &str,
        peer_namespace: BorrowedFd<'_>,
    ) -> Result<Index, NetlinkError> {
        // Neither can be up before the other is there.
        let mut there = link(peer, None, mtu);
        there.header = LinkHeader::default();
        let namespace = LinkAttribute::NetNsFd(peer_namespace.as_raw_fd());
        there.attributes.push(namespace);
        let mut message = link(name, None, mtu);
        message.header = LinkHeader::default();
        let data = InfoData::Veth(InfoVeth::Peer(there));
        let info = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)];
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.ask(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &format!("no pair of links '{name}' and '{peer}' can be made"),
        )?;
        let index = self.index(name)?;
        self.switch_on(index, None, None)?;
        Ok(index)
    }

    /// Switches a link on, with this largest packet, and hardware address if that matters.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn switch_on(
        &mut self,
        link: Index,
        mac: Option<[u8; 6]>,
        mtu: Option<u16>,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let address = mac.map(|mac| LinkAttribute::Address(mac.to_vec()));
        let mtu = mtu.map(|mtu| LinkAttribute::Mtu(mtu.into()));
        message.attributes.extend(address.into_iter().chain(mtu));
        self.ask(
            RouteNetlinkMessage::SetLink(message),
            0,
            "a link cannot be switched on",
        )
    }

    /// Makes a link a port of a bridge.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn plug(&mut self, link: Index, bridge: Index) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.ask(
            RouteNetlinkMessage::SetLink(message),
            0,
            "a link cannot be made a bridge's port",
        )
    }

    /// Removes a link, if it is there.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn remove(&mut self, name: &str) -> Result<(), NetlinkError> {
        let Ok(index) = self.index(name) else {
            return Ok(());
        };
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.ask(
            RouteNetlinkMessage::DelLink(message),
            0,
            &format!("link '{name}' cannot be removed"),
        )
    }

    /// Gives a link an address, to be used at once: nobody else can have it.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_address(&mut self, link: Index, address: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.index = link;
        message.header.prefix_len = prefix;
        message.attributes.push(AddressAttribute::Address(address));
        message.attributes.push(AddressAttribute::Local(address));
        if address.is_ipv6() {
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.ask(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &format!("a link cannot have the address {address}"),
        )
    }

    /// Takes an address away from a link.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn remove_address(&mut self, link: Index, address: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.index = link;
        message.header.prefix_len = prefix;
        message.attributes.push(AddressAttribute::Local(address));
        self.ask(
            RouteNetlinkMessage::DelAddress(message),
            0,
            &format!("the address {address} cannot be taken from its link"),
        )
    }

    /// Sends what is for elsewhere through a gateway.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn add_default_route(&mut self, gateway: IpAddr) -> Result<(), NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        let gateway_address = RouteAddress::from(gateway);
        message.attributes.push(RouteAttribute::Gateway(gateway_address));
        self.ask(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &format!("there is no way out through {gateway}"),
        )
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16, what: &str) -> Result<(), NetlinkError> {
        self.exchange(message, flags).map_err(|error| failed(what, error))
    }

    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        match self.converse(message, NLM_F_ACK | flags)? {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(io::Error::other("the kernel's answer is not understood")),
        }
    }

    fn converse(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<NetlinkPayload<RouteNetlinkMessage>> {
        self.send(message, flags)?;
        let answer = self.receive()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        Ok(answer.payload)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        net::send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; MAX_ANSWER];
        let (count, _) = net::recv(&self.socket, answer.as_mut_slice(), RecvFlags::empty())?;
        answer.truncate(count);
        Ok(answer)
    }
}

fn link(name: &str, mac: Option<[u8; 6]>, mtu: u16) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::Mtu(mtu.into()));
    let address = mac.map(|mac| LinkAttribute::Address(mac.to_vec()));
    message.attributes.extend(address);
    message
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn failed(what: &str, source: io::Error) -> NetlinkError {
    NetlinkError {
        what: what.to_owned(),
        source,
    }
}
