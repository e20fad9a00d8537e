//! The stock kernel in every form that people have it in, and a machine whose device tree its user changed.
//!
//! The forms are made here from the plain Image, as the kernel's own build makes them: `gzip`, `vmlinuz.efi`
//! (drivers/firmware/efi/libstub/Makefile.zboot) and an ELF file with one segment (`vmlinux`).

use std::io::Write;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use rvm_outer::Host;
use rvm_outer::shell::{PATIENCE, ask, switch_off, until_ready};
use rvmm_spec::{Boot, Payload};

use crate::boot::{machine, spawn, tiny};

/// Where a riscv64 kernel's header has its size in memory (Linux, Documentation/arch/riscv/boot-image-header.rst).
const IMAGE_SIZE_AT: usize = 16;
const ELF_HEADER: usize = 64;
const ELF_PROGRAM_HEADER: usize = 56;
const ZBOOT_HEADER: u32 = 4096;

/// Boots the kernel packed by gzip, as an EFI program, and as an ELF file.
pub fn a_kernel_boots_in_each_form(host: &dyn Host) {
    let image = host.get(&host.assets().kernel).expect("the kernel is there");
    for (form, bytes) in [
        ("gzip", gzip(&image)),
        ("zboot", zboot(&image)),
        ("elf", elf(&image)),
    ] {
        host.put(form, &bytes).expect("the host takes a file");
        boots(host, form);
    }
}

/// A guest finds in its device tree what an overlay put there.
pub fn an_overlay_changes_what_the_guest_sees(host: &dyn Host) {
    let overlay = dtc("/dts-v1/; /plugin/; &{/chosen} { rvm-note = \"from an overlay\"; };");
    host.put("note.dtbo", &overlay).expect("the host takes a file");
    let changed = Boot {
        overlays: vec![host.folder().join("note.dtbo")],
        ..tiny(host, "quiet")
    };
    let mut vm = spawn(host, machine(changed));
    until_ready(&mut vm);
    ask(
        &mut vm,
        "cat /proc/device-tree/chosen/rvm-note; echo",
        "from an overlay",
    );
    switch_off(&mut vm);
}

fn boots(host: &dyn Host, form: &str) {
    let packed = Boot {
        payload: Payload::Kernel(host.folder().join(form)),
        ..tiny(host, "quiet rvm.run=poweroff")
    };
    let mut vm = spawn(host, machine(packed));
    vm.expect("GUEST-UP", PATIENCE).expect(form);
    let output = vm.wait(PATIENCE).expect("rvmm ends");
    assert_eq!(output.status(), Some(0), "{form}: {}", output.error_text());
}

fn gzip(image: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(image).expect("memory takes it");
    packed.finish().expect("memory takes it")
}

fn zboot(image: &[u8]) -> Vec<u8> {
    let payload = gzip(image);
    let len = u32::try_from(payload.len()).expect("a kernel has fewer than 4 GiB");
    let mut bytes = b"MZ\0\0zimg".to_vec();
    bytes.extend(ZBOOT_HEADER.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(b"gzip");
    bytes.resize(ZBOOT_HEADER as usize, 0);
    bytes.extend(payload);
    bytes
}

/// One segment, linked to physical address 0 as `vmlinux` is, entered at its start.
fn elf(image: &[u8]) -> Vec<u8> {
    let size = image[IMAGE_SIZE_AT..].first_chunk().copied();
    let in_memory = size.map(u64::from_le_bytes).expect("a kernel has a header");
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend([2, 0, 243, 0, 1, 0, 0, 0]);
    // Entry, program headers, section headers.
    bytes.extend([0, ELF_HEADER as u64, 0].map(u64::to_le_bytes).as_flattened());
    bytes.extend([0; 4]);
    bytes.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // A segment to load that is read, written and executed.
    bytes.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    let offset = (ELF_HEADER + ELF_PROGRAM_HEADER) as u64;
    let fields = [offset, 0, 0, image.len() as u64, in_memory, 4096];
    bytes.extend(fields.map(u64::to_le_bytes).as_flattened());
    bytes.extend(image);
    bytes
}

fn dtc(source: &str) -> Vec<u8> {
    let mut child = Command::new("dtc")
        .args(["-q", "-@", "-I", "dts", "-O", "dtb", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("dtc is installed by `make setup` (package device-tree-compiler)");
    let mut input = child.stdin.take().expect("its input is a pipe");
    input.write_all(source.as_bytes()).expect("dtc reads");
    drop(input);
    let output = child.wait_with_output().expect("dtc ends");
    assert!(output.status.success());
    output.stdout
}
