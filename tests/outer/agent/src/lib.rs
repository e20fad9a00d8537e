//! What runs commands inside the lab's host, and the words it is spoken to with.
//!
//! A test opens a connection, sends one [`wire::Request`], and then both sides speak in [`wire::Frame`]s until the command
//! has ended. [`serve`] is the far end: in the lab it is the `rvm-lab-agent` program behind a TCP port, and for
//! tests on this machine a thread of the test itself behind a socket pair.

pub mod first_entry;
pub mod measure;
pub mod serve;
pub mod terminal;
pub mod wire;
