//! Devices that a guest has when it asks for them, under KVM.

use rvm_e2e::{devices, shares};
use rvm_guests::{Cache, virtiofsd};
use rvm_outer::{Profile, Setup};

#[test]
fn freed_memory_goes_back_and_sockets_and_folders_reach_the_host() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    let lab = lab.built("rvm-guest-init", "rvm-guest-probe").unwrap();
    let server = virtiofsd::for_riscv64(&Cache::open().unwrap()).unwrap();
    let lab = server.iter().fold(lab, |lab, (path, file)| {
        lab.file(path, 0o755, std::fs::read(file).unwrap())
    });
    let lab = lab.start().unwrap();
    devices::freed_memory_goes_back_to_the_host(&lab);
    devices::guest_and_host_speak_over_vsock(&lab);
    shares::guest_and_host_share_a_folder(&lab, "virtiofsd");
    shares::a_share_outlives_a_reset_and_a_guest_its_server(&lab, "virtiofsd");
}
