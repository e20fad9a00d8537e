//! Firmware that boots a disk, under KVM and emulated; kernels in every form that distributions ship.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::firmware::{self, Places};
use rvm_outer::{Here, Host, Lab, Profile, Setup};

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
