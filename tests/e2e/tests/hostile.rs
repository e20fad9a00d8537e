//! A guest that misuses everything: each case of its table ends as the table says, and the machine goes on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::hostile;
use rvm_hostile::{Backend, Expected, cases};
use rvm_outer::{Here, Lab, Profile, Setup};

fn lab(profile: Profile) -> Lab {
    Setup::new(profile)
        .built("rvmm", "rvmm")
        .unwrap()
        .start()
        .unwrap()
}

#[test]
fn every_case_is_survived_under_tcg() {
    hostile::every_case_is_survived(&Here::start().unwrap());
}

#[test]
fn lab_every_case_is_survived_under_kvm_and_a_fault_ends_the_guest() {
    let lab = lab(Profile::AIA);
    hostile::every_case_is_survived(&lab);
    let fault = cases::all().find(|case| case.kvm == Expected::Fault).unwrap();
    hostile::these_endings_are_as_listed(&lab, &[fault]);
}

#[test]
fn full_every_ending_is_the_listed_one_under_tcg() {
    let endings: Vec<_> = hostile::cases_of(Backend::Tcg, true).collect();
    hostile::these_endings_are_as_listed(&Here::start().unwrap(), &endings);
}

#[test]
fn full_lab_every_ending_is_the_listed_one_under_kvm() {
    let endings: Vec<_> = hostile::cases_of(Backend::Kvm, true).collect();
    hostile::these_endings_are_as_listed(&lab(Profile::AIA), &endings);
}

#[test]
fn full_lab_every_case_is_survived_on_hosts_without_aia_and_with_interrupt_files() {
    hostile::every_case_is_survived(&lab(Profile::PLAIN));
    hostile::every_case_is_survived(&lab(Profile::AIA_GUESTS));
}
