//! The manifest: `VirtualMachineInstance`, `VirtualMachine`, `VirtualMachineInstanceReplicaSet` and `KubeVirt` of `kubevirt.io/v1` as
//! Rust types, and what may be said about one without looking at any machine.
//!
//! ```text
//!   YAML / JSON ──parse──► VirtualMachineInstance ──default──► ──validate──► Vec<Cause> (empty: fit to run)
//!   the types   ──crd()──► deploy/crds/*.yaml (structural schema, printer columns)
//! ```
//!
//! Invariants:
//! - What we do not model survives: every struct keeps its unknown fields in `extra`, so an object that was read
//!   and written again by us still says all that its author said. (Only an explicit `null` or empty list of a
//!   modelled field may vanish, which Kubernetes takes for the same thing.)
//! - What we do not model is not silently promised: [`admission::validate`] refuses by name each field that would
//!   change the machine and that rvm cannot do.
//! - No I/O and no clock but [`condition::now`].

pub mod admission;
pub mod claim;
pub mod condition;
pub mod config;
pub mod crd;
pub mod devices;
pub mod domain;
pub mod hotplug;
pub mod kubevirt;
pub mod manifest;
pub mod names;
pub mod phase;
pub mod qos;
pub mod quantity;
pub mod reference;
pub mod replica_set;
pub mod status;
pub mod vm;
pub mod vmi;
pub mod volume;
mod word;

use std::collections::BTreeMap;

pub use admission::Cause;
pub use claim::Claim;
pub use kubevirt::KubeVirt;
pub use phase::Phase;
pub use quantity::Quantity;
pub use replica_set::VirtualMachineInstanceReplicaSet;
pub use status::VirtualMachineInstanceStatus;
pub use vm::{RunStrategy, VirtualMachine, VirtualMachineSpec};
pub use vmi::{VirtualMachineInstance, VirtualMachineInstanceSpec};

/// Fields that rvm does not model, kept as they came.
pub type Extra = BTreeMap<String, serde_json::Value>;
