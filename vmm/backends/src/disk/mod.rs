//! Disks on files and block devices of the host.

mod lock;
pub mod raw;

pub use raw::{DiskError, RawDisk};
