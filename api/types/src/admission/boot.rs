//! What the guest boots from, and what can be wrong with that.
//!
//! Three ways are known: a kernel out of an image (`kernelBoot.container`), an ordinary image as the root file system
//! (annotation `rvm/root-filesystem`), which our own kernel and init start, and, where neither is asked for, EFI firmware
//! that finds a boot loader on a disk. The author may bring that firmware himself, where a kernel would be named
//! (annotation `rvm/firmware: kernelBoot`).

use super::volumes::{validate_image, validate_path_in_image};
use super::{Cause, Path};
use crate::VirtualMachineInstance;
use crate::domain::{Firmware, KernelBoot};
use crate::names::annotations::{FIRMWARE, ROOT_FILESYSTEM};
use crate::names::firmware::{EDK2, KERNEL_BOOT, UBOOT};
use crate::volume::Volume;

/// Longest command line of a kernel, in bytes: what riscv64 Linux keeps of it.
const MAX_KERNEL_ARGS: usize = 1023;

pub(super) fn validate(vmi: &VirtualMachineInstance, spec: &Path, causes: &mut Vec<Cause>) {
    let path = spec.field("domain.firmware");
    let none = Firmware::default();
    let firmware = vmi.spec.domain.firmware.as_ref().unwrap_or(&none);
    validate_root_filesystem(vmi, causes);
    validate_bootloader(firmware, &path.field("bootloader"), causes);
    validate_choice(vmi, causes);
    let kernel = firmware.kernel_boot.as_ref();
    let container = kernel.and_then(|kernel| kernel.container.as_ref());
    let has_own_kernel = vmi.root_filesystem().is_some();
    if let Some(kernel) = kernel {
        validate_kernel(kernel, has_own_kernel, &path.field("kernelBoot"), causes);
    }
    if vmi.brings_firmware() {
        validate_own_firmware(vmi, kernel, &path, causes);
        return;
    }
    match (container, vmi.root_filesystem()) {
        (None, None) if !vmi.spec.volumes.iter().any(can_be_booted) => {
            causes.push(path.invalid(format_args!(
                "names no kernel, and no volume is a disk to boot from; give kernelBoot.container, the annotation \
                 {ROOT_FILESYSTEM}, or a disk"
            )));
        }
        // Its initial RAM disk is made of the root file system.
        (Some(container), Some(_)) if container.initrd_path.is_some() => {
            causes.push(
                path.field("kernelBoot.container.initrdPath")
                    .invalid(format_args!(
                        "and the annotation {ROOT_FILESYSTEM} exclude each other"
                    )),
            );
        }
        _ => {}
    }
    let efi = firmware
        .bootloader
        .as_ref()
        .is_some_and(|bootloader| bootloader.efi.is_some());
    if efi && (container.is_some() || vmi.root_filesystem().is_some()) {
        causes.push(
            path.field("bootloader.efi")
                .invalid("is of no use with a kernel: rvm starts that itself"),
        );
    }
}

/// Whether a disk may hold an operating system: it was not made for this machine.
fn can_be_booted(volume: &Volume) -> bool {
    volume.container_disk.is_some()
        || volume.host_disk.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some()
}

fn validate_root_filesystem(vmi: &VirtualMachineInstance, causes: &mut Vec<Cause>) {
    let Some(name) = vmi.root_filesystem() else { return };
    let path = Path::new(&format!("metadata.annotations[{ROOT_FILESYSTEM}]"));
    match vmi.spec.volumes.iter().find(|volume| volume.name == name) {
        None => causes.push(path.invalid(format_args!("is {name:?}; spec.volumes has no such volume"))),
        Some(volume) if volume.container_disk.is_none() => {
            causes.push(path.invalid(format_args!("is {name:?}, which is not a containerDisk")));
        }
        Some(_) => {}
    }
}

