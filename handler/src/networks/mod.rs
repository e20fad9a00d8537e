//! The networks of machines: a namespace for each, joined to the node's, which leads outside.

mod addresses;
pub mod client;
mod door;
pub mod enforce;
mod keeper;
pub mod model;
mod namespace;
mod netlink;
pub mod nft;
mod node;
pub mod outside;
mod pod;
pub mod policy;
pub mod protocol;
pub mod range;
pub mod rules;
#[cfg(test)]
mod sample;
mod tap;
pub mod wish;
