//! Under TCG: each case of the table ends as the table says. QEMU's devices answer here, and some of its verdicts still
//! differ from run to run; so all of it is for `make test-full`, and README.md says so.

use rvm_hostile::Backend;
use rvm_hostile_tests::{cases_of, ends_as_listed, survives_every_case};
use rvm_outer::Here;

#[test]
fn full_every_case_is_survived() {
    survives_every_case(&Here::start().unwrap());
}

#[test]
fn full_every_ending_is_the_listed_one() {
    let endings: Vec<_> = cases_of(Backend::Tcg, true).collect();
    ends_as_listed(&Here::start().unwrap(), &endings);
}
