//! The catalog of firmware images, checked when used.
//!
//! Firmware runs before anything of ours or the guest's, so it is named by its hash: [`find`] says what an image is
//! and where it comes from, [`verify`] that a file on this machine is that very image, [`locate`] where such a file is.

mod catalog;
mod locate;
mod verify;

pub use catalog::{CatalogError, Image, find, images};
pub use locate::{FOLDER_VARIABLE, LocateError, locate};
pub use verify::{VerifyError, verify};
