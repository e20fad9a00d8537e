//! The pod of a VMI, as KubeVirt's tools and users know it: names, labels and fields are those of a `virt-launcher` pod.
//!
//! It is JSON and no type: what a user has written of affinities, tolerations or probes goes in as it is, and is judged by the
//! cluster.

use std::collections::BTreeMap;

use kube::Resource;
use rvm_types::names::{self, annotations, labels};
use rvm_types::quantity::Quantity;
use rvm_types::{VirtualMachineInstance, admission};
use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};

use super::claims::{Claims, InPod};
use super::overhead::{Accelerator, overhead};

/// Who a pod's process is: KubeVirt's, which nobody else on a node is.
const USER: i64 = 107;
/// Where its process waits for the machine, and the name of the volume that is there.
const FOLDER: &str = "/run/rvm";
const VOLUME: &str = "run";
/// How long a command of a probe may be waited for, should the kubelet not end that before.
const PROBE_TIME: &str = "5m";
/// What the container is called.
const CONTAINER: &str = "compute";
/// How long a pod may take to end beyond its guest, in seconds, as with KubeVirt.
const MARGIN: u64 = 30;
/// Thousandths of a processor that are asked for each vCPU: KubeVirt's ratio of 10.
const MILLIS_OF_VCPU: u64 = 100;
/// What is asked for of the node's disk: logs and sockets.
const EPHEMERAL_STORAGE: &str = "50M";
/// What every node has that may run guests, by the hardware or without it.
const ACCELERATOR: &str = "rvm/accelerator";
/// How much a node with KVM is preferred: more than anything else is.
const KVM_WEIGHT: u8 = 100;
/// Longest label.
const MAX_LABEL: usize = 63;
/// How much of a longer name is left beside its digest.
const KEPT_NAME: usize = 54;

/// How much of the digest.
const DIGITS: usize = 8;

/// What of a VMI's spec goes into the pod's as it is.
const COPIED: [&str; 8] = [
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "priorityClassName",
    "schedulerName",
    "dnsPolicy",
    "dnsConfig",
    "resourceClaims",
];

/// Annotations of a VMI that are nobody else's business.
const OWN_ANNOTATIONS: [&str; 2] = [
    annotations::CLAIM,
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// How pods are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launcher {
    /// The image with rvmm.
    pub image: String,
    /// The image with rvmm and QEMU.
    pub emulating: Option<String>,
    /// Nodes without KVM emulate guests, where the KubeVirt does not say.
    pub use_emulation: bool,
}

// === impl Launcher ===

impl Launcher {
    /// What may run guests, where the KubeVirt's setting is this.
    pub fn accelerator(&self, use_emulation: Option<bool>) -> Accelerator {
        if use_emulation.unwrap_or(self.use_emulation) {
            Accelerator::Either
        } else {
            Accelerator::Kvm
        }
    }

    /// The machine's own, which has no more rights than any other would have there, or the cluster's.
    fn image<'a>(&'a self, vmi: &'a VirtualMachineInstance, accelerator: Accelerator) -> &'a str {
        let own = vmi
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(annotations::LAUNCHER_IMAGE));
        if let Some(own) = own.filter(|own| !own.is_empty()) {
            return own;
        }
        match accelerator {
            Accelerator::Kvm => &self.image,
            Accelerator::Either => self.emulating.as_ref().unwrap_or(&self.image),
        }
    }

    /// The pod of a VMI, which has these claims.
    pub fn pod(&self, vmi: &VirtualMachineInstance, accelerator: Accelerator, claims: &Claims) -> Value {
        let mut defaulted = vmi.clone();
        admission::default(&mut defaulted);
        let vmi = &defaulted;
        let mut spec = copied(vmi);
        spec.extend(placement(vmi));
        if accelerator == Accelerator::Either {
            prefer_kvm(&mut spec);
        }
        let mut claims = claims.in_pod(vmi);
        claims.volumes.insert(0, json!({"name": VOLUME, "emptyDir": {}}));
        claims
            .mounts
            .insert(0, json!({"name": VOLUME, "mountPath": FOLDER}));
        let fixed = json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": vmi.grace_period().as_secs().saturating_add(MARGIN),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                // What is mounted is that group's, where its driver can do that.
                "runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": true, "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [self.container(vmi, accelerator, &claims)],
            "volumes": claims.volumes,
        });
        if let Value::Object(fixed) = fixed {
            spec.extend(fixed);
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(vmi), "spec": spec})
    }

    fn container(&self, vmi: &VirtualMachineInstance, accelerator: Accelerator, claims: &InPod) -> Value {
        let grace = vmi.grace_period().as_secs().to_string();
        let mut container = json!({
            "name": CONTAINER,
            "image": self.image(vmi, accelerator),
            "command": ["rvmm", "--await", FOLDER, "--grace", grace],
            "securityContext": {
                "runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": true,
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "resources": resources(vmi, accelerator),
            "volumeMounts": claims.mounts,
        });
        if !claims.devices.is_empty() {
            container["volumeDevices"] = json!(claims.devices);
        }
        let ports = ports(vmi);
        if !ports.is_empty() {
            container["ports"] = json!(ports);
        }
        for field in ["readinessProbe", "livenessProbe"] {
            if let Some(probe) = vmi.spec.extra.get(field) {
                container[field] = self::probe(probe);
            }
        }
        container
    }
}

