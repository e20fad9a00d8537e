//! The device tree against golden files, as `dtc` reads it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rvmm_boot::kernel::{Form, Kernel};
use rvmm_boot::{First, Loaded};
use rvmm_hypervisor::{Facts, Interrupts, fake};
use rvmm_machine::fdt::{self, Tree, Virtio};

const KERNEL: Kernel = Kernel {
    entry: 0x8020_0000,
    start: 0x8020_0000,
    end: 0x8200_0000,
    loaded: 0x100_0000,
    form: Form::Plain,
};

const LOADED: Loaded = Loaded {
    first: First::Kernel(KERNEL),
    initrd: Some((0x8f00_0000, 0x8f12_3456)),
    device_tree: 0x8fe0_0000,
};

fn blob(facts: &Facts, cpus: u8, virtio: Virtio) -> Vec<u8> {
    blob_with(facts, cpus, virtio, &LOADED)
}

fn blob_with(facts: &Facts, cpus: u8, virtio: Virtio, loaded: &Loaded) -> Vec<u8> {
    let seed = [0x5a; 64];
    let tree = Tree {
        facts,
        cpus,
        memory: 256 << 20,
        cmdline: "console=ttyS0 quiet",
        loaded,
        virtio,
        watchdog: false,
        seed: &seed,
    };
    fdt::build(&tree).unwrap()
}

/// What dtc makes of a blob; a blob that it warns about fails.
fn decompile(blob: &[u8]) -> String {
    let mut dtc = Command::new("dtc")
        .args(["-I", "dtb", "-O", "dts", "-s", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dtc is installed by `make setup` (package device-tree-compiler)");
    dtc.stdin.take().unwrap().write_all(blob).unwrap();
    let output = dtc.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "dtc has no complaint"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Compares with a golden file; `RVM_BLESS=1` writes it anew.
fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("RVM_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(
        golden == text,
        "{name} differs; if that is meant, run with RVM_BLESS=1. Got:\n{text}"
    );
}

#[test]
fn a_machine_with_aia_and_two_vcpus_is_described_as_agreed() {
    assert_golden("aia-2.dts", &decompile(&blob(&fake::facts(), 2, Virtio::Mmio(4))));
}

#[test]
fn a_machine_without_aia_has_a_plic() {
    let facts = Facts {
        interrupts: Interrupts::Plic,
        cbom_block: Some(64),
        cboz_block: Some(64),
        ..fake::facts()
    };
    assert_golden("plic-1.dts", &decompile(&blob(&facts, 1, Virtio::Mmio(2))));
}

#[test]
fn a_machine_with_pci_has_a_bridge_in_place_of_slots() {
    assert_golden("aia-pci.dts", &decompile(&blob(&fake::facts(), 1, Virtio::Pci)));
    let facts = Facts {
        interrupts: Interrupts::Plic,
        ..fake::facts()
    };
    assert_golden("plic-pci.dts", &decompile(&blob(&facts, 1, Virtio::Pci)));
}

#[test]
fn a_watchdog_has_a_bus_beside_virtio_mmio() {
    let facts = fake::facts();
    let tree = Tree {
        facts: &facts,
        cpus: 1,
        memory: 256 << 20,
        cmdline: "",
        loaded: &LOADED,
        virtio: Virtio::Mmio(2),
        watchdog: true,
        seed: &[0; 64],
    };
    let text = decompile(&fdt::build(&tree).unwrap());
    assert!(
        text.contains("pci@30000000 {") && text.contains("virtio_mmio@10008000 {"),
        "{text}"
    );
}

#[test]
fn a_firmware_finds_what_it_needs_besides() {
    let tree = |first| {
        let loaded = Loaded {
            first,
            initrd: None,
            ..LOADED
        };
        decompile(&blob_with(&fake::facts(), 1, Virtio::Mmio(2), &loaded))
    };
    let u_boot = tree(First::Firmware(KERNEL));
    assert!(
        u_boot.contains("bootdelay = <0xfffffffe>;") && !u_boot.contains("flash@"),
        "{u_boot}"
    );
    let edk2 = tree(First::Flash);
    let flash = "flash@22000000 {\n\t\t\tbank-width = <0x04>;\n\t\t\tcompatible = \"cfi-flash\";\n\t\t\treg = <0x00 0x22000000 0x00 0x2000000>;\n\t\t};";
    assert!(edk2.contains(flash) && !edk2.contains("bootdelay"), "{edk2}");
}

#[test]
fn the_largest_machine_fits_its_room() {
    let blob = blob(&fake::facts(), 64, Virtio::Mmio(8));
    assert!(blob.len() < 128 << 10, "{}", blob.len());
    decompile(&blob);
}