/// Which firmware: one that we know, and that can do what is asked of it.
fn validate_choice(vmi: &VirtualMachineInstance, causes: &mut Vec<Cause>) {
    let Some(name) = vmi.firmware() else { return };
    let path = Path::new(&format!("metadata.annotations[{FIRMWARE}]"));
    match name {
        UBOOT if vmi.keeps_efi_variables() => causes.push(path.invalid(format_args!(
            "is {UBOOT:?}, which keeps no variables; spec.domain.firmware.bootloader.efi.persistent needs {EDK2:?}"
        ))),
        UBOOT | EDK2 | KERNEL_BOOT => {}
        _ => causes.push(path.invalid(format_args!("must be {UBOOT:?}, {EDK2:?} or {KERNEL_BOOT:?}"))),
    }
}

/// A firmware out of an image: it needs a disk to boot, and has neither what a kernel is given nor a place for variables, whose
/// template nobody has named.
fn validate_own_firmware(
    vmi: &VirtualMachineInstance,
    kernel: Option<&KernelBoot>,
    path: &Path,
    causes: &mut Vec<Cause>,
) {
    let annotation = Path::new(&format!("metadata.annotations[{FIRMWARE}]"));
    let container = kernel.and_then(|kernel| kernel.container.as_ref());
    if container.is_none() {
        causes.push(annotation.invalid(format_args!(
            "is {KERNEL_BOOT:?}; spec.domain.firmware.kernelBoot.container names no firmware"
        )));
    }
    if vmi.root_filesystem().is_some() {
        causes.push(annotation.invalid(format_args!(
            "and the annotation {ROOT_FILESYSTEM} exclude each other"
        )));
    } else if !vmi.spec.volumes.iter().any(can_be_booted) {
        causes.push(path.invalid("names a firmware, and no volume is a disk that it could boot"));
    }
    let kernels_alone = [
        (
            "container.initrdPath",
            container.is_some_and(|container| container.initrd_path.is_some()),
        ),
        (
            "kernelArgs",
            kernel.is_some_and(|kernel| kernel.kernel_args.as_ref().is_some_and(|args| !args.is_empty())),
        ),
    ];
    for (field, _) in kernels_alone.into_iter().filter(|(_, is_there)| *is_there) {
        let field = path.field("kernelBoot").field(field);
        causes.push(
            field.invalid("is for a kernel; a firmware finds one on a disk, with all that belongs to it"),
        );
    }
    if vmi.keeps_efi_variables() {
        causes.push(path.field("bootloader.efi.persistent").invalid(format_args!(
            "needs {EDK2:?}: of another firmware it is not known what its variables are made from"
        )));
    }
}

fn validate_bootloader(firmware: &Firmware, path: &Path, causes: &mut Vec<Cause>) {
    let Some(bootloader) = &firmware.bootloader else {
        return;
    };
    if bootloader.bios.is_some() {
        causes.push(path.field("bios").not_supported("does not exist on riscv64"));
    }
    if let Some(efi) = &bootloader.efi
        && efi.secure_boot != Some(false)
    {
        causes.push(
            path.field("efi.secureBoot")
                .not_supported("must be false on riscv64"),
        );
    }
}

fn validate_kernel(kernel: &KernelBoot, has_own_kernel: bool, path: &Path, causes: &mut Vec<Cause>) {
    if let Some(container) = &kernel.container {
        let path = path.field("container");
        validate_image(&container.image, &container.image_pull_policy, &path, causes);
        match &container.kernel_path {
            None => causes.push(path.field("kernelPath").required("is missing")),
            Some(inside) => validate_path_in_image(inside, &path.field("kernelPath"), causes),
        }
        if let Some(inside) = &container.initrd_path {
            validate_path_in_image(inside, &path.field("initrdPath"), causes);
        }
    }
    let Some(args) = kernel.kernel_args.as_deref().filter(|args| !args.is_empty()) else {
        return;
    };
    let path = path.field("kernelArgs");
    if kernel.container.is_none() && !has_own_kernel {
        causes.push(path.invalid("needs a kernel, and kernelBoot.container names none"));
    }
    if args.len() > MAX_KERNEL_ARGS || args.chars().any(char::is_control) {
        causes.push(path.invalid(format_args!(
            "must be one line of {MAX_KERNEL_ARGS} bytes at most"
        )));
    }
}
