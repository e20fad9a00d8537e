//! Folders that a guest and its host share, under KVM.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::shares;
use rvm_guests::{Cache, virtiofsd};
use rvm_outer::{Lab, Profile, Setup};

/// A lab with a virtiofsd.
fn lab() -> Lab {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    let files = virtiofsd::for_riscv64(&Cache::open().unwrap()).unwrap();
    let lab = files.iter().fold(lab, |lab, (path, file)| {
        lab.file(path, 0o755, std::fs::read(file).unwrap())
    });
    lab.start().unwrap()
}

#[test]
fn a_folder_is_shared_over_a_reset_and_a_guest_outlives_its_server() {
    let lab = lab();
    shares::a_share_outlives_a_reset(&lab, "virtiofsd");
    shares::a_guest_outlives_its_server(&lab, "virtiofsd");
}
