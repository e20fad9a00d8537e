//! Everything that is wrong with a VMI, in the order of its fields.

use std::collections::BTreeMap;

use super::unsupported;
use super::{Cause, Path, boot, config, devices, networks, volumes};
use crate::VirtualMachineInstance;
use crate::domain::{Domain, ResourceRequirements};
use crate::names::{ARCHITECTURE, MACHINE};
use crate::quantity::Quantity;
use crate::vmi::{START_PAUSED, VirtualMachineInstanceSpec};

/// Most processors of a guest.
pub const MAX_CPUS: u64 = 64;
/// Least memory of a guest, in bytes: below it no kernel boots.
pub const MIN_MEMORY: u64 = 32 << 20;
/// Most memory of a guest, in bytes: it must fit the guest's physical addresses.
pub const MAX_MEMORY: u64 = 256 << 30;
/// Longest name of an object, in bytes.
pub const MAX_NAME: usize = 253;
/// Longest name of a host, a volume or a disk, in bytes: a DNS label.
pub const MAX_LABEL: usize = 63;

const CPU_MODELS: [&str; 3] = ["host-passthrough", "rv64", "max"];
/// What a machine may want of an extension.
const CPU_POLICIES: [&str; 5] = ["force", "require", "optional", "disable", "forbid"];
const EVICTION: [&str; 4] = ["None", "LiveMigrate", "LiveMigrateIfPossible", "External"];

/// Names everything that is wrong with a VMI, or that rvm cannot do yet. Call [`super::default`] first: what it
/// fills in is taken for missing here.
pub fn validate(vmi: &VirtualMachineInstance) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = Path::new("spec");
    validate_name(vmi.metadata.name.as_deref(), &mut causes);
    validate_spec(&vmi.spec, &spec, &mut causes);
    validate_domain(&vmi.spec.domain, &spec.field("domain"), &mut causes);
    devices::validate(vmi, &spec, &mut causes);
    volumes::validate(vmi, &spec, &mut causes);
    networks::validate(vmi, &spec, &mut causes);
    config::validate(vmi, &spec, &mut causes);
    boot::validate(vmi, &spec, &mut causes);
    unsupported::validate(&vmi.spec, &spec, &mut causes);
    causes
}

fn validate_name(name: Option<&str>, causes: &mut Vec<Cause>) {
    let path = Path::new("metadata.name");
    let Some(name) = name else { return };
    if name.len() > MAX_NAME {
        causes.push(path.invalid(format_args!("must be no more than {MAX_NAME} bytes")));
    } else if !is_name(name) {
        causes.push(path.invalid(
            "must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an \
             alphanumeric character",
        ));
    }
}

fn validate_spec(spec: &VirtualMachineInstanceSpec, path: &Path, causes: &mut Vec<Cause>) {
    match spec.architecture.as_deref() {
        Some(ARCHITECTURE) => {}
        Some(other) => causes.push(
            path.field("architecture")
                .not_supported(format_args!("is {other:?}; rvm runs {ARCHITECTURE} only")),
        ),
        None => causes.push(path.field("architecture").required("is missing")),
    }
    if let Some(hostname) = spec.hostname.as_deref().filter(|hostname| !is_label(hostname)) {
        causes.push(
            path.field("hostname")
                .invalid(format_args!("is {hostname:?}, which is not a DNS label")),
        );
    }
    if spec
        .termination_grace_period_seconds
        .is_some_and(|seconds| seconds < 0)
    {
        causes.push(
            path.field("terminationGracePeriodSeconds")
                .invalid("must not be negative"),
        );
    }
    one_of(
        &spec.eviction_strategy,
        &path.field("evictionStrategy"),
        &EVICTION,
        causes,
    );
    one_of(
        &spec.start_strategy,
        &path.field("startStrategy"),
        &[START_PAUSED],
        causes,
    );
}

fn validate_domain(domain: &Domain, path: &Path, causes: &mut Vec<Cause>) {
    let machine = domain
        .machine
        .as_ref()
        .and_then(|machine| machine.machine_type.as_deref())
        .unwrap_or(MACHINE);
    if machine != MACHINE && !machine.starts_with("virt-") {
        let why = format_args!("is {machine:?}; a riscv64 guest's machine is {MACHINE:?}");
        causes.push(path.field("machine.type").not_supported(why));
    }
    validate_cpu(domain, &path.field("cpu"), causes);
    validate_memory(domain, &path.field("memory.guest"), causes);
    if let Some(resources) = &domain.resources {
        validate_resources(resources, &path.field("resources"), causes);
    }
}

