//! One per node: makes the node's virtual machines match the cluster's wishes.

pub mod claim;
pub mod images;
pub mod plan;
pub mod process;
pub mod status;
pub mod translate;
pub mod vm;
