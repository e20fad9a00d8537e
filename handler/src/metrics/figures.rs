//! What machines said, as OpenMetrics: KubeVirt's names, units and labels where there is one.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rvmm_control::{Accelerator, State};

use super::sample::{Flow, Sample};
use crate::networks::model::TAP;

/// rvmm's counter of what a guest has printed.
const PRINTED: &str = "console.output-bytes";

/// Of a disk: KubeVirt's name, what it is, rvmm's name.
const OF_DISKS: [(&str, &str, &str); 5] = [
    (
        "kubevirt_vmi_storage_iops_read",
        "Requests that read a disk",
        "read-requests",
    ),
    (
        "kubevirt_vmi_storage_iops_write",
        "Requests that wrote a disk",
        "write-requests",
    ),
    (
        "kubevirt_vmi_storage_read_traffic_bytes",
        "Bytes read from a disk",
        "read-bytes",
    ),
    (
        "kubevirt_vmi_storage_write_traffic_bytes",
        "Bytes written to a disk",
        "write-bytes",
    ),
    (
        "kubevirt_vmi_storage_flush_requests",
        "Flushes of a disk",
        "flush-requests",
    ),
];

/// Of a disk: how long it took.
const TIMES_OF_DISKS: [(&str, &str, &str); 3] = [
    (
        "kubevirt_vmi_storage_read_times_seconds",
        "Time that reads of a disk took",
        "read-nanoseconds",
    ),
    (
        "kubevirt_vmi_storage_write_times_seconds",
        "Time that writes of a disk took",
        "write-nanoseconds",
    ),
    (
        "kubevirt_vmi_storage_flush_times_seconds",
        "Time that flushes of a disk took",
        "flush-nanoseconds",
    ),
];

/// Of the guest's memory, as it says itself: KubeVirt's name, what it is, rvmm's name.
const OF_MEMORY: [(&str, &str, &str); 4] = [
    (
        "kubevirt_vmi_memory_available_bytes",
        "Memory that the guest's kernel manages",
        "guest.total-memory",
    ),
    (
        "kubevirt_vmi_memory_usable_bytes",
        "Memory that the guest could use without swapping",
        "guest.available-memory",
    ),
    (
        "kubevirt_vmi_memory_unused_bytes",
        "Memory that the guest uses for nothing",
        "guest.free-memory",
    ),
    (
        "kubevirt_vmi_memory_cached_bytes",
        "Memory in which the guest caches disks",
        "guest.disk-caches",
    ),
];

/// Of the guest's memory: what it counts.
const FAULTS: [(&str, &str, &str); 4] = [
    (
        "kubevirt_vmi_memory_pgmajfault",
        "Page faults of the guest that waited for a disk",
        "guest.major-faults",
    ),
    (
        "kubevirt_vmi_memory_pgminfault",
        "Page faults of the guest that did not",
        "guest.minor-faults",
    ),
    (
        "kubevirt_vmi_memory_swap_in_traffic_bytes",
        "What the guest swapped in",
        "guest.swap-in",
    ),
    (
        "kubevirt_vmi_memory_swap_out_traffic_bytes",
        "What the guest swapped out",
        "guest.swap-out",
    ),
];

/// Of an interface: the end of KubeVirt's name, and what it counts.
const OF_INTERFACES: [(&str, OfFlow); 4] = [
    ("bytes", |flow| flow.bytes),
    ("packets", |flow| flow.packets),
    ("errors", |flow| flow.errors),
    ("packets_dropped", |flow| flow.dropped),
];

/// Takes a number out of one direction.
type OfFlow = fn(&Flow) -> u64;

/// Seconds that are counted up.
type Seconds = Counter<f64, AtomicU64>;

/// Which machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Which {
    node: String,
    namespace: String,
    name: String,
}

/// Which machine, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Facts {
    node: String,
    namespace: String,
    name: String,
    phase: &'static str,
    accelerator: &'static str,
}

/// Which disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Drive {
    node: String,
    namespace: String,
    name: String,
    drive: String,
}

