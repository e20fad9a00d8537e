//! From files to a loaded guest: kernel, initrd and device tree in RAM. Both backends check their files here, so a
//! file that one refuses the other refuses in the same words.
//!
//! ```text
//!  RAM_BASE + 2 MiB   kernel, up to its image_size (its file ends before its BSS does)
//!        …            free
//!        …            initrd, directly below the device tree, page-aligned
//!  top of RAM         device tree
//! ```
//!
//! The files are hostile: their headers are checked against their length and against RAM before anything is written.

pub mod image;
pub mod initrd;
pub mod memory;
mod pe;

use std::path::{Path, PathBuf};

use rvmm_spec::{Boot, MemorySize};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Where RAM starts, as on QEMU's `virt`.
pub const RAM_BASE: u64 = 0x8000_0000;
/// Where a kernel is loaded, from the start of RAM: what lies below is firmware's where there is some.
pub const KERNEL_OFFSET: u64 = 0x20_0000;

/// Room for the device tree at the top of RAM. Linux maps no more than 2 MiB of it.
pub const DEVICE_TREE_ROOM: u64 = 2 << 20;

/// Where things came to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// The kernel's first instruction.
    pub entry: u64,
    /// First and last-plus-one address of the initrd.
    pub initrd: Option<(u64, u64)>,
    /// Where the device tree goes.
    pub device_tree: u64,
}

/// What cannot be booted. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel's file.
    #[error("kernel '{}'", .0.display())]
    Kernel(PathBuf, #[source] image::ImageError),
    /// The initrd's file.
    #[error("initrd '{}'", .0.display())]
    Initrd(PathBuf, #[source] initrd::InitrdError),
    /// The device tree did not fit its room.
    #[error("the device tree has {0} bytes; at most {DEVICE_TREE_ROOM} fit")]
    DeviceTree(usize),
    /// Guest RAM could not be written.
    #[error("guest memory cannot be written")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// Loads kernel and initrd, and finds room for the device tree.
///
/// # Errors
/// The file that cannot be booted, and why.
pub fn load(boot: &Boot, memory: &GuestMemoryMmap, size: MemorySize) -> Result<Loaded, BootError> {
    let top = RAM_BASE + size.bytes();
    let device_tree = top - DEVICE_TREE_ROOM;
    let kernel = image::load(&boot.kernel, memory, RAM_BASE, device_tree)
        .map_err(|error| BootError::Kernel(boot.kernel.clone(), error))?;
    let place = |path: &Path| {
        initrd::load(path, memory, kernel.end, device_tree)
            .map_err(|error| BootError::Initrd(path.to_owned(), error))
    };
    let initrd = boot.initrd.as_deref().map(place).transpose()?;
    Ok(Loaded {
        entry: kernel.entry,
        initrd,
        device_tree,
    })
}

/// Writes the device tree where [`load`] left room for it.
///
/// # Errors
/// When it does not fit.
pub fn write_device_tree(
    loaded: &Loaded,
    device_tree: &[u8],
    memory: &GuestMemoryMmap,
) -> Result<(), BootError> {
    if device_tree.len() as u64 > DEVICE_TREE_ROOM {
        return Err(BootError::DeviceTree(device_tree.len()));
    }
    memory
        .write_slice(device_tree, GuestAddress(loaded.device_tree))
        .map_err(BootError::Memory)
}
