//! Puts the parts of a machine together and keeps them running.

pub mod boot;
pub mod fdt;
pub mod layout;
pub mod memory;