/// Which interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Link {
    node: String,
    namespace: String,
    name: String,
    interface: &'static str,
}

/// Which vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Vcpu {
    node: String,
    namespace: String,
    name: String,
    id: u32,
}

/// Which vCPU, doing what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Busy {
    node: String,
    namespace: String,
    name: String,
    id: u32,
    state: &'static str,
}

/// What all machines here said.
#[derive(Default)]
pub(super) struct Figures {
    info: Family<Facts, Gauge>,
    cpu: Family<Which, Seconds>,
    user: Family<Which, Seconds>,
    system: Family<Which, Seconds>,
    ran: Family<Busy, Seconds>,
    delayed: Family<Vcpu, Seconds>,
    resident: Family<Which, Gauge>,
    domain: Family<Which, Gauge>,
    memory: [Family<Which, Gauge>; OF_MEMORY.len()],
    faults: [Family<Which, Counter>; FAULTS.len()],
    disks: [Family<Drive, Counter>; OF_DISKS.len()],
    times: [Family<Drive, Seconds>; TIMES_OF_DISKS.len()],
    received: [Family<Link, Counter>; OF_INTERFACES.len()],
    transmitted: [Family<Link, Counter>; OF_INTERFACES.len()],
    printed: Family<Which, Counter>,
    resets: Family<Which, Counter>,
    up: Family<Which, Gauge>,
}

// === impl Figures ===

impl Figures {
    /// Adds a machine of this node.
    pub(super) fn add(&mut self, node: &str, sample: &Sample) {
        let which = Which {
            node: node.to_owned(),
            namespace: sample.id.namespace.clone(),
            name: sample.id.name.clone(),
        };
        self.add_state(&which, sample);
        self.add_processors(&which, sample);
        self.add_memory(&which, sample);
        self.add_disks(&which, sample);
        self.add_interface(&which, sample);
    }

    fn add_state(&self, which: &Which, Sample { info, stats, .. }: &Sample) {
        let paused = info.state == State::Paused;
        let facts = Facts {
            node: which.node.clone(),
            namespace: which.namespace.clone(),
            name: which.name.clone(),
            phase: if paused { "paused" } else { "running" },
            accelerator: match info.accelerator {
                Accelerator::Kvm => "kvm",
                Accelerator::Tcg => "tcg",
            },
        };
        let printed = stats.counters.get(PRINTED).copied().unwrap_or(0);
        self.info.get_or_create(&facts).set(1);
        self.printed.get_or_create(which).inc_by(printed);
        self.resets.get_or_create(which).inc_by(info.resets);
        self.up.get_or_create(which).set(whole(info.uptime_seconds));
    }

    fn add_processors(&self, which: &Which, sample: &Sample) {
        let (user, system) = (seconds(sample.spent.user), seconds(sample.spent.system));
        self.cpu.get_or_create(which).inc_by(user + system);
        self.user.get_or_create(which).inc_by(user);
        self.system.get_or_create(which).inc_by(system);
        for (id, thread) in &sample.vcpus {
            let (
                id,
                Which {
                    node,
                    namespace,
                    name,
                },
            ) = (*id, which.clone());
            let busy = Busy {
                node: node.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
                id,
                state: "running",
            };
            let vcpu = Vcpu {
                node,
                namespace,
                name,
                id,
            };
            self.ran.get_or_create(&busy).inc_by(thread.ran.as_secs_f64());
            self.delayed
                .get_or_create(&vcpu)
                .inc_by(thread.waited.as_secs_f64());
        }
    }

    fn add_memory(&self, which: &Which, sample: &Sample) {
        self.resident.get_or_create(which).set(whole(sample.spent.memory));
        self.domain
            .get_or_create(which)
            .set(whole(sample.info.memory_bytes));
        let said = &sample.stats.gauges;
        for (family, (.., key)) in self.memory.iter().zip(OF_MEMORY) {
            if let Some(value) = said.get(key) {
                family.get_or_create(which).set(whole(*value));
            }
        }
        for (family, (.., key)) in self.faults.iter().zip(FAULTS) {
            if let Some(value) = said.get(key) {
                family.get_or_create(which).inc_by(*value);
            }
        }
    }

