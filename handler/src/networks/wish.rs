//! What a VMI wishes of its network.

use rvm_types::VirtualMachineInstance;
use rvm_types::admission::{Cause, Path};
use rvm_types::devices::Interface;
use rvmm_spec::MacAddress;

use super::model::{Binding, Port, Protocol};
use crate::translate::boot;

/// A machine's interface on the pod's network, before it has an address there.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkWish {
    /// The name of the network.
    pub network: String,
    /// How it reaches the guest.
    pub binding: Binding,
    /// The guest's hardware address.
    pub mac: MacAddress,
    /// Pairs of queues.
    pub queues: u8,
    /// What is let in; everything where none is given.
    pub ports: Vec<Port>,
    /// The guest's name.
    pub hostname: String,
}

// === impl NetworkWish ===

impl NetworkWish {
    /// Of a VMI that was found valid; nothing where it has no interface.
    ///
    /// # Errors
    /// What cannot be done here, by its field.
    pub fn of(vmi: &VirtualMachineInstance) -> Result<Option<Self>, Cause> {
        let path = Path::new("spec.domain.devices.interfaces").index(0);
        let Some(interface) = vmi.spec.domain.devices.interfaces.first() else {
            return Ok(None);
        };
        let uid = vmi.metadata.uid.as_deref().unwrap_or_default();
        let mac = match &interface.mac_address {
            Some(text) => text
                .parse()
                .map_err(|error| path.field("macAddress").invalid(error))?,
            None => MacAddress::stable(&format!("{uid}/{}", interface.name), 0),
        };
        Ok(Some(Self {
            network: interface.name.clone(),
            binding: if interface.masquerade.is_some() {
                Binding::Masquerade
            } else {
                Binding::Bridge
            },
            mac,
            queues: 1,
            ports: ports(interface, &path)?,
            hostname: boot::hostname(vmi),
        }))
    }
}

fn ports(interface: &Interface, path: &Path) -> Result<Vec<Port>, Cause> {
    let port = |(index, port): (usize, &rvm_types::devices::Port)| {
        let here = path.field("ports").index(index);
        Ok(Port {
            protocol: match port.protocol.as_deref() {
                None | Some("" | "TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some(_) => return Err(here.field("protocol").not_supported("must be TCP or UDP")),
            },
            port: u16::try_from(port.port)
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| here.field("port").invalid("must be from 1 to 65535"))?,
        })
    };
    interface.ports.iter().enumerate().map(port).collect()
}
