//! One per node: makes the node's virtual machines match the cluster's wishes.

pub mod claim;
pub mod consoles;
pub mod controller;
pub mod events;
pub mod images;
pub mod node;
pub mod plan;
pub mod process;
#[cfg(test)]
mod sample;
pub mod status;
pub mod steps;
pub mod translate;
pub mod vm;
