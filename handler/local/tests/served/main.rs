//! The local API as others meet it: a process on a loopback port.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod apply;
mod door;
mod durability;
mod kubectl;
mod server;
