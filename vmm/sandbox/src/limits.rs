//! Limits of the process: descriptors, memory, no core file.
//!
//! | limit | value | why |
//! | --- | --- | --- |
//! | `RLIMIT_NOFILE` | what the machine has devices, vCPUs and clients for | a leak ends in an error, not in the host's table |
//! | `RLIMIT_DATA` (KVM) | guest RAM, stacks, and room for rvmm itself | rvmm cannot grow without bound. It counts private writable memory; `RLIMIT_AS` would also count what the C library reserves and never touches |
//! | `RLIMIT_CORE` | 0 | a core file would hold what the guest holds |
//!
//! There is no `RLIMIT_NPROC`: it counts all processes of a user, and a filter that knows no `fork` does better.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rvmm_spec::Spec;

use crate::{Plan, SandboxError};

/// Descriptors of a machine without devices: standard streams, event loop, sockets, files of a boot.
const OWN_DESCRIPTORS: u64 = 128;
/// Clients of console and control socket.
const CLIENT_DESCRIPTORS: u64 = 64;
/// A vCPU's, once more for its interrupts, its statistics.
const CPU_DESCRIPTORS: u64 = 4;
/// A device's back end, and doorbells and interrupts of its queues.
const DEVICE_DESCRIPTORS: u64 = 64;
/// Connections from the guest to sockets of the host.
const CONNECTION_DESCRIPTORS: u64 = 1024;

/// Memory of rvmm itself in bytes: program, heap, backlog, rings, files while they are unpacked.
const OWN_MEMORY: u64 = 256 << 20;
/// A thread's stack and its share of the heap, in bytes.
const THREAD_MEMORY: u64 = 4 << 20;
/// Threads besides those of vCPUs.
const OTHER_THREADS: u64 = 64;

/// Sets the limits; they can only be lowered from then on.
pub(crate) fn set(plan: &Plan<'_>) -> Result<(), SandboxError> {
    let refused = |what| move |errno: rustix::io::Errno| SandboxError::Refused(what, io::Error::from(errno));
    lower(Resource::Core, 0).map_err(refused("the size of core files cannot be limited"))?;
    lower(Resource::Nofile, descriptors(plan.spec)).map_err(refused("descriptors cannot be limited"))?;
    if plan.emulator.is_none() {
        lower(Resource::Data, memory(plan.spec)).map_err(refused("memory cannot be limited"))?;
    }
    Ok(())
}

fn descriptors(spec: &Spec) -> u64 {
    // As many as there may ever be.
    let devices = (spec.transport().max_devices() + 8) as u64;
    OWN_DESCRIPTORS
        + CLIENT_DESCRIPTORS
        + CONNECTION_DESCRIPTORS
        + CPU_DESCRIPTORS * u64::from(spec.cpus())
        + DEVICE_DESCRIPTORS * devices
}

fn memory(spec: &Spec) -> u64 {
    let threads = u64::from(spec.cpus()) + OTHER_THREADS;
    spec.memory().bytes() + OWN_MEMORY + THREAD_MEMORY * threads
}

/// Sets both limits to `value`, or as high as they may go.
fn lower(resource: Resource, value: u64) -> rustix::io::Result<()> {
    let value = getrlimit(resource)
        .maximum
        .map_or(value, |maximum| maximum.min(value));
    let limit = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    setrlimit(resource, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvmm_spec::{Boot, MemorySize};

    #[test]
    fn limits_grow_with_the_machine() {
        let wish = || Spec::builder(Boot::new("Image"));
        let small = wish().build().unwrap();
        let large = wish()
            .cpus(64)
            .memory(MemorySize::from_mib(1 << 10))
            .build()
            .unwrap();
        assert_eq!(descriptors(&large) - descriptors(&small), 63 * CPU_DESCRIPTORS);
        assert_eq!(memory(&large) - memory(&small), (768 << 20) + 63 * THREAD_MEMORY);
    }
}
