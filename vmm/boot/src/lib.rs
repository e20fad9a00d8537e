//! From files to a loaded guest: kernel or firmware, initrd and device tree in RAM. Both backends check their files
//! here, so a file that one refuses the other refuses in the same words.
//!
//! ```text
//!  RAM_BASE           free: an SBI firmware's, where there is one
//!  RAM_BASE + 2 MiB   kernel, up to its image_size (its file ends before its BSS does)
//!        …            free
//!        …            initrd, as high as it goes, page-aligned
//!  top of RAM         device tree
//! ```
//!
//! The files are hostile: their headers are checked against their length and against RAM before anything is written.

pub mod dtb;
mod elf;
pub mod firmware;
mod image;
pub mod initrd;
pub mod kernel;
pub mod memory;
mod pe;
pub mod room;
mod zboot;

use std::path::{Path, PathBuf};

use rvmm_spec::{Boot, MemorySize, Payload};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use firmware::{FirmwareError, Place};
use kernel::Kernel;
use room::{Places, Room};

/// Where RAM starts, as on QEMU's `virt`.
pub const RAM_BASE: u64 = 0x8000_0000;
/// Where a kernel is loaded, from the start of RAM: what lies below is firmware's where there is some.
pub const KERNEL_OFFSET: u64 = 0x20_0000;

/// Room for the device tree at the top of RAM. Linux maps no more than 2 MiB of it.
pub const DEVICE_TREE_ROOM: u64 = 2 << 20;

/// Nothing is loaded higher than this from the start of RAM: the smallest page-table mode reaches no further.
const HIGHEST: u64 = 64 << 30;

/// Where things came to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// What was started first.
    pub first: First,
    /// First and last-plus-one address of the initrd.
    pub initrd: Option<(u64, u64)>,
    /// Where the device tree goes.
    pub device_tree: u64,
}

/// What runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// A kernel in RAM.
    Kernel(Kernel),
    /// A firmware in RAM.
    Firmware(Kernel),
    /// A firmware in flash, which is not RAM, and so not loaded yet.
    Flash,
}

/// What cannot be booted. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel's file.
    #[error("kernel '{}'", .0.display())]
    Kernel(PathBuf, #[source] kernel::KernelError),
    /// The initrd's file.
    #[error("initrd '{}'", .0.display())]
    Initrd(PathBuf, #[source] initrd::InitrdError),
    /// The firmware's file.
    #[error("firmware '{}'", .0.display())]
    Firmware(PathBuf, #[source] FirmwareError),
    /// A device-tree overlay's file.
    #[error("device-tree overlay '{}'", .0.display())]
    Overlay(PathBuf, #[source] dtb::overlay::OverlayError),
    /// The machine's own device tree, or what overlays have made of it.
    #[error("the machine's device tree")]
    Tree(#[source] dtb::DtbError),
    /// The device tree did not fit its room.
    #[error("the device tree has {0} bytes; at most {DEVICE_TREE_ROOM} fit")]
    DeviceTree(usize),
    /// Guest RAM could not be written.
    #[error("guest memory cannot be written")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

// === impl Loaded ===

impl Loaded {
    /// What is in RAM, kernel or firmware.
    pub fn in_ram(&self) -> Option<&Kernel> {
        match &self.first {
            First::Kernel(kernel) | First::Firmware(kernel) => Some(kernel),
            First::Flash => None,
        }
    }
}

/// Who brings the files into the guest's RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loader {
    /// We.
    Us,
    /// An emulator, later.
    Emulator,
}

/// Loads kernel or firmware, and initrd, and finds room for the device tree.
///
/// # Errors
/// The file that cannot be booted, and why.
pub fn load(boot: &Boot, memory: &GuestMemoryMmap, size: MemorySize) -> Result<Loaded, BootError> {
    arrange(boot, memory, size, Loader::Us)
}

/// Finds every fault that [`load`] finds, and the same places, for an emulator that loads the files itself. Only what has to be unpacked
/// first is in this memory then.
///
/// # Errors
/// As those of [`load`].
pub fn examine(boot: &Boot, memory: &GuestMemoryMmap, size: MemorySize) -> Result<Loaded, BootError> {
    arrange(boot, memory, size, Loader::Emulator)
}

fn arrange(
    boot: &Boot,
    memory: &GuestMemoryMmap,
    size: MemorySize,
    loader: Loader,
) -> Result<Loaded, BootError> {
    let top = RAM_BASE + size.bytes().min(HIGHEST);
    let device_tree = top - DEVICE_TREE_ROOM;
    let room = Room {
        start: RAM_BASE + KERNEL_OFFSET,
        end: device_tree,
    };
    let first = match &boot.payload {
        Payload::Kernel(path) => {
            let kernel = match loader {
                Loader::Us => kernel::load(path, memory, room),
                Loader::Emulator => kernel::examine(path, memory, room),
            };
            First::Kernel(kernel.map_err(|error| BootError::Kernel(path.clone(), error))?)
        }
        Payload::Firmware(firmware) => {
            let place = firmware::load(firmware, memory, room)
                .map_err(|error| BootError::Firmware(firmware.image.clone(), error))?;
            match place {
                Place::Ram(kernel) => First::Firmware(kernel),
                Place::Flash => First::Flash,
            }
        }
    };
    let mut loaded = Loaded {
        first,
        initrd: None,
        device_tree,
    };
    let mut places = Places::new(room);
    if let Some(Kernel { start, end, .. }) = loaded.in_ram().copied() {
        places.take(Room { start, end });
    }
    let place = |path: &Path| {
        let placed = match loader {
            Loader::Us => initrd::load(path, memory, &mut places),
            Loader::Emulator => initrd::examine(path, &mut places),
        };
        placed.map_err(|error| BootError::Initrd(path.to_owned(), error))
    };
    let initrd = boot.initrd.as_deref().map(place).transpose()?;
    loaded.initrd = initrd.map(|room| (room.start, room.end));
    Ok(loaded)
}

/// Applies overlays to a machine's device tree, in their order.
///
/// # Errors
/// The file that cannot be applied, and why.
pub fn apply_overlays(device_tree: Vec<u8>, overlays: &[PathBuf]) -> Result<Vec<u8>, BootError> {
    if overlays.is_empty() {
        return Ok(device_tree);
    }
    let mut tree = dtb::parse(&device_tree).map_err(BootError::Tree)?;
    dtb::overlay::label(&mut tree);
    for path in overlays {
        let applied = dtb::overlay::read(path).and_then(|blob| dtb::overlay::apply(&mut tree, &blob));
        applied.map_err(|error| BootError::Overlay(path.clone(), error))?;
    }
    dtb::write(&tree).map_err(BootError::Tree)
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
