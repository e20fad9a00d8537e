//! What the programs of this crate share: the guest agent, and what it and the greeting tell of the guest.

pub mod agent;
pub mod exec;
mod facts;
mod freeze;
pub mod release;
