//! What is filled in where the author of a VMI left it out: KubeVirt's defaults, with riscv64's for the machine.
//!
//! The pod's network is not among them: a VMI that names none gets it from its handler, which then still knows that nobody
//! asked for it. KubeVirt writes it into the spec.

use crate::VirtualMachineInstance;
use crate::devices::{CdromTarget, Disk, DiskTarget};
use crate::domain::{Cpu, Domain, Efi, ResourceRequirements};
use crate::hotplug;
use crate::names::{ARCHITECTURE, MACHINE};
use crate::quantity::Quantity;

/// Fills in what was left out. Doing it twice changes nothing more.
pub fn default(vmi: &mut VirtualMachineInstance) {
    let root_filesystem = vmi.root_filesystem().map(str::to_owned);
    let spec = &mut vmi.spec;
    if spec.architecture.as_deref().is_none_or(str::is_empty) {
        spec.architecture = Some(ARCHITECTURE.to_owned());
    }
    default_machine(&mut spec.domain);
    default_cpu(&mut spec.domain);
    default_memory(&mut spec.domain);
    if root_filesystem.is_none() {
        default_bootloader(&mut spec.domain);
    }
    for volume in &mut spec.volumes {
        if let Some(disk) = &mut volume.container_disk {
            default_pull_policy(&mut disk.image_pull_policy, &disk.image);
        }
    }
    let kernel = spec
        .domain
        .firmware
        .as_mut()
        .and_then(|firmware| firmware.kernel_boot.as_mut());
    if let Some(container) = kernel.and_then(|kernel| kernel.container.as_mut()) {
        default_pull_policy(&mut container.image_pull_policy, &container.image);
    }
    let disks = &mut spec.domain.devices.disks;
    for volume in &spec.volumes {
        let is_root = root_filesystem.as_ref() == Some(&volume.name);
        if !is_root && !disks.iter().any(|disk| disk.name == volume.name) {
            disks.push(Disk {
                name: volume.name.clone(),
                disk: volume.is_hotpluggable().then(|| DiskTarget {
                    bus: Some(hotplug::BUS.to_owned()),
                    ..DiskTarget::default()
                }),
                ..Disk::default()
            });
        }
    }
    disks.iter_mut().for_each(default_disk);
}

fn default_machine(domain: &mut Domain) {
    let machine = domain.machine.get_or_insert_default();
    if machine.machine_type.as_deref().is_none_or(str::is_empty) {
        machine.machine_type = Some(MACHINE.to_owned());
    }
}

/// A machine without a kernel boots from its disks, and riscv64 has one way to do that.
fn default_bootloader(domain: &mut Domain) {
    let firmware = domain.firmware.get_or_insert_default();
    let kernel = firmware
        .kernel_boot
        .as_ref()
        .and_then(|kernel| kernel.container.as_ref());
    if kernel.is_none() && firmware.bootloader.is_none() {
        firmware.bootloader.get_or_insert_default().efi = Some(Efi {
            secure_boot: Some(false),
            ..Efi::default()
        });
    }
}

/// One of each, except that a VMI which only says how much processor it wants gets as many sockets.
fn default_cpu(domain: &mut Domain) {
    let asked = domain
        .resources
        .as_ref()
        .and_then(|resources| resource(resources, "cpu", ["limits", "requests"]));
    let cpu = domain.cpu.get_or_insert_default();
    let one = |count: &Option<u32>| count.filter(|count| *count > 0).or(Some(1));
    let Cpu {
        cores,
        sockets,
        threads,
        ..
    } = &*cpu;
    let says_nothing = [cores, sockets, threads]
        .iter()
        .all(|count| count.is_none_or(|count| count == 0));
    let whole = asked
        .and_then(|asked| asked.value().ok())
        .and_then(|count| u32::try_from(count).ok());
    cpu.sockets = if says_nothing {
        whole.filter(|count| *count > 0).or(Some(1))
    } else {
        one(sockets)
    };
    cpu.cores = one(&cpu.cores);
    cpu.threads = one(&cpu.threads);
}

fn default_memory(domain: &mut Domain) {
    let asked = domain
        .resources
        .as_ref()
        .and_then(|resources| resource(resources, "memory", ["requests", "limits"]));
    if let Some(asked) = asked
        && domain.memory.as_ref().is_none_or(|memory| memory.guest.is_none())
    {
        domain.memory.get_or_insert_default().guest = Some(asked);
    }
}

/// What is asked of a resource, in the first of these lists that names it.
fn resource(resources: &ResourceRequirements, name: &str, lists: [&str; 2]) -> Option<Quantity> {
    let list = |list| {
        if list == "limits" {
            &resources.limits
        } else {
            &resources.requests
        }
    };
    lists.into_iter().find_map(|which| list(which).get(name).cloned())
}

/// A tag that moves is asked for each time; one that stays, or a digest, is asked for once.
fn default_pull_policy(policy: &mut Option<String>, image: &str) {
    if policy.as_deref().is_some_and(|policy| !policy.is_empty()) {
        return;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    let tag = name.split_once(':').map(|(_, tag)| tag);
    let moves = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    *policy = Some(if moves { "Always" } else { "IfNotPresent" }.to_owned());
}

fn default_disk(disk: &mut Disk) {
    let virtio = || Some("virtio".to_owned());
    if disk.disk.is_none() && disk.cdrom.is_none() && !disk.extra.contains_key("lun") {
        disk.disk = Some(DiskTarget::default());
    }
    if let Some(DiskTarget { bus, .. }) = &mut disk.disk {
        *bus = bus.take().or_else(virtio);
    }
    if let Some(CdromTarget { bus, readonly, .. }) = &mut disk.cdrom {
        *bus = bus.take().or_else(virtio);
        *readonly = readonly.or(Some(true));
    }
}
