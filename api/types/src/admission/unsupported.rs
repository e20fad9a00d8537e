//! Fields that we do not model: each is refused by its path, unless it is listed here as one that only advises the
//! host or the placement, or says nothing (`false`, `null`, an empty list).

use serde_json::Value;

use super::{Cause, Path};
use crate::config::{AccessCredential, UserPassword};
use crate::devices::Devices;
use crate::domain::{Domain, Firmware};
use crate::vmi::VirtualMachineInstanceSpec;
use crate::volume::Volume;

/// These neither change the guest nor forbid a node: rvm knows no taints, and schedules by `nodeSelector` alone.
pub(crate) const SPEC: [&str; 5] = [
    "dnsPolicy",
    "priorityClassName",
    "schedulerName",
    "serviceAccountName",
    "tolerations",
];
pub(crate) const DOMAIN: [&str; 2] = ["ioThreads", "ioThreadsPolicy"];
/// These ask for nothing when they are empty, unlike `tpm: {}`, which asks for the device.
const EMPTY: [&str; 2] = ["clock", "features"];
pub(crate) const RESOURCES: [&str; 1] = ["overcommitGuestOverhead"];
pub(crate) const DEVICES: [&str; 2] = ["autoattachInputDevice", "blockMultiQueue"];

pub(super) fn validate(spec: &VirtualMachineInstanceSpec, path: &Path, causes: &mut Vec<Cause>) {
    refuse(&spec.extra, path, &SPEC, causes);
    validate_domain(&spec.domain, &path.field("domain"), causes);
    validate_devices(&spec.domain.devices, &path.field("domain.devices"), causes);
    for (index, volume) in spec.volumes.iter().enumerate() {
        let path = path.field("volumes").index(index);
        refuse(&volume.extra, &path, &[], causes);
        for (field, extra) in volume.sources() {
            refuse(extra, &path.field(field), &[], causes);
        }
        validate_within(volume, &path, causes);
        validate_ephemeral(volume, &path, causes);
    }
    for (index, credential) in spec.access_credentials.iter().enumerate() {
        validate_credential(credential, &path.field("accessCredentials").index(index), causes);
    }
}

/// What stands deeper than in a volume's source itself.
fn validate_within(volume: &Volume, path: &Path, causes: &mut Vec<Cause>) {
    for (index, file) in volume.downward_api.iter().flat_map(|api| &api.fields).enumerate() {
        let path = path.field("downwardAPI.fields").index(index);
        refuse(&file.extra, &path, &[], causes);
        if let Some(field) = &file.field_ref {
            refuse(&field.extra, &path.field("fieldRef"), &[], causes);
        }
    }
}

fn validate_ephemeral(volume: &Volume, path: &Path, causes: &mut Vec<Cause>) {
    let ephemeral = volume.ephemeral.as_ref();
    if let Some(claim) = ephemeral.and_then(|ephemeral| ephemeral.persistent_volume_claim.as_ref()) {
        refuse(
            &claim.extra,
            &path.field("ephemeral.persistentVolumeClaim"),
            &[],
            causes,
        );
        if claim.hotpluggable == Some(true) {
            let path = path.field("ephemeral.persistentVolumeClaim.hotpluggable");
            causes.push(path.not_supported("is not supported by rvm"));
        }
    }
}

fn validate_credential(credential: &AccessCredential, path: &Path, causes: &mut Vec<Cause>) {
    refuse(&credential.extra, path, &[], causes);
    if let Some(password) = &credential.user_password {
        validate_password(password, &path.field("userPassword"), causes);
    }
    let Some(key) = &credential.ssh_public_key else {
        return;
    };
    let path = path.field("sshPublicKey");
    refuse(&key.extra, &path, &[], causes);
    refuse(&key.source.extra, &path.field("source"), &[], causes);
    refuse(
        &key.propagation_method.extra,
        &path.field("propagationMethod"),
        &[],
        causes,
    );
}

fn validate_password(password: &UserPassword, path: &Path, causes: &mut Vec<Cause>) {
    refuse(&password.extra, path, &[], causes);
    refuse(&password.source.extra, &path.field("source"), &[], causes);
    let method = &password.propagation_method;
    refuse(&method.extra, &path.field("propagationMethod"), &[], causes);
}

fn validate_domain(domain: &Domain, path: &Path, causes: &mut Vec<Cause>) {
    let asks =
        |(field, value): &(&String, &Value)| !(EMPTY.contains(&field.as_str()) && is_empty_object(value));
    refuse(domain.extra.iter().filter(asks), path, &DOMAIN, causes);
    if let Some(cpu) = &domain.cpu {
        refuse(&cpu.extra, &path.field("cpu"), &[], causes);
        for (index, feature) in cpu.features.iter().enumerate() {
            let path = path.field("cpu.features").index(index);
            refuse(&feature.extra, &path, &[], causes);
        }
    }
    if let Some(memory) = &domain.memory {
        refuse(&memory.extra, &path.field("memory"), &[], causes);
    }
    if let Some(resources) = &domain.resources {
        refuse(&resources.extra, &path.field("resources"), &RESOURCES, causes);
    }
    if let Some(machine) = &domain.machine {
        refuse(&machine.extra, &path.field("machine"), &[], causes);
    }
    if let Some(firmware) = &domain.firmware {
        validate_firmware(firmware, &path.field("firmware"), causes);
    }
}

fn validate_firmware(firmware: &Firmware, path: &Path, causes: &mut Vec<Cause>) {
    refuse(&firmware.extra, path, &[], causes);
    if let Some(bootloader) = &firmware.bootloader {
        refuse(&bootloader.extra, &path.field("bootloader"), &[], causes);
    }
    if let Some(kernel) = &firmware.kernel_boot {
        refuse(&kernel.extra, &path.field("kernelBoot"), &[], causes);
        if let Some(container) = &kernel.container {
            refuse(&container.extra, &path.field("kernelBoot.container"), &[], causes);
        }
    }
}

fn validate_devices(devices: &Devices, path: &Path, causes: &mut Vec<Cause>) {
    refuse(&devices.extra, path, &DEVICES, causes);
    if let Some(rng) = &devices.rng {
        refuse(&rng.extra, &path.field("rng"), &[], causes);
    }
    for (index, disk) in devices.disks.iter().enumerate() {
        let path = path.field("disks").index(index);
        refuse(&disk.extra, &path, &[], causes);
        if let Some(target) = &disk.disk {
            refuse(&target.extra, &path.field("disk"), &[], causes);
        }
        if let Some(cdrom) = &disk.cdrom {
            refuse(&cdrom.extra, &path.field("cdrom"), &[], causes);
        }
    }
}

pub(super) fn refuse<'a>(
    extra: impl IntoIterator<Item = (&'a String, &'a Value)>,
    path: &Path,
    accepted: &[&str],
    causes: &mut Vec<Cause>,
) {
    let refused = extra
        .into_iter()
        .filter(|(field, value)| !accepted.contains(&field.as_str()) && !says_nothing(value));
    causes.extend(refused.map(|(field, _)| path.field(field).not_supported("is not supported by rvm")));
}

fn says_nothing(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false)) || value.as_array().is_some_and(Vec::is_empty)
}

fn is_empty_object(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}
