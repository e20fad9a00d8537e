//! Networks of the host.

pub mod passt;
pub mod tap;

pub use passt::{Passt, PasstError};
pub use tap::{Tap, TapError};
