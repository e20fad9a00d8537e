//! What stands in for a cluster and its machines in tests: a small Kubernetes API and consoles, both in memory.

mod api;
mod consoles;

pub use api::FakeApi;
pub use consoles::{FakeConsole, FakeMachines};
