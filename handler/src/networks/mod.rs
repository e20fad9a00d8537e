//! The networks of machines: a namespace for each, joined to the node's, which leads outside.

mod addresses;
pub mod client;
pub(crate) mod door;
pub mod enforce;
mod keeper;
pub mod model;
pub(crate) mod namespace;
pub(crate) mod netlink;
pub mod nft;
pub(crate) mod node;
pub mod outside;
mod place;
mod pod;
pub mod policy;
pub mod protocol;
pub mod range;
pub mod rules;
#[cfg(test)]
mod sample;
pub(crate) mod tap;
pub mod wish;
