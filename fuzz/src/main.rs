//! A fuzzer for one of the targets: libFuzzer, which `cargo xtask fuzz` builds with the compiler's coverage and starts.
//!
//! `RVM_FUZZ_TARGET` names the target; the arguments are libFuzzer's own.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rvm_fuzz::{TARGETS, Target};

/// Where the target's name is.
const NAME: &str = "RVM_FUZZ_TARGET";

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var(NAME).unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.expect("RVM_FUZZ_TARGET names a target").1
});

fuzz_target!(init: { LazyLock::force(&TARGET); }, |script: &[u8]| TARGET(script));
