//! rvmm under KVM, on each kind of host that the lab can be.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::boot;
use rvm_e2e::forms;
use rvm_outer::shell::PATIENCE;
use rvm_outer::{Host, Lab, Profile, Setup, Signal};
use rvmm_spec::Transport;

fn lab(profile: Profile) -> Lab {
    Setup::new(profile)
        .built("rvmm", "rvmm")
        .unwrap()
        .start()
        .unwrap()
}

#[test]
fn a_guest_boots_with_one_vcpu_on_a_host_with_aia() {
    boot::boots_to_init(&lab(Profile::AIA), 1);
}

#[test]
fn a_guest_boots_with_two_vcpus_on_a_host_with_aia() {
    boot::boots_to_init(&lab(Profile::AIA), 2);
}

#[test]
fn a_guest_boots_with_one_vcpu_on_a_host_without_aia() {
    boot::boots_to_init(&lab(Profile::PLAIN), 1);
}

#[test]
fn a_guest_boots_with_two_vcpus_on_a_host_without_aia() {
    boot::boots_to_init(&lab(Profile::PLAIN), 2);
}

#[test]
fn a_hart_comes_back_on_a_host_without_aia() {
    boot::a_hart_comes_back(&lab(Profile::PLAIN));
}

#[test]
fn full_a_guest_boots_with_each_number_of_vcpus_on_each_host() {
    for profile in [Profile::PLAIN, Profile::AIA, Profile::AIA_GUESTS, Profile::MAX] {
        let lab = lab(profile);
        for cpus in [1, 2, 3, 4, 8] {
            boot::boots_to_init(&lab, cpus);
        }
    }
}

#[test]
fn full_a_guest_boots_with_as_many_vcpus_as_there_can_be() {
    boot::boots_to_init(&lab(Profile::AIA), 64);
}

#[test]
fn full_a_kernel_boots_in_each_form() {
    forms::a_kernel_boots_in_each_form(&lab(Profile::AIA));
}

#[test]
fn an_overlay_changes_what_the_guest_sees() {
    forms::an_overlay_changes_what_the_guest_sees(&lab(Profile::AIA));
}

#[test]
fn full_devices_work_on_each_host() {
    for profile in [Profile::PLAIN, Profile::AIA_GUESTS, Profile::MAX] {
        let lab = lab(profile);
        boot::reads_and_writes_a_disk(&lab);
        boot::pings_the_host(&lab);
        boot::the_virtio_console_is_a_console(&lab);
        boot::the_vdso_reads_the_clock(&lab);
    }
}

#[test]
fn a_guest_reads_a_disk_and_writes_what_the_host_then_finds() {
    let lab = lab(Profile::AIA);
    boot::reads_and_writes_a_disk(&lab);
    boot::a_read_only_disk_stays_as_it_is(&lab);
}

#[test]
fn more_devices_than_mmio_has_places_for_work_on_pci_with_messages() {
    boot::devices_work_on_pci(&lab(Profile::AIA), "PCI-MSIX-0000:00:01.0");
}

#[test]
fn full_devices_on_pci_share_lines_on_a_host_without_messages() {
    boot::devices_work_on_pci(&lab(Profile::PLAIN), "SiFive PLIC");
}

#[test]
fn full_devices_work_on_pci_where_the_host_has_guest_interrupt_files() {
    boot::devices_work_on_pci(&lab(Profile::AIA_GUESTS), "PCI-MSIX-0000:00:01.0");
}

#[test]
fn a_guest_pings_the_host() {
    let lab = lab(Profile::AIA);
    boot::pings_the_host(&lab);
    boot::pings_the_host_through_its_kernel(&lab, Transport::Mmio);
    boot::pings_the_host_through_its_kernel(&lab, Transport::Pci);
}

#[test]
fn a_reset_boots_the_guest_again() {
    boot::a_reset_boots_again(&lab(Profile::AIA));
}

#[test]
fn full_a_reset_loop_is_slowed_down_and_reported() {
    boot::a_reset_loop_is_slowed_down_and_reported(&lab(Profile::AIA));
}

#[test]
fn a_crash_ends_rvmm_with_status_3_where_asked_for() {
    boot::a_crash_ends_with_status_3(&lab(Profile::AIA));
}

#[test]
fn the_firmware_console_prints_and_the_vdso_reads_the_clock() {
    let lab = lab(Profile::AIA);
    boot::the_firmware_console_prints(&lab);
    boot::the_vdso_reads_the_clock(&lab);
}

#[test]
fn the_virtio_console_is_a_console() {
    boot::the_virtio_console_is_a_console(&lab(Profile::AIA));
}

#[test]
fn ctrl_bracket_leaves_and_restores_the_terminal() {
    boot::ctrl_bracket_leaves_and_restores_the_terminal(&lab(Profile::AIA));
}

/// Emulated in an emulated host a whole boot takes minutes, so the firmware's banner has to do here.
#[test]
fn a_host_without_kvm_falls_back_to_tcg_and_says_so() {
    let lab = lab(Profile::NO_KVM);
    let assets = lab.assets();
    let boot = ["rvmm", "--kernel", &assets.kernel, "--initrd", &assets.bench];
    let mut vm = lab.spawn(&boot).unwrap();
    vm.expect("rvmm: no RISC-V KVM here: /dev/kvm cannot be opened", PATIENCE)
        .unwrap();
    vm.expect("OpenSBI v", PATIENCE).unwrap();
    vm.kill(Signal::TERM).unwrap();
    let output = vm.wait(PATIENCE).unwrap();
    assert_eq!(
        (output.status(), output.error_text().lines().count()),
        (Some(128 + 15), 1),
        "{}",
        output.error_text()
    );

    let refused = lab.run(&[&boot[..], &["--accel", "kvm"]].concat()).unwrap();
    assert_eq!(refused.status(), Some(1));
    assert!(
        refused
            .error_text()
            .starts_with("rvmm: --accel kvm: no RISC-V KVM here: /dev/kvm"),
        "{}",
        refused.error_text()
    );
}

#[test]
fn full_a_host_without_kvm_boots_the_same_guest_in_tcg() {
    let lab = lab(Profile::NO_KVM);
    let assets = lab.assets();
    let boot = [
        "rvmm",
        "--kernel",
        &assets.kernel,
        "--initrd",
        &assets.bench,
        "--cmdline",
        "console=ttyS0 quiet",
    ];
    let output = lab.run_within(&boot, 4 * PATIENCE).unwrap();
    assert_eq!(output.status(), Some(0), "{}", output.error_text());
    assert!(output.text().contains("GUEST-UP"), "{}", output.text());
}

#[test]
fn the_guest_gets_entropy() {
    boot::the_guest_gets_entropy(&lab(Profile::AIA));
}

#[test]
fn full_a_guest_boots_twenty_times_in_a_row() {
    boot::boots_again_and_again(&lab(Profile::AIA), 20);
}

#[test]
fn a_machine_obeys_its_control_socket() {
    boot::obeys_its_control_socket(&lab(Profile::AIA));
}

#[test]
fn full_a_hundred_resets_leak_nothing() {
    boot::resets_leak_nothing(&lab(Profile::AIA), 100);
}
