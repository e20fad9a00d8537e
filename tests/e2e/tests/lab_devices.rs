//! Devices that a guest has when it asks for them, under KVM.

use rvm_e2e::{asked, devices, hotplug, paused, scsi, watchdog};
use rvm_outer::{Profile, Setup};
use rvmm_spec::Transport;

#[test]
fn freed_memory_goes_back_and_sockets_reach_the_host() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    let lab = lab.built("rvm-guest-init", "rvm-guest-probe").unwrap();
    let lab = lab.start().unwrap();
    devices::freed_memory_goes_back_to_the_host(&lab);
    devices::guest_and_host_speak_over_vsock(&lab);
}

#[test]
fn devices_come_and_go_while_the_guest_runs() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    hotplug::devices_come_and_go(&lab.start().unwrap());
}

#[test]
fn full_devices_come_and_go_without_aia() {
    let lab = Setup::new(Profile::PLAIN).built("rvmm", "rvmm").unwrap();
    hotplug::devices_come_and_go(&lab.start().unwrap());
}

#[test]
fn disks_come_and_go_on_a_scsi_controller() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    let lab = lab.start().unwrap();
    scsi::disks_come_and_go(&lab, Transport::Mmio);
    scsi::disks_from_the_start(&lab);
}

#[test]
fn full_disks_come_and_go_on_a_scsi_controller_over_pci() {
    for profile in [Profile::AIA, Profile::PLAIN] {
        let lab = Setup::new(profile).built("rvmm", "rvmm").unwrap();
        scsi::disks_come_and_go(&lab.start().unwrap(), Transport::Pci);
    }
}

#[test]
fn a_guest_that_does_not_feed_its_watchdog_is_reset_or_switched_off() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    let lab = lab.start().unwrap();
    watchdog::resets_a_guest_that_does_not_feed_it(&lab);
    watchdog::switches_a_guest_off_that_does_not_feed_it(&lab);
}

#[test]
fn a_machine_that_starts_paused_begins_when_it_is_resumed() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    paused::begins_when_it_is_resumed(&lab.start().unwrap());
}

#[test]
fn a_guest_has_the_pages_the_extensions_and_the_queues_that_were_asked_for() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    let lab = lab.start().unwrap();
    asked::pages_and_extensions_are_as_asked_for(&lab);
    asked::an_interface_has_the_queues_that_were_asked_for(&lab);
}