    fn add_disks(&self, which: &Which, sample: &Sample) {
        let counters = sample.stats.counters.iter();
        let of_disks = counters.filter_map(|(name, value)| {
            let (drive, what) = name.strip_prefix("disk.")?.rsplit_once('.')?;
            Some((drive, what, *value))
        });
        for (drive, what, value) in of_disks {
            let drive = Drive {
                node: which.node.clone(),
                namespace: which.namespace.clone(),
                name: which.name.clone(),
                drive: drive.to_owned(),
            };
            if let Some(at) = OF_DISKS.iter().position(|(.., known)| *known == what) {
                self.disks[at].get_or_create(&drive).inc_by(value);
            }
            if let Some(at) = TIMES_OF_DISKS.iter().position(|(.., known)| *known == what) {
                let took = Duration::from_nanos(value).as_secs_f64();
                self.times[at].get_or_create(&drive).inc_by(took);
            }
        }
    }

    fn add_interface(&self, which: &Which, sample: &Sample) {
        let Some(interface) = &sample.interface else {
            return;
        };
        let link = Link {
            node: which.node.clone(),
            namespace: which.namespace.clone(),
            name: which.name.clone(),
            interface: TAP,
        };
        for (at, (_, of)) in OF_INTERFACES.iter().enumerate() {
            self.received[at]
                .get_or_create(&link)
                .inc_by(of(&interface.received));
            self.transmitted[at]
                .get_or_create(&link)
                .inc_by(of(&interface.transmitted));
        }
    }

    /// Has all of it told.
    pub(super) fn register(self, registry: &mut Registry) {
        let help = "A machine that runs here, or is paused";
        registry.register("kubevirt_vmi_info", help, self.info);
        let help = "Processors' time that a machine's processes have spent";
        registry.register("kubevirt_vmi_cpu_usage_seconds", help, self.cpu);
        let help = "Of this, outside of the node's kernel; the guest's own is there";
        registry.register("kubevirt_vmi_cpu_user_usage_seconds", help, self.user);
        let help = "Of this, in the node's kernel";
        registry.register("kubevirt_vmi_cpu_system_usage_seconds", help, self.system);
        let help = "Time that a vCPU's thread ran";
        registry.register("kubevirt_vmi_vcpu_seconds", help, self.ran);
        let help = "Time that a vCPU's thread could have run and had no processor";
        registry.register("kubevirt_vmi_vcpu_delay_seconds", help, self.delayed);
        let help = "Memory of the node that a machine's processes hold";
        registry.register("kubevirt_vmi_memory_resident_bytes", help, self.resident);
        let help = "Memory that its guest has";
        registry.register("kubevirt_vmi_memory_domain_bytes", help, self.domain);
        for ((name, help, _), family) in OF_MEMORY.into_iter().zip(self.memory) {
            registry.register(name, help, family);
        }
        for ((name, help, _), family) in FAULTS.into_iter().zip(self.faults) {
            registry.register(name, help, family);
        }
        for ((name, help, _), family) in OF_DISKS.into_iter().zip(self.disks) {
            registry.register(name, help, family);
        }
        for ((name, help, _), family) in TIMES_OF_DISKS.into_iter().zip(self.times) {
            registry.register(name, help, family);
        }
        for ((end, _), family) in OF_INTERFACES.into_iter().zip(self.received) {
            let help = "What its guest received, or should have";
            registry.register(format!("kubevirt_vmi_network_receive_{end}"), help, family);
        }
        for ((end, _), family) in OF_INTERFACES.into_iter().zip(self.transmitted) {
            let help = "What its guest transmitted, or should have";
            registry.register(format!("kubevirt_vmi_network_transmit_{end}"), help, family);
        }
        let help = "What its guest has printed";
        registry.register("rvm_vmi_console_output_bytes", help, self.printed);
        let help = "How often its guest was booted again";
        registry.register("rvm_vmi_resets", help, self.resets);
        registry.register("rvm_vmi_uptime_seconds", "How long it runs", self.up);
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn seconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64()
}
