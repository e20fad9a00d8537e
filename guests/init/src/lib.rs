//! What the programs of this crate share: the guest agent.

pub mod agent;
