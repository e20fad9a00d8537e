//! The memory that a pod needs beyond its guest's.
//!
//! | of | under KVM | where it may be emulated |
//! | --- | --- | --- |
//! | rvmm: program, queues, the console's backlog, a probe's command | 16 MiB | 16 MiB |
//! | QEMU: program, libraries, board | – | 64 MiB |
//! | the kernel and the archive that QEMU has loaded for the guest, where it boots no disk | – | 64 MiB |
//! | QEMU's translated code | – | 64 MiB |
//! | each vCPU: its thread, its buffers | 2 MiB | 8 MiB |
//! | the page tables of the guest's memory | a 256th | a 256th |
//! | firmware in flash, and its variables | 64 MiB | 64 MiB |
//!
//! QEMU keeps what it has loaded, in case of a reset: Linux for riscv64 is 30 MiB, so an archive of a root file system that is larger than
//! the rest is more than is asked for. How large it will be, nobody knows when the pod is made.
//!
//! Each is more than what pods were seen to hold when their guests did all that takes memory (`tests/e2e/tests/memory.rs`; the tables are in
//! `tests/outer/FINDINGS.md`, "Memory of pods"). What a pod's cgroup has of files the kernel takes back and needs no room. KubeVirt asks
//! for 288 MiB.

use rvm_types::VirtualMachineInstance;

use super::render::vcpus;

const MIB: u64 = 1 << 20;
/// rvmm itself, of which an idle one holds 1 MiB; and what a probe runs, which is another rvmm for a moment.
const RVMM: u64 = 16 * MIB;
/// QEMU, its devices and libraries: 18 MiB of its own and 28 of files, and as much again for disks and networks at work.
const QEMU: u64 = 64 * MIB;
/// What QEMU keeps of kernel and archive: seen were 30 and 16 MiB.
const LOADED: u64 = 64 * MIB;
/// What QEMU keeps of the code that it has translated: as much as it is told to (`vmm/qemu`), and it fills that.
const TRANSLATED: u64 = 64 * MIB;
/// For each vCPU.
const VCPU: u64 = 2 * MIB;
/// The same with QEMU's own table of the guest's pages, which grows with what the guest uses at a time: seen were 4 to 5 MiB.
const EMULATED_VCPU: u64 = 8 * MIB;
/// Of the guest's memory: an entry of 8 bytes for each page of 4 KiB, in the page tables of the process, and once more in KVM's for the guest.
const PAGE_TABLES: u64 = 256;
/// Two banks of flash, of which a firmware fills less than half.
const FLASH: u64 = 64 * MIB;

/// What runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The node's processors: nodes without KVM get no such pod.
    Kvm,
    /// The node's processors where they can, QEMU elsewhere: which of them, the node decides.
    Either,
}

/// The bytes that the pod of a VMI needs beyond the `guest` bytes of its memory.
pub fn overhead(vmi: &VirtualMachineInstance, guest: u64, accelerator: Accelerator) -> u64 {
    let (program, each) = match accelerator {
        Accelerator::Kvm => (RVMM, VCPU),
        Accelerator::Either => (RVMM + QEMU + TRANSLATED, EMULATED_VCPU),
    };
    let firmware = vmi.spec.domain.firmware.as_ref();
    let boots_disks =
        vmi.root_filesystem().is_none() && firmware.is_none_or(|firmware| firmware.kernel_boot.is_none());
    // U-Boot, the other one, lies in the guest's own memory. Of an author's own nobody knows before it is read.
    let flash = vmi.brings_firmware()
        || boots_disks
            && (vmi.firmware() == Some(rvm_types::names::firmware::EDK2) || vmi.keeps_efi_variables());
    let loads = !boots_disks && !vmi.brings_firmware() && accelerator == Accelerator::Either;
    let sometimes = [(flash, FLASH), (loads, LOADED)];
    let sometimes: u64 = sometimes
        .iter()
        .filter(|(is_so, _)| *is_so)
        .map(|(_, bytes)| bytes)
        .sum();
    program + each.saturating_mul(vcpus(vmi)) + guest / PAGE_TABLES + sometimes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::sample;
    use serde_json::json;

    #[test]
    fn a_small_machine_needs_less_than_32_mib_under_kvm() {
        let small = overhead(&sample::vmi(json!({})), 128 * MIB, Accelerator::Kvm);
        assert_eq!(small, 18 * MIB + 512 * 1024);
        assert!(small <= 32 * MIB);
    }

    #[test]
    fn overhead_grows_with_vcpus_memory_and_firmware() {
        let of = |spec, accelerator| overhead(&sample::vmi(spec), 1024 * MIB, accelerator);
        let four = json!({"domain": {"cpu": {"cores": 2, "sockets": 2}}});
        assert_eq!(of(four.clone(), Accelerator::Kvm), (16 + 4 * 2 + 4) * MIB);
        assert_eq!(of(four, Accelerator::Either), (144 + 4 * 8 + 4) * MIB);
        let flash = json!({"domain": {"firmware": {"bootloader": {"efi": {"persistent": true}}}}});
        assert_eq!(of(flash, Accelerator::Kvm), (16 + 2 + 4 + 64) * MIB);
        let mut own =
            sample::vmi(json!({"domain": {"firmware": {"kernelBoot": {"container": {"image": "f"}}}}}));
        assert_eq!(overhead(&own, 1024 * MIB, Accelerator::Kvm), (16 + 2 + 4) * MIB);
        own.metadata.annotations = Some([("rvm/firmware".to_owned(), "kernelBoot".to_owned())].into());
        assert_eq!(
            overhead(&own, 1024 * MIB, Accelerator::Kvm),
            (16 + 2 + 4 + 64) * MIB
        );
        // What is loaded, QEMU keeps; rvmm does not.
        let image = json!({"image": "kernel", "kernelPath": "/Image"});
        let kernel = json!({"domain": {"firmware": {"kernelBoot": {"container": image}}}});
        assert_eq!(of(kernel.clone(), Accelerator::Kvm), (16 + 2 + 4) * MIB);
        assert_eq!(of(kernel, Accelerator::Either), (144 + 8 + 4 + 64) * MIB);
    }
}
