//! How often guests have left, by KVM's own counts.

use anyhow::{Context, Result};

use crate::host::Host;
use crate::lab::Lab;

/// KVM's counts, over all VMs that live; user space is entered for the second.
const ALL: &str = "/sys/kernel/debug/kvm/exits";
const TO_USER: [&str; 3] = [
    "/sys/kernel/debug/kvm/mmio_exit_user",
    "/sys/kernel/debug/kvm/csr_exit_user",
    "/sys/kernel/debug/kvm/signal_exits",
];

/// Exits of all guests that live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exits {
    /// All of them.
    pub all: u64,
    /// Those that reach user space.
    pub to_user: u64,
}

/// What KVM has counted up to now.
pub fn counts(lab: &Lab) -> Result<Exits> {
    Ok(Exits {
        all: count(lab, ALL)?,
        to_user: TO_USER.iter().map(|file| count(lab, file)).sum::<Result<u64>>()?,
    })
}

fn count(lab: &Lab, file: &str) -> Result<u64> {
    let text = lab.run(&["cat", file])?.ok()?;
    text.trim()
        .parse()
        .with_context(|| format!("{file} says {text:?}"))
}
