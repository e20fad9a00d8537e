//! rvmm in QEMU-TCG on this machine: the same guest, the same assertions, the same Spec file as under KVM.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::{boot, forms, hotplug, paused, scsi, shares, watchdog};
use rvm_guests::{Cache, virtiofsd};
use rvm_outer::{Here, Host};
use rvmm_spec::Transport;

fn here() -> Here {
    Here::start().unwrap()
}

#[test]
fn a_guest_boots_with_one_and_with_two_vcpus() {
    let here = here();
    boot::boots_to_init(&here, 1);
    boot::boots_to_init(&here, 2);
}

#[test]
fn full_a_guest_boots_with_as_many_vcpus_as_there_can_be() {
    boot::boots_to_init(&here(), 64);
}

#[test]
fn a_kernel_boots_in_each_form() {
    forms::a_kernel_boots_in_each_form(&here());
}

#[test]
fn an_overlay_changes_what_the_guest_sees() {
    forms::an_overlay_changes_what_the_guest_sees(&here());
}

#[test]
fn a_guest_reads_a_disk_and_writes_what_the_host_then_finds() {
    let here = here();
    boot::reads_and_writes_a_disk(&here);
    boot::a_read_only_disk_stays_as_it_is(&here);
}

#[test]
fn more_devices_than_mmio_has_places_for_work_on_pci() {
    boot::devices_work_on_pci(&here(), "PCI-MSIX-0000:00:01.0");
}

#[test]
fn a_guest_pings_the_host() {
    boot::pings_the_host(&here());
}

#[test]
fn a_reset_boots_the_guest_again() {
    boot::a_reset_boots_again(&here());
}

#[test]
fn a_crash_ends_rvmm_with_status_3_where_asked_for() {
    boot::a_crash_ends_with_status_3(&here());
}

#[test]
fn the_firmware_console_prints_and_the_vdso_reads_the_clock() {
    let here = here();
    boot::the_firmware_console_prints(&here);
    boot::the_vdso_reads_the_clock(&here);
}

#[test]
fn the_virtio_console_is_a_console() {
    boot::the_virtio_console_is_a_console(&here());
}

#[test]
fn ctrl_bracket_leaves_and_restores_the_terminal() {
    boot::ctrl_bracket_leaves_and_restores_the_terminal(&here());
}

#[test]
fn a_machine_without_riscv_kvm_says_so_in_one_line_and_kvm_is_refused() {
    let here = here();
    let assets = here.assets();
    let boot = ["rvmm", "--kernel", &assets.kernel, "--initrd", &assets.bench];
    let output = here.run(&boot).unwrap();
    assert_eq!(output.status(), Some(0), "{}", output.error_text());
    let said = output.error_text();
    assert!(
        said.starts_with("rvmm: no RISC-V KVM here: this machine is") && said.lines().count() == 1,
        "{said}"
    );

    let silent = here.run(&[&boot[..], &["--accel", "tcg"]].concat()).unwrap();
    assert_eq!((silent.status(), silent.error_text().as_str()), (Some(0), ""));

    let refused = here.run(&[&boot[..], &["--accel", "kvm"]].concat()).unwrap();
    assert_eq!(refused.status(), Some(1));
    assert_eq!(
        refused.error_text().lines().count(),
        1,
        "{}",
        refused.error_text()
    );
}

#[test]
fn without_qemu_the_package_to_install_is_named() {
    let here = here();
    let rvmm = rvm_outer::here::built_programs().unwrap().join("rvmm");
    let assets = here.assets();
    let argv = [
        "env",
        "PATH=/nonexistent",
        &rvmm.display().to_string(),
        "--kernel",
        &assets.kernel,
        "--accel",
        "tcg",
    ];
    let refused = here.run(&argv).unwrap();
    assert_eq!(refused.status(), Some(1));
    let said = refused.error_text();
    assert!(
        said.contains("qemu-system-misc") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn a_guest_and_the_host_share_a_folder() {
    let virtiofsd = virtiofsd::here(&Cache::open().unwrap()).unwrap();
    shares::guest_and_host_share_a_folder(&here(), &virtiofsd.display().to_string());
}

#[test]
fn the_guest_gets_entropy() {
    boot::the_guest_gets_entropy(&here());
}

#[test]
fn full_a_guest_boots_twenty_times_in_a_row() {
    boot::boots_again_and_again(&here(), 20);
}

#[test]
fn a_machine_that_starts_paused_begins_when_it_is_resumed() {
    paused::begins_when_it_is_resumed(&here());
}

#[test]
fn a_machine_obeys_its_control_socket() {
    boot::obeys_its_control_socket(&here());
}

#[test]
fn full_a_hundred_resets_leak_nothing() {
    boot::resets_leak_nothing(&here(), 100);
}

#[test]
fn devices_come_and_go_while_the_guest_runs() {
    let here = here();
    hotplug::devices_come_and_go(&here);
    hotplug::what_is_held_goes_all_the_same(&here);
}

#[test]
fn disks_come_and_go_on_a_scsi_controller() {
    scsi::disks_come_and_go(&here(), Transport::Mmio);
}

#[test]
fn full_disks_come_and_go_on_a_scsi_controller_over_pci() {
    scsi::disks_come_and_go(&here(), Transport::Pci);
}

#[test]
fn disks_on_a_scsi_controller_are_there_from_the_start() {
    scsi::disks_from_the_start(&here());
}

#[test]
fn a_guest_that_does_not_feed_its_watchdog_is_reset_or_switched_off() {
    let here = here();
    watchdog::resets_a_guest_that_does_not_feed_it(&here);
    watchdog::switches_a_guest_off_that_does_not_feed_it(&here);
}
