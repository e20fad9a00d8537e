//! Devices that a guest has when it asks for them, under KVM.

use rvm_e2e::devices;
use rvm_outer::{Profile, Setup};

#[test]
fn freed_memory_goes_back_and_sockets_reach_the_host() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    let lab = lab.built("rvm-guest-init", "rvm-guest-probe").unwrap();
    let lab = lab.start().unwrap();
    devices::freed_memory_goes_back_to_the_host(&lab);
    devices::guest_and_host_speak_over_vsock(&lab);
}
