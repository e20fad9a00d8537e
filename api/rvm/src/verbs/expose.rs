//! `rvm expose`: makes the Service that virtctl makes for a machine, with virtctl's flags and words.
//!
//! ```text
//!   GET the object ─► selector: vmi.kubevirt.io/id of a machine, its own of a replica set
//!                     ports: --port, else those of the interface on the pod's network   ─► POST the Service, which the object owns
//! ```

use anyhow::{Result, anyhow, bail};
use rvm_types::names::labels::VMI_ID;
use serde_json::{Value, json};

use super::metadata;
use crate::args::Expose;
use crate::cluster::{Cluster, Resource};
use crate::screen::say;

const PROTOCOLS: [&str; 2] = ["TCP", "UDP"];
const TYPES: [&str; 3] = ["ClusterIP", "NodePort", "LoadBalancer"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["SingleStack", "PreferDualStack", "RequireDualStack"];
/// Where a Service has both families and nothing else was said.
const BOTH: &str = "PreferDualStack";
/// Where nothing of the kind can be made.
const WITHOUT: &str = "; local mode has no Services: rvm port-forward reaches a guest there";
/// The longest value of a label; a longer name is not the label of its machine.
const MAX_LABEL: usize = 63;

pub async fn run(cluster: &Cluster, args: &Expose) -> Result<()> {
    let mut spec = asked(args)?;
    let kind = args.kind.to_lowercase();
    let (resource, name) = match Resource::named(&kind) {
        Some(resource) if resource != Resource::Installation => (resource, &args.target),
        _ => bail!("unsupported resource type: {kind}"),
    };
    let found = cluster.get(&cluster.object(resource, name)).await;
    let object = found.map_err(|why| anyhow!("error fetching {}: {why}", resource.kind()))?;
    spec["selector"] = selector(resource, &object)?;
    spec["ports"] = ports(args, resource, &object)?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": {
            "name": args.name, "namespace": cluster.namespace(),
            "ownerReferences": [{
                "apiVersion": "kubevirt.io/v1", "kind": resource.kind(), "name": name, "uid": metadata(&object, "uid"),
                "controller": true,
            }],
        },
    });
    let path = format!("/api/v1/namespaces/{}/services", cluster.namespace());
    let made = cluster.ask("POST", &path, service.to_string().into_bytes()).await;
    made.map_err(|why| {
        let advice = if why.is_not_found() { WITHOUT } else { "" };
        anyhow!("service creation failed: {why}{advice}")
    })?;
    Ok(say(&format!(
        "Service {} successfully created for {kind} {name}",
        args.name
    ))?)
}

/// What the flags alone say of the Service.
fn asked(args: &Expose) -> Result<Value> {
    let service = match one_of(&TYPES, &args.service) {
        Some(service) => service,
        None if args.service.eq_ignore_ascii_case("ExternalName") => {
            bail!("type: {} not supported", args.service)
        }
        None => bail!("unknown service type: {}", args.service),
    };
    let mut spec = json!({"type": service});
    if let Some(address) = &args.cluster_ip {
        spec["clusterIP"] = address.clone().into();
    }
    if let Some(address) = &args.external_ip {
        spec["externalIPs"] = json!([address]);
    }
    if let Some(text) = &args.ip_family {
        let families: Option<Vec<_>> = text.split(',').map(|family| one_of(&FAMILIES, family)).collect();
        match families.as_deref() {
            Some([_]) => {}
            Some([first, second]) if first != second => spec["ipFamilyPolicy"] = BOTH.into(),
            _ => bail!("unknown IPFamily/s: {text}"),
        }
        spec["ipFamilies"] = json!(families);
    }
    if let Some(text) = &args.ip_family_policy {
        let policy = one_of(&POLICIES, text).ok_or_else(|| anyhow!("unknown IPFamilyPolicy/s: {text}"))?;
        spec["ipFamilyPolicy"] = policy.into();
    }
    Ok(spec)
}

/// Which pods the Service leads to.
fn selector(resource: Resource, object: &Value) -> Result<Value> {
    if resource != Resource::ReplicaSet {
        let name = metadata(object, "name");
        if name.len() > MAX_LABEL {
            bail!("a machine whose name has more than {MAX_LABEL} characters cannot be exposed");
        }
        return Ok(json!({VMI_ID: name}));
    }
    let selector = &object["spec"]["selector"];
    if selector["matchLabels"]
        .as_object()
        .is_none_or(serde_json::Map::is_empty)
    {
        bail!("cannot expose VirtualMachineInstanceReplicaSet without any selector labels");
    }
    if selector["matchExpressions"]
        .as_array()
        .is_some_and(|rules| !rules.is_empty())
    {
        bail!("cannot expose VirtualMachineInstanceReplicaSet with match expressions");
    }
    Ok(selector["matchLabels"].clone())
}

/// The port that was asked for, or those that the machine names.
fn ports(args: &Expose, resource: Resource, object: &Value) -> Result<Value> {
    let protocol = one_of(&PROTOCOLS, &args.protocol);
    let protocol = protocol.ok_or_else(|| anyhow!("unknown protocol: {}", args.protocol))?;
    let Some(port) = args.port else {
        let machine = match resource {
            Resource::Instance => &object["spec"],
            _ => &object["spec"]["template"]["spec"],
        };
        let ports = named_ports(machine);
        if ports.is_empty() {
            bail!("couldn't find port via --port flag or introspection");
        }
        return Ok(ports.into());
    };
    let mut served = json!({"port": port, "protocol": protocol});
    if let Some(name) = &args.port_name {
        served["name"] = name.clone().into();
    }
    if let Some(target) = &args.target_port {
        served["targetPort"] = target
            .parse::<u16>()
            .map_or_else(|_| target.clone().into(), Value::from);
    }
    Ok(json!([served]))
}

/// The ports of the interface on the pod's network.
fn named_ports(machine: &Value) -> Vec<Value> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let networks = items(&machine["networks"]);
    let Some(network) = networks.iter().find(|network| !network["pod"].is_null()) else {
        return Vec::new();
    };
    let interfaces = items(&machine["domain"]["devices"]["interfaces"]);
    let interface = interfaces
        .iter()
        .find(|interface| interface["name"] == network["name"]);
    let ports = interface
        .map(|interface| items(&interface["ports"]))
        .unwrap_or_default();
    let served = |(at, port): (usize, &Value)| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        json!({"name": format!("port-{}", at + 1), "port": port["port"], "protocol": protocol})
    };
    ports.iter().enumerate().map(served).collect()
}

/// The known word that this one is, in whichever case.
fn one_of(known: &[&'static str], word: &str) -> Option<&'static str> {
    known
        .iter()
        .copied()
        .find(|known| known.eq_ignore_ascii_case(word))
}
