//! Under KVM, in the lab: each case of the table ends as the table says.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_hostile_tests::{ALL, QUEUES, has_every_verdict, survives_every_case};
use rvm_outer::{Lab, Profile, Setup};

fn lab(profile: Profile) -> Lab {
    Setup::new(profile)
        .built("rvmm", "rvmm")
        .unwrap()
        .start()
        .unwrap()
}

#[test]
fn every_case_of_the_queues_and_of_pci_is_survived_as_listed() {
    survives_every_case(&lab(Profile::AIA), QUEUES);
}

#[test]
fn full_every_case_of_the_list_has_its_verdict() {
    has_every_verdict(&lab(Profile::AIA));
}

#[test]
fn full_every_case_is_survived_without_aia() {
    survives_every_case(&lab(Profile::PLAIN), ALL);
}

#[test]
fn full_every_case_is_survived_with_interrupt_files() {
    survives_every_case(&lab(Profile::AIA_GUESTS), ALL);
}
