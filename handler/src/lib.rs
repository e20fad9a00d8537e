//! One per node: makes the node's virtual machines match the cluster's wishes.
//!
//! ```text
//!   controller ──► steps ──► images     an image → kernel and initrd       pulling: from registries, beside the loop
//!       │            │  └──► process    one rvmm for each VM, found again by its run directory
//!       │            └─────► the API    compare-and-swap writes, events
//!       └──► plan (pure) ──► claim      which node
//!                    │  └──► status     what is said
//!                    └─────► translate  VMI → Spec
//!   hotplug: volumes that come and go, decided    plugging: the same, done
//!   launch: how a machine gets its process, ours or a pod's
//!   agent: what guests say of themselves    asking: what others say to guests' agents
//!   thaws: guests that are frozen for a time
//!   doors: what the gRPC server asks for          node: heartbeat and labels       place: directories, own id
//! ```
//!
//! Invariants: what is known of machines is on disk, never only in memory; every decision is made in a pure function; every
//! write of a VMI takes hold on the state that it was decided on, or not at all; no machine dies with the handler.

pub mod agent;
mod asking;
mod changes;
pub mod claim;
pub mod controller;
mod credentials;
pub mod devices;
pub mod doors;
pub mod events;
pub mod hotplug;
pub mod images;
pub mod launch;
pub mod metrics;
pub mod networks;
pub mod node;
pub mod place;
pub mod plan;
pub mod plugging;
mod preparing;
pub mod process;
pub mod pulling;
pub mod retries;
#[cfg(test)]
mod sample;
pub mod shelf;
pub mod status;
pub mod steps;
pub mod thaws;
pub mod translate;
mod usage;
pub mod vm;
pub mod volumes;
