//! What can be wrong with networks and the interfaces on them.

use super::unsupported::refuse;
use super::validate::{distinct, is_label, one_of};
use super::{Cause, Path};
use crate::VirtualMachineInstance;
use crate::devices::{Interface, Port};
use crate::volume::Network;

const MODELS: [&str; 1] = ["virtio"];
const PROTOCOLS: [&str; 2] = ["TCP", "UDP"];

/// Most ports that an interface names.
const MAX_PORTS: usize = 256;

pub(super) fn validate(vmi: &VirtualMachineInstance, spec: &Path, causes: &mut Vec<Cause>) {
    let (networks, interfaces) = (&vmi.spec.networks, &vmi.spec.domain.devices.interfaces);
    let paths = (spec.field("networks"), spec.field("domain.devices.interfaces"));
    distinct(
        networks.iter().map(|network| network.name.as_str()),
        &paths.0,
        "name",
        causes,
    );
    let names = interfaces.iter().map(|interface| interface.name.as_str());
    distinct(names.clone(), &paths.1, "name", causes);
    for (index, network) in networks.iter().enumerate() {
        let path = paths.0.index(index);
        validate_network(network, &path, causes);
        if !names.clone().any(|name| name == network.name) {
            causes.push(path.field("name").required(format_args!(
                "is {:?}; spec.domain.devices.interfaces has no such interface",
                network.name
            )));
        }
    }
    for (index, interface) in interfaces.iter().enumerate() {
        let path = paths.1.index(index);
        validate_interface(interface, &path, causes);
        if !networks.iter().any(|network| network.name == interface.name) {
            causes.push(path.field("name").invalid(format_args!(
                "is {:?}; spec.networks has no such network",
                interface.name
            )));
        }
    }
    if networks.iter().filter(|network| network.pod.is_some()).count() > 1 {
        causes.push(paths.0.invalid("may have the pod's network once only"));
    }
}

fn validate_network(network: &Network, path: &Path, causes: &mut Vec<Cause>) {
    if !is_label(&network.name) {
        causes.push(
            path.field("name")
                .invalid(format_args!("is {:?}, which is not a DNS label", network.name)),
        );
    }
    refuse(&network.extra, path, &[], causes);
    match &network.pod {
        // What it is instead has been refused by its own name.
        None if !network.extra.is_empty() => {}
        None => causes.push(path.required("must be of one kind: pod")),
        Some(pod) => {
            refuse(&pod.extra, &path.field("pod"), &[], causes);
            if pod.vm_network_cidr.is_some() {
                causes.push(
                    path.field("pod.vmNetworkCIDR")
                        .not_supported("is not supported by rvm"),
                );
            }
        }
    }
}

fn validate_interface(interface: &Interface, path: &Path, causes: &mut Vec<Cause>) {
    refuse(&interface.extra, path, &[], causes);
    let (masquerade, bridge) = (&interface.masquerade, &interface.bridge);
    match (masquerade, bridge) {
        (Some(_), Some(_)) => causes.push(path.invalid("must have one binding only: masquerade or bridge")),
        // What it has instead has been refused by its own name.
        (None, None) if !interface.extra.is_empty() => {}
        (None, None) => causes.push(path.required("must have a binding: masquerade or bridge")),
        (Some(masquerade), None) => refuse(&masquerade.extra, &path.field("masquerade"), &[], causes),
        (None, Some(bridge)) => refuse(&bridge.extra, &path.field("bridge"), &[], causes),
    }
    one_of(&interface.model, &path.field("model"), &MODELS, causes);
    if interface.mac_address.as_ref().is_some_and(|mac| !is_unicast(mac)) {
        causes.push(
            path.field("macAddress")
                .invalid("must be a unicast MAC address, such as 02:00:00:12:34:56"),
        );
    }
    if interface.ports.len() > MAX_PORTS {
        causes.push(
            path.field("ports")
                .invalid(format_args!("may be {MAX_PORTS} at most")),
        );
    }
    for (index, port) in interface.ports.iter().enumerate().take(MAX_PORTS) {
        validate_port(port, &path.field("ports").index(index), causes);
    }
}

fn validate_port(port: &Port, path: &Path, causes: &mut Vec<Cause>) {
    refuse(&port.extra, path, &[], causes);
    one_of(&port.protocol, &path.field("protocol"), &PROTOCOLS, causes);
    if !(1..=65535).contains(&port.port) {
        causes.push(path.field("port").invalid("must be from 1 to 65535"));
    }
}

fn is_unicast(text: &str) -> bool {
    let mut octets = text.split([':', '-']).map(|octet| match octet.len() {
        2 => u8::from_str_radix(octet, 16).ok(),
        _ => None,
    });
    let first = octets.next().flatten();
    let rest: Option<Vec<u8>> = octets.collect();
    first.is_some_and(|first| first & 1 == 0)
        && rest
            .is_some_and(|rest| rest.len() == 5 && (first != Some(0) || rest.iter().any(|octet| *octet != 0)))
}
