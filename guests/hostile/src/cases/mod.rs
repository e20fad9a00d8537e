//! The table, in files by category: A rings and queues, B transport, C disks, D network, E console and entropy,
//! F serial port and the board's small devices, G firmware, CPU and what ends a guest.

mod chain;
mod cpu;
mod disk;
mod end;
mod features;
mod firmware;
mod interrupts;
mod network;
mod platform;
mod queue;
mod registers;
mod streams;

use crate::Case;

/// The files of the table, in the order in which they are run.
const TABLES: [&[Case]; 12] = [
    chain::CASES,
    queue::CASES,
    features::CASES,
    registers::CASES,
    disk::CASES,
    network::CASES,
    streams::CASES,
    platform::CASES,
    interrupts::CASES,
    firmware::CASES,
    cpu::CASES,
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

    #[test]
    fn every_case_has_a_name_of_its_own_and_says_what_it_does() {
        let names: BTreeSet<_> = all().map(|case| case.id).collect();
        let texts: BTreeSet<_> = all().map(|case| case.text).collect();
        assert_eq!((names.len(), texts.len()), (all().count(), all().count()));
    }

    #[test]
    fn there_are_more_than_two_hundred_cases_in_seven_categories() {
        let categories: BTreeSet<_> = all().map(super::super::table::Case::category).collect();
        assert!(all().count() >= 200);
        assert_eq!(categories, BTreeSet::from(['A', 'B', 'C', 'D', 'E', 'F', 'G']));
    }
}
