//! What can be wrong with volumes and networks.

use super::validate::{distinct, is_label, one_of};
use super::{Cause, Path};
use crate::VirtualMachineInstance;
use crate::volume::{ContainerDisk, Volume};

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
    if !vmi.spec.networks.is_empty() {
        causes.push(
            spec.field("networks")
                .not_supported("must be empty: rvm attaches no networks yet"),
        );
    }
}

fn validate_volume(volume: &Volume, path: &Path, causes: &mut Vec<Cause>) {
    if !is_label(&volume.name) {
        causes.push(
            path.field("name")
                .invalid(format_args!("is {:?}, which is not a DNS label", volume.name)),
        );
    }
    let sources = [volume.container_disk.is_some(), volume.empty_disk.is_some()]
        .iter()
        .filter(|is| **is)
        .count();
    if sources + volume.extra.len() != 1 {
        causes.push(path.invalid("must have exactly one source"));
    }
    if let Some(disk) = &volume.container_disk {
        validate_container_disk(disk, &path.field("containerDisk"), causes);
    }
    if let Some(disk) = &volume.empty_disk {
        let path = path.field("emptyDisk.capacity");
        match disk.capacity.bytes() {
            Err(error) => causes.push(path.invalid(format_args!("{error}: {}", disk.capacity))),
            Ok(0) => causes.push(path.invalid("must be greater than 0")),
            Ok(_) => {}
        }
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
