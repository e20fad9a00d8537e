//! Networks of the host.

pub mod tap;

pub use tap::{Tap, TapError};
