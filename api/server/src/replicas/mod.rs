//! The controller of VirtualMachineInstanceReplicaSets: keeps as many instances as a set asks for.
//!
//! ```text
//!   watch: sets, and VMIs (their owners, or who would adopt them)
//!        │ one set at a time
//!        ▼
//!   see     the set, and all VMIs of its namespace, as the API has them now
//!   plan    pure: → Vec<Step>           plan.rs: what is to be done   status.rs: what is to be said
//!   do      steps.rs → the API
//! ```
//!
//! Life of an instance: it is made from the template, under a name that the API completes, and owned by the set. Handlers run it. When
//! it has ended it is deleted, and another takes its place; one that never ran holds its place for a while, so that a template that
//! cannot start does not keep the cluster busy. What the selector no longer selects is let go and runs on without the set; what it
//! selects and nobody controls is adopted.
//!
//! Invariants:
//! - An instance that another object controls is never touched.
//! - What is decided on is read from the API each time, never from a watch, which may be late: a set never makes one too many for
//!   not having seen its own.
//! - A set that is deleted makes and adopts nothing. Its instances go by garbage collection, or stay (orphans).
//! - Nothing is kept in memory: another controller can go on at any moment. There must be one at a time, though.

mod controller;
mod plan;
#[cfg(test)]
mod sample;
mod status;
mod steps;

pub use controller::run;
