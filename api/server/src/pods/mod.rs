//! A pod for each VirtualMachineInstance: made here, placed by the cluster's scheduler, filled by the handler of its node.
//!
//! ```text
//!   watch: VMIs, and pods of ours
//!        │ one VMI at a time
//!        ▼
//!   see     the VMI, its pods, and the KubeVirt's settings, as the API has them now
//!   plan    pure: → Vec<Step>           plan.rs: what is to be done    status.rs: what is to be said
//!   do      steps.rs → the API          render.rs: the pod             overhead.rs: the memory that it needs
//! ```
//!
//! | VMI | pod | then |
//! | --- | --- | --- |
//! | waits | none | it is made; where the cluster refuses it (a quota), that is told and tried again |
//! | waits | is there | Scheduling; what the scheduler and the kubelet say of it is said of the VMI |
//! | Scheduling, Scheduled | has ended, or is gone | Failed: it never ran |
//! | Running | has ended, or is gone | its handler says how the machine ended; Failed where it is silent |
//! | deleted | is there | deleted, once the machine is over, or its grace is |
//!
//! Which node a VMI is on is the scheduler's choice. The handler there claims it when the pod's process waits for a machine, as it
//! claims any VMI (`handler/src/claim.rs`), and writes its status from then on; what is written here besides is what the pod's
//! conditions say.
//!
//! Invariants:
//! - A pod is a VMI's by its owner's UID. No other is touched.
//! - What is decided on is read from the API each time, never from a watch, which may be late: no VMI gets a second pod for the first
//!   not having been seen. A VMI whose pod was there and is not any more gets no other: it has failed.
//! - Nothing is kept in memory: another controller can go on at any moment. There must be one at a time, though.

mod claims;
mod controller;
mod overhead;
mod plan;
mod render;
#[cfg(test)]
pub(crate) mod sample;
mod status;
mod steps;

pub use controller::run;
pub use overhead::{Accelerator, overhead};
pub use render::Launcher;
