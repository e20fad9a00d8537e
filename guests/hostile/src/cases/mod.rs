//! The table, in files by category: A rings and queues, B transport, C disks, D network, E console, entropy, balloon and
//! sockets, F serial port and the board's small devices, G firmware, CPU and what ends a guest.

mod balloon;
mod bus;
mod chain;
mod cpu;
mod disk;
mod end;
mod features;
mod firmware;
mod interrupts;
mod messages;
mod network;
mod platform;
mod queue;
mod registers;
mod sockets;
mod streams;

use crate::Case;

/// The files of the table, in the order in which they are run.
const TABLES: [&[Case]; 16] = [
    chain::CASES,
    queue::CASES,
    features::CASES,
    registers::CASES,
    disk::CASES,
    network::CASES,
    streams::CASES,
    balloon::CASES,
    sockets::CASES,
    platform::CASES,
    interrupts::CASES,
    firmware::CASES,
    cpu::CASES,
    bus::CASES,
    messages::CASES,
    end::CASES,
];

/// All cases.
pub fn all() -> impl Iterator<Item = &'static Case> {
    TABLES.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::all;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    #[test]
    fn every_case_has_a_name_of_its_own_and_says_what_it_does() {
        let names: BTreeSet<_> = all().map(|case| case.id).collect();
        let texts: BTreeSet<_> = all().map(|case| case.text).collect();
        assert_eq!((names.len(), texts.len()), (all().count(), all().count()));
    }

    #[test]
    fn where_more_than_one_verdict_is_right_the_list_says_why() {
        let both = all().flat_map(|case| [case.kvm, case.tcg]);
        let unsaid: Vec<_> = both
            .filter(|expected| (expected.verdicts().len() > 1) != expected.why().is_some())
            .collect();
        assert_eq!(unsaid, []);
    }

    #[test]
    fn several_verdicts_are_the_exception() {
        let loose = |expected: crate::Expected| expected.why().is_some();
        let (kvm, tcg) = (
            all().filter(|case| loose(case.kvm)).count(),
            all().filter(|case| loose(case.tcg)).count(),
        );
        assert!(kvm * 5 < all().count() && tcg * 10 < all().count(), "{kvm} {tcg}");
    }

    #[test]
    fn there_are_more_than_two_hundred_cases_in_seven_categories() {
        let categories: BTreeSet<_> = all().map(super::super::table::Case::category).collect();
        assert!(all().count() >= 200);
        assert_eq!(categories, BTreeSet::from(['A', 'B', 'C', 'D', 'E', 'F', 'G']));
    }
}
