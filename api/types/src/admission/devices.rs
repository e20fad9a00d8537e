//! What can be wrong with disks.

use super::validate::{distinct, one_of};
use super::{Cause, Path};
use crate::VirtualMachineInstance;
use crate::devices::Disk;
use crate::hotplug;
use crate::volume::Volume;

/// Longest serial number of a disk in bytes, on virtio and on SCSI.
const MAX_SERIAL: usize = 20;
const MAX_SCSI_SERIAL: usize = 36;
const BUSES: [&str; 2] = ["virtio", hotplug::BUS];
const CACHES: [&str; 3] = ["none", "writethrough", "writeback"];
/// What is done when a disk fails.
const ERROR_POLICIES: [&str; 4] = ["stop", "report", "enospace", "ignore"];
const IO: [&str; 3] = ["native", "threads", "default"];

pub(super) fn validate(vmi: &VirtualMachineInstance, spec: &Path, causes: &mut Vec<Cause>) {
    let path = spec.field("domain.devices");
    let devices = &vmi.spec.domain.devices;
    let disks = path.field("disks");
    distinct(
        devices.disks.iter().map(|disk| disk.name.as_str()),
        &disks,
        "name",
        causes,
    );
    for (index, disk) in devices.disks.iter().enumerate() {
        validate_disk(disk, &vmi.spec.volumes, &disks.index(index), causes);
    }
    validate_boot_order(&devices.disks, &disks, causes);
    validate_hotpluggable(vmi, &disks, causes);
}

/// What holds of the disks that come and go while the machine runs.
fn validate_hotpluggable(vmi: &VirtualMachineInstance, path: &Path, causes: &mut Vec<Cause>) {
    let devices = &vmi.spec.domain.devices;
    if vmi.hotpluggable().count() > hotplug::MAX_VOLUMES {
        let most = hotplug::MAX_VOLUMES;
        causes.push(
            Path::new("spec.volumes").invalid(format_args!("has more than {most} that are hotpluggable")),
        );
    }
    for (index, disk) in devices.disks.iter().enumerate() {
        if !vmi.hotpluggable().any(|volume| volume.name == disk.name) {
            continue;
        }
        let path = path.index(index);
        let bus = disk.disk.as_ref().and_then(|target| target.bus.as_deref());
        if disk.cdrom.is_some() || bus != Some(hotplug::BUS) {
            causes.push(path.field("disk.bus").not_supported(format_args!(
                "is not {}, the only bus by which a hotpluggable volume comes",
                hotplug::BUS
            )));
        }
        if disk.boot_order.is_some() {
            causes.push(
                path.field("bootOrder")
                    .not_supported("is of a hotpluggable volume, which comes when the guest has booted"),
            );
        }
        if !vmi.takes_volumes() {
            causes.push(path.not_supported(
                "is of a hotpluggable volume, which spec.domain.devices.disableHotplug excludes",
            ));
        }
    }
}

fn validate_disk(disk: &Disk, volumes: &[Volume], path: &Path, causes: &mut Vec<Cause>) {
    if !volumes.iter().any(|volume| volume.name == disk.name) {
        causes.push(path.field("name").invalid(format_args!(
            "is {:?}; spec.volumes has no such volume",
            disk.name
        )));
    }
    if disk.disk.is_some() && disk.cdrom.is_some() {
        causes.push(path.invalid("must be of one kind only: disk or cdrom"));
    }
    if let Some(target) = &disk.disk {
        one_of(&target.bus, &path.field("disk.bus"), &BUSES, causes);
    }
    if let Some(cdrom) = &disk.cdrom {
        one_of(&cdrom.bus, &path.field("cdrom.bus"), &BUSES, causes);
        if cdrom.readonly == Some(false) {
            causes.push(path.field("cdrom.readonly").invalid("must be true"));
        }
    }
    one_of(&disk.cache, &path.field("cache"), &CACHES, causes);
    let policy = path.field("errorPolicy");
    one_of(&disk.error_policy, &policy, &ERROR_POLICIES, causes);
    one_of(&disk.io, &path.field("io"), &IO, causes);
    let target = disk.disk.as_ref().and_then(|target| target.bus.as_deref());
    let bus = target.or(disk.cdrom.as_ref().and_then(|target| target.bus.as_deref()));
    let most = if bus == Some(hotplug::BUS) {
        MAX_SCSI_SERIAL
    } else {
        MAX_SERIAL
    };
    if disk
        .serial
        .as_ref()
        .is_some_and(|serial| serial.len() > most || !serial.is_ascii())
    {
        causes.push(
            path.field("serial")
                .invalid(format_args!("must be ASCII, {most} bytes at most")),
        );
    }
}

fn validate_boot_order(disks: &[Disk], path: &Path, causes: &mut Vec<Cause>) {
    for (index, disk) in disks
        .iter()
        .enumerate()
        .filter(|(_, disk)| disk.boot_order.is_some())
    {
        let here = path.index(index).field("bootOrder");
        if disk.boot_order == Some(0) {
            causes.push(here.invalid("must be greater than 0"));
        } else if let Some(first) = disks[..index]
            .iter()
            .position(|other| other.boot_order == disk.boot_order)
        {
            causes.push(here.duplicate(&path.index(first).field("bootOrder")));
        }
    }
}
