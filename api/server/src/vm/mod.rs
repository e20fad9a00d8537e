//! The controller of VirtualMachines: makes their instances, ends them, and says how they are.
//!
//! ```text
//!   watch: VMs, and the VMIs that they own
//!        │ one VM at a time
//!        ▼
//!   see     the VM, the VMI of its name, the revision that it was made from
//!   plan    pure: → Vec<Step>           plan.rs: what is to be done   status.rs: what is to be said
//!   do      steps.rs → the API          failures.rs: not too often
//! ```
//!
//! Life of a VM: its strategy wants an instance, so one is made from the template: of the same name, owned by the VM, and held
//! by a finalizer of ours. Handlers run it. When it has ended, how it ended is noted in the VM's status; then the finalizer
//! goes, the instance with it, and the strategy decides anew. Who asks for a start or a stop leaves a request in the status,
//! which is dropped once it is done.
//!
//! Invariants, as KubeVirt has them:
//! - An instance of the VM's name that another object owns is never touched; one that nobody owns is adopted.
//! - What an instance was made from is kept as a `ControllerRevision`, so that a changed template can be told from a changed
//!   strategy. A running instance is not changed by either.
//! - Nothing is kept in memory: another controller can go on at any moment. There must be one at a time, though.

mod controller;
mod failures;
mod plan;
mod revision;
#[cfg(test)]
pub(crate) mod sample;
mod status;
mod steps;

pub use controller::run;
pub(crate) use steps::{with_strategy, with_volumes};
