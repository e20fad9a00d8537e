//! The networks of machines: a namespace for each, joined to the node's, which leads outside.

pub mod model;
pub mod nft;
pub mod policy;
pub mod rules;

#[cfg(test)]
mod sample;
