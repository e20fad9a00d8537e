//! What the kernel tells of links, addresses and routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_DUMP, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Index, Netlink, NetlinkError, failed};

/// Most answers that a list comes in: far more than a pod has of anything.
const MAX_ANSWERS: usize = 256;

impl Netlink {
    /// The largest packet of a link.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn mtu(&mut self, link: Index) -> Result<u16, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        let what = "a link does not say how large its packets are";
        let answer = self.converse(RouteNetlinkMessage::GetLink(message), 0);
        let mtu = match answer.map_err(|error| failed(what, error))? {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(told)) => {
                told.attributes.into_iter().find_map(|attribute| match attribute {
                    LinkAttribute::Mtu(mtu) => Some(u16::try_from(mtu).unwrap_or(u16::MAX)),
                    _ => None,
                })
            }
            _ => None,
        };
        mtu.ok_or_else(|| failed(what, io::ErrorKind::InvalidData.into()))
    }

    /// The hardware address of a link.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn mac(&mut self, link: Index) -> Result<[u8; 6], NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        let what = "a link does not say which hardware address it has";
        let answer = self.converse(RouteNetlinkMessage::GetLink(message), 0);
        let mac = match answer.map_err(|error| failed(what, error))? {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(told)) => {
                told.attributes.into_iter().find_map(|attribute| match attribute {
                    LinkAttribute::Address(mac) => mac.try_into().ok(),
                    _ => None,
                })
            }
            _ => None,
        };
        mac.ok_or_else(|| failed(what, io::ErrorKind::InvalidData.into()))
    }

    /// The addresses of a link that others reach, with their prefixes.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn addresses(&mut self, link: Index) -> Result<Vec<(IpAddr, u8)>, NetlinkError> {
        let all = self.list(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            "addresses cannot be listed",
        )?;
        let told = all.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(told) if told.header.index == link => Some(told),
            _ => None,
        });
        let found = told.filter_map(|told| {
            let prefix = told.header.prefix_len;
            let address = told
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(address),
                    _ => None,
                })?;
            let is_of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            (!is_of_link).then_some((address, prefix))
        });
        Ok(found.collect())
    }

    /// The router that IPv4 packets for elsewhere go to, through a link.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn router(&mut self, link: Index) -> Result<Option<Ipv4Addr>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let all = self.list(RouteNetlinkMessage::GetRoute(message), "routes cannot be listed")?;
        let mut routes = all.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(told) => Some(told),
            _ => None,
        });
        Ok(routes.find_map(|told| {
            let is_default = told.header.destination_prefix_length == 0
                && told.attributes.contains(&RouteAttribute::Oif(link));
            let mut gateways = told
                .attributes
                .into_iter()
                .filter_map(|attribute| match attribute {
                    RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(gateway),
                    _ => None,
                });
            gateways.next().filter(|_| is_default)
        }))
    }

    /// All that the kernel has of a kind.
    fn list(
        &mut self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut listed = Vec::new();
        self.send(message, NLM_F_DUMP)
            .map_err(|error| failed(what, error))?;
        for _ in 0..MAX_ANSWERS {
            let answer = self.receive().map_err(|error| failed(what, error))?;
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
                let message = message.map_err(|error| failed(what, io::Error::other(error)))?;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(listed),
                    NetlinkPayload::Error(error) => return Err(failed(what, error.to_io())),
                    NetlinkPayload::InnerMessage(inner) => listed.push(inner),
                    _ => {}
                }
                // Each begins at a multiple of four bytes.
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                let next = length.max(1).checked_next_multiple_of(4).unwrap_or(usize::MAX);
                rest = rest.get(next..).unwrap_or_default();
            }
        }
        Err(failed(what, io::ErrorKind::InvalidData.into()))
    }
}
