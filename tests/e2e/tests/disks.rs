//! Disks under both backends: what a guest asks of them is done, and their files are sound afterwards.

use rvm_e2e::{disks, full};
use rvm_outer::{Here, Host, Profile, Setup, qcow2};
use rvmm_spec::DiskBus;

#[test]
fn lab_disks_do_what_guests_ask_of_them() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    disks::disks_do_what_guests_ask_of_them(&lab.start().unwrap());
}

#[test]
fn tcg_disks_do_what_guests_ask_of_them() {
    disks::disks_do_what_guests_ask_of_them(&Here::start().unwrap());
}

#[test]
fn lab_a_guest_goes_on_when_a_full_disk_has_room_again() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    full::a_guest_goes_on_when_there_is_room_again(&lab.start().unwrap(), DiskBus::Virtio);
}

#[test]
fn full_lab_a_guest_goes_on_when_a_full_disk_on_scsi_has_room_again() {
    let lab = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    full::a_guest_goes_on_when_there_is_room_again(&lab.start().unwrap(), DiskBus::Scsi);
}

#[test]
fn tcg_a_guest_goes_on_when_a_full_disk_has_room_again() {
    full::a_guest_goes_on_when_there_is_room_again(&Here::start().unwrap(), DiskBus::Virtio);
}

#[test]
fn full_tcg_a_guest_goes_on_when_a_full_disk_on_scsi_has_room_again() {
    full::a_guest_goes_on_when_there_is_room_again(&Here::start().unwrap(), DiskBus::Scsi);
}

#[test]
fn a_qcow2_disk_that_names_another_file_is_refused_by_that_name() {
    let here = Here::start().unwrap();
    let kernel = here.assets().kernel.clone();
    let mut image = qcow2::empty(1 << 20);
    image[8..16].copy_from_slice(&0x400u64.to_be_bytes());
    image[16..20].copy_from_slice(&11u32.to_be_bytes());
    image[0x400..0x40b].copy_from_slice(b"/etc/shadow");
    here.put("disk.qcow2", &image).unwrap();
    let refused = here
        .run(&[
            "rvmm",
            "--kernel",
            &kernel,
            "--accel",
            "tcg",
            "--disk",
            "disk.qcow2,format=qcow2",
        ])
        .unwrap();
    let said = refused.error_text();
    assert_eq!((refused.status(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(
        said.contains("disk 'disk.qcow2' cannot be used as qcow2: it needs the backing file '/etc/shadow'"),
        "{said}"
    );
}
