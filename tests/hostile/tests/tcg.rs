//! Under TCG: each case of the table ends as the table says. QEMU's devices answer here.

use rvm_hostile_tests::{ALL, has_every_verdict, survives_every_case};
use rvm_outer::Here;

#[test]
fn every_case_is_survived_as_listed() {
    survives_every_case(&Here::start().unwrap(), ALL);
}

#[test]
fn full_every_case_of_the_list_has_its_verdict() {
    has_every_verdict(&Here::start().unwrap());
}
