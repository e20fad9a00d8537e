//! What a VMI wishes of its network. One that names none gets the pod's, unless it says that it wants none.

use rvm_types::VirtualMachineInstance;
use rvm_types::admission::{Cause, Path};
use rvm_types::devices::{Interface, InterfaceMasquerade};
use rvmm_spec::MacAddress;
use rvmm_spec::limits::MAX_NET_QUEUES;

use super::model::{Binding, Port, Protocol};
use crate::translate::{boot, cpu};

/// A machine's interface on the pod's network, before it has an address there.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkWish {
    /// The name of the network.
    pub network: String,
    /// How it reaches the guest.
    pub binding: Binding,
    /// The guest's hardware address.
    pub mac: MacAddress,
    /// Its author has chosen that.
    pub own_mac: bool,
    /// Pairs of queues.
    pub queues: u8,
    /// What is let in; everything where none is given.
    pub ports: Vec<Port>,
    /// The guest's name.
    pub hostname: String,
    /// Nobody asked for it: where it cannot be had, the machine starts without.
    pub optional: bool,
}

/// The name of the network that nobody named, as KubeVirt calls it.
const DEFAULT: &str = "default";

// === impl NetworkWish ===

impl NetworkWish {
    /// Of a VMI that was found valid; nothing where it wants none.
    ///
    /// # Errors
    /// What cannot be done here, by its field.
    pub fn of(vmi: &VirtualMachineInstance) -> Result<Option<Self>, Cause> {
        let path = Path::new("spec.domain.devices.interfaces").index(0);
        let devices = &vmi.spec.domain.devices;
        let (interface, optional) = match devices.interfaces.first() {
            Some(interface) => (interface, false),
            None if devices.autoattach_pod_interface == Some(false) => return Ok(None),
            None => (&unasked(), true),
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
            own_mac: interface.mac_address.is_some(),
            queues: queues(vmi),
            ports: ports(interface, &path)?,
            hostname: boot::hostname(vmi),
            optional,
        }))
    }
}

/// By masquerade, and not by bridge as with KubeVirt: NetworkPolicies are kept to by it on any host.
fn unasked() -> Interface {
    Interface {
        name: DEFAULT.to_owned(),
        masquerade: Some(InterfaceMasquerade::default()),
        ..Interface::default()
    }
}

/// Of a machine whose processors are each to have one, as many as there can be.
fn queues(vmi: &VirtualMachineInstance) -> u8 {
    let domain = &vmi.spec.domain;
    match domain.devices.network_interface_multiqueue {
        Some(true) => {
            u8::try_from(cpu::count(domain)).map_or(MAX_NET_QUEUES, |cpus| cpus.clamp(1, MAX_NET_QUEUES))
        }
        _ => 1,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(devices: serde_json::Value) -> NetworkWish {
        let mut vmi = crate::sample::vmi_in("Pending");
        vmi.spec.domain.cpu.get_or_insert_default().cores = Some(4);
        vmi.spec.domain.devices = serde_json::from_value(devices).unwrap();
        NetworkWish::of(&vmi).unwrap().unwrap()
    }

    #[test]
    fn each_processor_has_its_queues_only_where_that_is_asked_for() {
        let interfaces = serde_json::json!([{"name": "default", "masquerade": {}}]);
        let several = serde_json::json!({"interfaces": interfaces, "networkInterfaceMultiqueue": true});
        assert_eq!(wish(several).queues, 4);
        let one = serde_json::json!({"interfaces": interfaces});
        assert_eq!(wish(one).queues, 1);
    }

    #[test]
    fn who_asks_for_no_network_has_the_pods_where_there_is_one_and_who_wants_none_has_none() {
        let unasked = wish(serde_json::json!({}));
        assert_eq!(unasked.network, "default");
        assert_eq!(unasked.binding, Binding::Masquerade);
        assert!(unasked.optional);
        let asked = serde_json::json!({"interfaces": [{"name": "default", "masquerade": {}}]});
        assert!(!wish(asked).optional);
        let mut vmi = crate::sample::vmi_in("Pending");
        vmi.spec.domain.devices.autoattach_pod_interface = Some(false);
        assert_eq!(NetworkWish::of(&vmi), Ok(None));
    }

    #[test]
    fn a_hardware_address_is_the_manifests_or_the_same_at_each_start() {
        let given = serde_json::json!({"interfaces": [{"name": "default", "bridge": {}, "macAddress": "02:11:22:33:44:55"}]});
        assert_eq!(wish(given).mac.to_string(), "02:11:22:33:44:55");
        let own = serde_json::json!({"interfaces": [{"name": "default", "bridge": {}}]});
        assert_eq!(wish(own.clone()).mac, wish(own).mac);
    }
}
