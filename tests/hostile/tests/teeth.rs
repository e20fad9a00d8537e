//! Whether the suite would notice: with a check taken out of rvmm, a case that is named here fails.

use std::process::Command;

use rvm_guests::{Cache, cross};
use rvm_hostile::cases;
use rvm_hostile_tests::{alone, alone_without, prepare};
use rvm_outer::{Profile, Setup};

/// Checks (`vmm/devices/src/blunt.rs`), each with the case that is there for it.
const TEETH: [(&str, &str); 6] = [
    ("ChainLength", "A-chain-past-queue"),
    ("DiskEnd", "C-write-past-end"),
    ("OfferedFeatures", "A-features-of-another-kind"),
    ("ExistingMessage", "B-pci-vector-huge"),
    ("BusMaster", "B-pci-master-off"),
    ("PacketSource", "E-vsock-source-other"),
];

#[test]
fn full_lab_a_check_that_is_taken_out_is_noticed_by_its_case() {
    let cache = Cache::open().unwrap();
    let blunt = ["--features", "rvmm-devices/blunt"];
    let built = cross::build_with(&cache, &["rvmm", "rvmm-devices"], "blunt", &blunt).unwrap();
    let setup = Setup::new(Profile::AIA).program(built.join("rvmm"));
    let lab = setup.start().unwrap();
    prepare(&lab);
    for (check, id) in TEETH {
        let case = cases::all().find(|case| case.id == id).unwrap();
        let (with, without) = (alone(&lab, case), alone_without(&lab, case, check));
        println!("{id}: {with}; without the check {check}: {without}");
        assert!(case.kvm.admits(&with), "{id}: {with}");
        assert!(!case.kvm.admits(&without), "{id} does not notice: {without}");
    }
}

#[test]
fn full_no_optimized_build_can_have_its_checks_taken_out() {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let build = cargo
        .args([
            "check",
            "--package",
            "rvmm-devices",
            "--features",
            "blunt",
            "--release",
        ])
        .current_dir(cross::workspace());
    let output = build.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        said.contains("checks can be taken out in a test's build only"),
        "{said}"
    );
}