/// How many vCPUs a VMI has.
pub fn vcpus(vmi: &VirtualMachineInstance) -> u64 {
    let cpu = vmi.spec.domain.cpu.clone().unwrap_or_default();
    let counts = [cpu.cores, cpu.sockets, cpu.threads];
    let counts = counts.into_iter().map(|count| u64::from(count.unwrap_or(1)));
    counts.fold(1, u64::saturating_mul)
}

/// By which pods of a VMI are found, and Services find them.
pub fn id(name: &str) -> String {
    if name.len() <= MAX_LABEL {
        return name.to_owned();
    }
    let kept: String = name.chars().take(KEPT_NAME).collect();
    let digest = format!("{:x}", Sha1::digest(name));
    format!("{kept}-{}", digest.get(..DIGITS).unwrap_or_default())
}

fn metadata(vmi: &VirtualMachineInstance) -> Value {
    let name = vmi.metadata.name.as_deref().unwrap_or_default();
    let mut own_labels = vmi.metadata.labels.clone().unwrap_or_default();
    own_labels.extend(
        [
            (labels::APP, "virt-launcher".to_owned()),
            (labels::CREATED_BY, vmi.metadata.uid.clone().unwrap_or_default()),
            (labels::VM_NAME, id(name)),
            (labels::VMI_ID, id(name)),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let mut told = vmi.metadata.annotations.clone().unwrap_or_default();
    told.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    told.extend(
        [
            (annotations::DOMAIN, name),
            ("kubevirt.io/migrationTransportUnix", "true"),
            ("kubectl.kubernetes.io/default-container", CONTAINER),
            ("descheduler.alpha.kubernetes.io/request-evict-only", ""),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let owner = vmi.controller_owner_ref(&()).map(|mut owner| {
        owner.block_owner_deletion = Some(true);
        owner
    });
    json!({
        "generateName": format!("virt-launcher-{name}-"),
        "namespace": vmi.metadata.namespace,
        "labels": own_labels,
        "annotations": told,
        "ownerReferences": owner.into_iter().collect::<Vec<_>>(),
    })
}

fn copied(vmi: &VirtualMachineInstance) -> Map<String, Value> {
    let of = |field: &str| {
        let value = vmi.spec.extra.get(field).filter(|value| !value.is_null())?;
        Some((field.to_owned(), value.clone()))
    };
    COPIED.iter().filter_map(|field| of(field)).collect()
}

/// Where it may be put, and how the pod is called there.
fn placement(vmi: &VirtualMachineInstance) -> Map<String, Value> {
    let mut selector = vmi.spec.node_selector.clone();
    let needed = [
        labels::SCHEDULABLE.to_owned(),
        format!("{}{}", labels::VM_ARCHITECTURE, names::ARCHITECTURE),
        format!("{}{}", labels::MACHINE_TYPE, names::MACHINE),
    ];
    selector.extend(needed.map(|label| (label, "true".to_owned())));
    let mut fields = Map::from_iter([("nodeSelector".to_owned(), json!(selector))]);
    for (field, value) in [
        ("hostname", &vmi.spec.hostname),
        ("subdomain", &vmi.spec.subdomain),
    ] {
        if let Some(value) = value {
            fields.insert(field.to_owned(), json!(value));
        }
    }
    fields
}

/// Of nodes that may emulate, one that need not is better.
fn prefer_kvm(spec: &mut Map<String, Value>) {
    let preferred = json!({
        "weight": KVM_WEIGHT,
        "preference": {"matchExpressions": [{"key": labels::ACCELERATOR, "operator": "In", "values": ["kvm"]}]},
    });
    // What its author has written stays, and what is no affinity the cluster refuses.
    let mut at = spec.entry("affinity").or_insert_with(|| json!({}));
    for field in ["nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"] {
        let Some(fields) = at.as_object_mut() else {
            return;
        };
        at = fields.entry(field).or_insert(Value::Null);
        if at.is_null() {
            *at = if field == "nodeAffinity" {
                json!({})
            } else {
                json!([])
            };
        }
    }
    if let Some(terms) = at.as_array_mut() {
        terms.push(preferred);
    }
}

/// What the container asks for: what the VMI says, and what is needed besides.
fn resources(vmi: &VirtualMachineInstance, accelerator: Accelerator) -> Value {
    let domain = &vmi.spec.domain;
    let asked = domain.resources.clone().unwrap_or_default();
    let guest = domain.memory.as_ref().and_then(|memory| memory.guest.as_ref());
    // What cannot be read is refused by whoever would start the machine.
    let bytes = |quantity: &Quantity| quantity.bytes().unwrap_or_default();
    let guest = guest.map(bytes).unwrap_or_default();
    let unasked = asked.extra.get("overcommitGuestOverhead") == Some(&Value::Bool(true));
    let besides = overhead(vmi, guest, accelerator);
    let raised = |bytes: u64, besides: u64| json!(bytes.saturating_add(besides).to_string());
    let mut requests: BTreeMap<String, Value> = listed(&asked.requests);
    let mut limits: BTreeMap<String, Value> = listed(&asked.limits);
    let limited = asked.limits.get("memory").map(bytes);
    let requested = asked
        .requests
        .get("memory")
        .map(bytes)
        .or(limited)
        .unwrap_or(guest);
    requests.insert(
        "memory".to_owned(),
        raised(requested, if unasked { 0 } else { besides }),
    );
    if let Some(limit) = limited {
        limits.insert("memory".to_owned(), raised(limit, besides));
    }
    if !asked.limits.contains_key("cpu") {
        let millis = vcpus(vmi).saturating_mul(MILLIS_OF_VCPU);
        requests
            .entry("cpu".to_owned())
            .or_insert_with(|| json!(format!("{millis}m")));
    }
    requests
        .entry("ephemeral-storage".to_owned())
        .or_insert_with(|| json!(EPHEMERAL_STORAGE));
    let mut devices = vec![];
    devices.push(match accelerator {
        Accelerator::Kvm => "devices.kubevirt.io/kvm",
        // Every node with a handler has it; those with KVM give that.
        Accelerator::Either => ACCELERATOR,
    });
    if has_network(vmi) {
        devices.push("devices.kubevirt.io/tun");
    }
    for device in devices {
        limits.insert(device.to_owned(), json!("1"));
        requests.insert(device.to_owned(), json!("1"));
    }
    json!({"requests": requests, "limits": limits})
}

fn listed(list: &BTreeMap<String, Quantity>) -> BTreeMap<String, Value> {
    list.iter()
        .map(|(name, quantity)| (name.clone(), json!(quantity)))
        .collect()
}

/// Whether the guest has an interface; it has, unless its author says otherwise.
fn has_network(vmi: &VirtualMachineInstance) -> bool {
    !vmi.spec.domain.devices.interfaces.is_empty()
        || vmi.spec.domain.devices.autoattach_pod_interface != Some(false)
}

/// The ports that interfaces name, for whoever looks for them in pods.
fn ports(vmi: &VirtualMachineInstance) -> Vec<Value> {
    let interfaces = vmi.spec.domain.devices.interfaces.iter();
    let ports = interfaces.flat_map(|interface| &interface.ports);
    let told = ports.map(|port| {
        let mut told = json!({
            "containerPort": port.port,
            "protocol": port.protocol.as_deref().unwrap_or("TCP").to_uppercase(),
        });
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            told["name"] = json!(name);
        }
        told
    });
    told.collect()
}

/// A probe as the kubelet does it: it reaches the guest by the pod's address. The guest's agent is asked by rvmm, to answer or to run a
/// command.
fn probe(probe: &Value) -> Value {
    let mut probe = probe.clone();
    let Some(fields) = probe.as_object_mut() else {
        return probe;
    };
    let asked = ["rvmm", "ctl", "--run-dir", FOLDER];
    let mut asked: Vec<Value> = asked.map(Value::from).to_vec();
    if fields.remove("guestAgentPing").is_some() {
        asked.extend(["agent", "guest-ping"].map(Value::from));
    } else if let Some(exec) = fields.remove("exec") {
        // The kubelet ends it when its own time is over.
        asked.extend(["exec", "--timeout", PROBE_TIME, "--"].map(Value::from));
        asked.extend(exec["command"].as_array().cloned().unwrap_or_default());
    } else {
        return probe;
    }
    fields.insert("exec".to_owned(), json!({"command": asked}));
    probe
}

#[cfg(test)]
mod tests;
