//! Firmware that boots a disk, under KVM and emulated; kernels in every form that distributions ship.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::efi as vmi_alpine_efi;
use rvm_e2e::firmware::{self, OWN, OWN_PATH, Places};
use rvm_guests::{Cache, efi};
use rvm_harness::{Console, HandlerSetup, Tools};
use rvm_outer::shell::PATIENCE;
use rvm_outer::{Here, Host, Lab, Profile, Setup};
use serde_json::json;

fn lab(profile: Profile, names: &[&str]) -> Lab {
    let files = Places::here().unwrap().for_the_lab(names).unwrap();
    let setup = Setup::new(profile).built("rvmm", "rvmm").unwrap();
    let with = |setup: Setup, (place, bytes): (String, Vec<u8>)| setup.file(&place, 0o644, bytes);
    files.into_iter().fold(setup, with).start().unwrap()
}

#[test]
fn full_u_boot_boots_an_efi_disk_under_kvm() {
    let places = Places::lab();
    firmware::boots_an_efi_disk(&lab(Profile::AIA, &["uboot.bin"]), &places, places.uboot());
}

#[test]
fn full_firmware_boots_an_efi_disk_on_each_host() {
    for profile in [Profile::PLAIN, Profile::AIA_GUESTS, Profile::MAX] {
        let lab = lab(profile, &["uboot.bin", "edk2-code.fd", "edk2-vars.fd"]);
        let places = Places::lab();
        firmware::boots_an_efi_disk(&lab, &places, places.uboot());
        firmware::boots_an_efi_disk(&lab, &places, places.edk2(lab.folder()));
    }
}

#[test]
fn full_edk2_keeps_its_variables_under_kvm() {
    let lab = lab(Profile::AIA, &["edk2-code.fd", "edk2-vars.fd"]);
    firmware::edk2_keeps_its_variables(&lab, &Places::lab());
}

#[test]
fn u_boot_boots_an_efi_disk_in_tcg() {
    let places = Places::here().unwrap();
    firmware::boots_an_efi_disk(&Here::start().unwrap(), &places, places.uboot());
}

#[test]
fn edk2_boots_an_efi_disk_in_tcg_and_keeps_its_variables() {
    firmware::edk2_keeps_its_variables(&Here::start().unwrap(), &Places::here().unwrap());
}

#[test]
fn a_firmware_out_of_an_image_boots_the_disk_of_a_vmi() {
    let (tools, folder) = (Tools::open().unwrap(), tempfile::tempdir().unwrap());
    firmware::own_image(folder.path()).unwrap();
    let disk = efi::image(&Cache::open().unwrap()).unwrap();
    let mirrors = [
        format!("{}=oci:{}", vmi_alpine_efi::IMAGE, disk.display()),
        format!("registry:5000/own/firmware:1=oci:{}", folder.path().display()),
    ];
    let handler = HandlerSetup::local()
        .with(&["--mirror", &mirrors[0], "--mirror", &mirrors[1]])
        .start(&tools)
        .unwrap();
    let vmi = vmi_alpine_efi::manifest().with(|vmi| {
        vmi["metadata"]["annotations"] = json!({"rvm/firmware": "kernelBoot"});
        let container = json!({"image": "registry:5000/own/firmware:1", "kernelPath": OWN_PATH});
        vmi["spec"]["domain"]["firmware"]["kernelBoot"] = json!({"container": container});
    });
    let kubectl = handler.kubectl().unwrap();
    kubectl.apply(&[vmi]).unwrap();
    kubectl.await_phase(vmi_alpine_efi::NAME, "Running").unwrap();
    let mut viewer = handler
        .rvm_on_terminal(&["console", vmi_alpine_efi::NAME])
        .unwrap();
    viewer.expect(OWN, PATIENCE).unwrap();
    let mut console = Console::at_prompt(viewer, "guest# ").unwrap();
    let listed = console.ask("ls /sys/firmware/efi").unwrap();
    assert!(listed.contains("systab"), "{listed}");
}