fn validate_cpu(domain: &Domain, path: &Path, causes: &mut Vec<Cause>) {
    let Some(cpu) = &domain.cpu else { return };
    let counts = [
        ("cores", cpu.cores),
        ("sockets", cpu.sockets),
        ("threads", cpu.threads),
    ];
    for (name, _) in counts.iter().filter(|(_, count)| *count == Some(0)) {
        causes.push(path.field(name).invalid("must be at least 1"));
    }
    let product = counts
        .iter()
        .map(|(_, count)| u64::from(count.unwrap_or(1)))
        .fold(1, u64::saturating_mul);
    if product > MAX_CPUS {
        let why =
            format_args!("asks for {product} processors (cores × sockets × threads); the most is {MAX_CPUS}");
        causes.push(path.invalid(why));
    }
    one_of(&cpu.model, &path.field("model"), &CPU_MODELS, causes);
    let features = path.field("features");
    distinct(
        cpu.features.iter().map(|feature| feature.name.as_str()),
        &features,
        "name",
        causes,
    );
    for (index, feature) in cpu.features.iter().enumerate() {
        let policy = features.index(index).field("policy");
        one_of(&feature.policy, &policy, &CPU_POLICIES, causes);
    }
}

fn validate_memory(domain: &Domain, path: &Path, causes: &mut Vec<Cause>) {
    let Some(guest) = domain.memory.as_ref().and_then(|memory| memory.guest.as_ref()) else {
        causes.push(path.required("is missing, and so are requests and limits of memory to take it from"));
        return;
    };
    match guest.bytes() {
        Err(error) => causes.push(path.invalid(format_args!("{error}: {guest}"))),
        Ok(bytes) if bytes < MIN_MEMORY => {
            causes.push(path.invalid(format_args!("is {guest}; the least is {}Mi", MIN_MEMORY >> 20)));
        }
        Ok(bytes) if bytes > MAX_MEMORY => {
            causes.push(path.invalid(format_args!("is {guest}; the most is {}Gi", MAX_MEMORY >> 30)));
        }
        Ok(_) => {}
    }
}

fn validate_resources(resources: &ResourceRequirements, path: &Path, causes: &mut Vec<Cause>) {
    let lists = [("requests", &resources.requests), ("limits", &resources.limits)];
    for (list, quantities) in lists {
        for (name, quantity) in quantities {
            if let Err(error) = quantity.millis() {
                causes.push(
                    path.field(list)
                        .field(name)
                        .invalid(format_args!("{error}: {quantity}")),
                );
            }
        }
    }
    let millis =
        |list: &BTreeMap<String, Quantity>, name| list.get(name).and_then(|amount| amount.millis().ok());
    for name in ["memory", "cpu"] {
        let (wanted, most) = (millis(&resources.requests, name), millis(&resources.limits, name));
        if wanted.zip(most).is_some_and(|(wanted, most)| wanted > most) {
            causes.push(
                path.field("requests")
                    .field(name)
                    .invalid(format_args!("is more than limits.{name}")),
            );
        }
    }
}

/// Refuses a value that is none of these.
pub(super) fn one_of(value: &Option<String>, path: &Path, allowed: &[&str], causes: &mut Vec<Cause>) {
    if let Some(value) = value.as_deref().filter(|value| !allowed.contains(value)) {
        causes.push(path.not_supported(format_args!("is {value:?}; supported: {}", allowed.join(", "))));
    }
}

/// Refuses a name that an earlier element of the list has.
pub(super) fn distinct<'a>(
    names: impl Iterator<Item = &'a str>,
    list: &Path,
    field: &str,
    causes: &mut Vec<Cause>,
) {
    let mut seen = BTreeMap::new();
    for (index, name) in names.enumerate() {
        let path = list.index(index).field(field);
        match seen.get(name) {
            Some(first) => causes.push(path.duplicate(&list.index(*first).field(field))),
            None => {
                seen.insert(name, index);
            }
        }
    }
}

/// Whether this is a DNS label: what a host, a volume and a disk are called.
/// Whether a text can be an object's name: DNS labels with dots between them.
pub fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(is_label_of_any_length)
}

/// Whether a text can be a namespace's name or a host's: one DNS label.
pub fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL && is_label_of_any_length(text)
}

fn is_label_of_any_length(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-')
}
