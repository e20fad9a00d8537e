//! Under TCG: each case of the table ends as the table says.

use rvm_hostile::Backend;
use rvm_hostile_tests::{cases_of, ends_as_listed, survives_every_case};
use rvm_outer::Here;

#[test]
fn every_case_is_survived() {
    survives_every_case(&Here::start().unwrap());
}

#[test]
fn full_every_ending_is_the_listed_one() {
    let endings: Vec<_> = cases_of(Backend::Tcg, true).collect();
    ends_as_listed(&Here::start().unwrap(), &endings);
}
