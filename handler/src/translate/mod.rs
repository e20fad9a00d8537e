//! From a VMI to a machine: first what has to be there before it can start ([`Wants`]), then, once it is there, the
//! checked [`Spec`] for rvmm.
//!
//! ```text
//!   VMI ──default, validate──► wants() ──► Wants ──prepared by steps──► Artefacts ──► spec() ──► Spec
//!                                └► Vec<Cause>: what cannot be done, each with its field's path
//! ```
//!
//! Pure, and asked before a VMI is claimed: a node takes only what it can run.

pub mod boot;
pub mod cpu;
pub mod disks;
pub mod memory;

use std::path::PathBuf;

use rvm_types::admission::{self, Cause};
use rvm_types::{VirtualMachineInstance, VirtualMachineInstanceSpec};
use rvmm_spec::{
    AcceleratorChoice, CpuModel, DiskFormat, MemorySize, NetWish, Network, OnStart, Spec, SpecError,
    Transport, Vars,
};

use crate::networks::model::{MTU, TAP};
use crate::networks::wish::NetworkWish;
use crate::vm::VmId;
use crate::volumes::DiskFile;
pub use boot::{BootSource, Efi};
pub use disks::DiskWish;

/// A machine as the VMI asks for it, before its files are there.
#[derive(Debug, Clone, PartialEq)]
pub struct Wants {
    /// What it boots.
    pub boot: BootSource,
    /// Its disks, in the guest's order.
    pub disks: Vec<DiskWish>,
    /// Whether more disks may come while it runs.
    pub takes_disks: bool,
    /// Its processors.
    pub cpus: u64,
    /// What they can do.
    pub cpu: CpuModel,
    /// Its memory.
    pub memory: MemorySize,
    /// Whether it waits until someone lets it begin.
    pub on_start: OnStart,
    /// Its network.
    pub network: Option<NetworkWish>,
    /// Whether it has a balloon, by which it tells of its memory and gives back what it does not use.
    pub balloon: bool,
}

/// The files that a machine needs, each where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefacts {
    /// The kernel, or the firmware.
    pub payload: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Where the firmware keeps its variables.
    pub vars: Option<Vars>,
    /// One for each of [`Wants::disks`].
    pub disks: Vec<DiskFile>,
}

// === impl Wants ===

impl Wants {
    /// The same machine without a network.
    #[must_use]
    pub fn without_network(self) -> Self {
        Self {
            network: None,
            ..self
        }
    }
}

/// What a VMI asks for, of a node whose machines are in pods or not.
///
/// # Errors
/// Everything that is wrong with it or cannot be done here, at least one cause.
pub fn wants(id: &VmId, vmi: &VirtualMachineInstance, in_pods: bool) -> Result<Wants, Vec<Cause>> {
    let mut vmi = vmi.clone();
    admission::default(&mut vmi);
    let mut causes = if in_pods {
        admission::validate_in_pods(&vmi)
    } else {
        admission::validate(&vmi)
    };
    if !causes.is_empty() {
        return Err(causes);
    }
    let spec: &VirtualMachineInstanceSpec = &vmi.spec;
    let boot = boot::source(&vmi).map_err(|cause| causes.push(cause));
    let disks = disks::wishes(&vmi).map_err(|more| causes.extend(more));
    let memory = memory::guest(&spec.domain).map_err(|cause| causes.push(cause));
    let network = NetworkWish::of(&vmi).map_err(|cause| causes.push(cause));
    let cpu = cpu::model(&spec.domain).map_err(|cause| causes.push(cause));
    match (boot, disks, memory, network, cpu) {
        (Ok(boot), Ok(disks), Ok(memory), Ok(network), Ok(cpu)) => {
            let wants = Wants {
                boot,
                disks,
                memory,
                network,
                balloon: spec.domain.devices.autoattach_mem_balloon != Some(false),
                takes_disks: vmi.takes_volumes(),
                cpus: cpu::count(&spec.domain),
                cpu,
                on_start: if vmi.starts_paused() {
                    OnStart::Pause
                } else {
                    OnStart::Run
                },
            };
            // Whatever else a Spec refuses is found now, not after the VMI was claimed.
            let nowhere = Artefacts {
                payload: PathBuf::new(),
                initrd: None,
                vars: None,
                disks: wants.disks.iter().map(|_| nowhere()).collect(),
            };
            match self::spec(id, &wants, nowhere, AcceleratorChoice::Auto) {
                Ok(_) => Ok(wants),
                Err(error) => Err(vec![admission::Path::new("spec").invalid(error)]),
            }
        }
        _ => Err(causes),
    }
}

/// The machine for rvmm.
///
/// # Errors
/// What a [`Spec`] refuses.
pub fn spec(
    id: &VmId,
    wants: &Wants,
    files: Artefacts,
    accelerator: AcceleratorChoice,
) -> Result<Spec, SpecError> {
    let builder = Spec::builder(wants.boot.boot(files.payload, files.initrd, files.vars))
        .name(&id.name)
        .uid(&id.uid)
        .cpus(wants.cpus)
        .cpu(wants.cpu.clone())
        .memory(wants.memory)
        .balloon(wants.balloon)
        .on_start(wants.on_start)
        .scsi(wants.takes_disks)
        .accelerator(accelerator);
    let disks = wants.disks.iter().zip(files.disks);
    let builder = disks.fold(builder, |builder, (wish, file)| builder.disk(wish.at(file)));
    let builder = match &wants.network {
        Some(network) => builder.interface(interface(network)),
        None => builder,
    };
    match builder.clone().build() {
        // More than the bus that every guest knows has places for.
        Err(SpecError::Devices(..)) => builder.transport(Transport::Pci).build(),
        built => built,
    }
}

/// The guest's end of its network: rvmm is started where this tap is.
fn interface(network: &NetworkWish) -> NetWish {
    let tap = TAP.parse().expect("the name is one that Linux takes");
    NetWish {
        mac: Some(network.mac),
        queues: network.queues,
        mtu: Some(MTU),
        ..NetWish::new(Network::Tap(tap))
    }
}

/// Stands for a file that is not there yet.
fn nowhere() -> DiskFile {
    DiskFile {
        path: PathBuf::new(),
        format: DiskFormat::Raw,
        base: None,
        direct: false,
    }
}

#[cfg(test)]
mod tests;
