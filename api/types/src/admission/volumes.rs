//! What can be wrong with volumes.

use super::validate::{distinct, is_label, is_name, one_of};
use super::{Cause, Path};
use crate::volume::{ContainerDisk, HostDisk, Volume};
use crate::{Quantity, VirtualMachineInstance};

/// Longest reference of an image, in bytes: a repository has 255, a digest 71, a registry's host the rest.
const MAX_IMAGE: usize = 1024;
/// The policies of Kubernetes.
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

pub(super) fn validate(vmi: &VirtualMachineInstance, spec: &Path, causes: &mut Vec<Cause>) {
    let path = spec.field("volumes");
    let volumes = &vmi.spec.volumes;
    distinct(
        volumes.iter().map(|volume| volume.name.as_str()),
        &path,
        "name",
        causes,
    );
    for (index, volume) in volumes.iter().enumerate() {
        validate_volume(volume, &path.index(index), causes);
    }
    if volumes
        .iter()
        .filter(|volume| volume.service_account.is_some())
        .count()
        > 1
    {
        causes.push(path.invalid("must have max one serviceAccount volume set"));
    }
}

fn validate_volume(volume: &Volume, path: &Path, causes: &mut Vec<Cause>) {
    if !is_label(&volume.name) {
        causes.push(
            path.field("name")
                .invalid(format_args!("is {:?}, which is not a DNS label", volume.name)),
        );
    }
    if volume.sources().len() + volume.extra.len() != 1 {
        causes.push(path.invalid("must have exactly one source"));
    }
    if let Some(disk) = &volume.container_disk {
        validate_container_disk(disk, &path.field("containerDisk"), causes);
    }
    if let Some(disk) = &volume.empty_disk {
        validate_capacity(&disk.capacity, &path.field("emptyDisk.capacity"), causes);
    }
    if let Some(disk) = &volume.host_disk {
        validate_host_disk(disk, &path.field("hostDisk"), causes);
    }
    if let Some(account) = &volume.service_account {
        let name = path.field("serviceAccount.serviceAccountName");
        validate_object_name(account.service_account_name.as_deref(), &name, causes);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let name = path.field("persistentVolumeClaim.claimName");
        validate_object_name(claim.claim_name.as_deref(), &name, causes);
    }
    if let Some(ephemeral) = &volume.ephemeral {
        let claim = ephemeral.persistent_volume_claim.as_ref();
        let name = path.field("ephemeral.persistentVolumeClaim.claimName");
        validate_object_name(claim.and_then(|claim| claim.claim_name.as_deref()), &name, causes);
    }
}

fn validate_capacity(capacity: &Quantity, path: &Path, causes: &mut Vec<Cause>) {
    match capacity.bytes() {
        Err(error) => causes.push(path.invalid(format_args!("{error}: {capacity}"))),
        Ok(0) => causes.push(path.invalid("must be greater than 0")),
        Ok(_) => {}
    }
}

fn validate_host_disk(disk: &HostDisk, path: &Path, causes: &mut Vec<Cause>) {
    let here = path.field("path");
    if disk.path.is_empty() {
        causes.push(here.required("is required for hostDisk volume"));
    } else {
        validate_path_in_image(&disk.path, &here, causes);
    }
    let (kind, capacity) = (path.field("type"), path.field("capacity"));
    match (disk.kind.as_str(), &disk.capacity) {
        ("Disk", None) => {}
        ("Disk", Some(_)) => causes.push(capacity.invalid(format_args!(
            "is allowed to pass only with {kind} equal to \"DiskOrCreate\""
        ))),
        ("DiskOrCreate", None) => {
            causes.push(capacity.required(format_args!("is required with {kind} equal to \"DiskOrCreate\"")));
        }
        ("DiskOrCreate", Some(size)) => validate_capacity(size, &capacity, causes),
        (other, _) => causes.push(kind.invalid(format_args!(
            "has invalid value {other:?}, allowed are \"DiskOrCreate\" or \"Disk\""
        ))),
    }
}

/// The name of another object, which must be there.
pub(super) fn validate_object_name(name: Option<&str>, path: &Path, causes: &mut Vec<Cause>) {
    match name {
        None | Some("") => causes.push(path.required("is a required field")),
        Some(name) if !is_name(name) => {
            causes.push(path.invalid(format_args!("is {name:?}, which cannot be an object's name")));
        }
        Some(_) => {}
    }
}

fn validate_container_disk(disk: &ContainerDisk, path: &Path, causes: &mut Vec<Cause>) {
    validate_image(&disk.image, &disk.image_pull_policy, path, causes);
    if let Some(inside) = &disk.path {
        validate_path_in_image(inside, &path.field("path"), causes);
    }
}

/// What holds of every image that is named, wherever it is named.
pub(super) fn validate_image(image: &str, policy: &Option<String>, path: &Path, causes: &mut Vec<Cause>) {
    let here = path.field("image");
    if image.is_empty() {
        causes.push(here.required("is missing"));
    } else if image.len() > MAX_IMAGE || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        causes.push(here.invalid(format_args!(
            "must be an image's reference of {MAX_IMAGE} bytes at most"
        )));
    }
    one_of(policy, &path.field("imagePullPolicy"), &PULL_POLICIES, causes);
}

/// A path in an image is absolute and never climbs.
pub(super) fn validate_path_in_image(inside: &str, path: &Path, causes: &mut Vec<Cause>) {
    if !inside.starts_with('/') || inside.ends_with('/') || inside.split('/').any(|part| part == "..") {
        causes.push(path.invalid(format_args!(
            "is {inside:?}; it must be an absolute path of a file, without .."
        )));
    }
}
