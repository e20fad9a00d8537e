//! How many vCPUs a VMI asks for.

use rvm_types::domain::Domain;

/// Cores × sockets × threads, each of them 1 where it is not given.
pub fn count(domain: &Domain) -> u64 {
    let cpu = domain.cpu.clone().unwrap_or_default();
    let counts = [cpu.cores, cpu.sockets, cpu.threads];
    counts
        .iter()
        .map(|count| u64::from(count.unwrap_or(1)))
        .fold(1, u64::saturating_mul)
}
