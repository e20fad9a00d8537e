//! What the programs of this crate share: the guest agent, and what it and the greeting tell of the guest.

pub mod agent;
mod facts;
pub mod release;
