//! Firmware that boots from a disk: U-Boot in RAM, EDK2 in flash. The file's content says which it is, not its name.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use rvmm_spec::Firmware;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::elf;
use crate::kernel::{self, Form, Kernel, KernelError, read_up_to};
use crate::room::Room;

/// The length of each flash bank, and of its file (QEMU's `virt` has two of them).
pub const FLASH_BANK: u64 = 32 << 20;

/// How a firmware volume begins, behind its zero vector and file-system identity (UEFI PI specification, 3.2.1).
const VOLUME: &[u8] = b"_FVH";
const VOLUME_AT: usize = 40;
const START: usize = 64;

/// Where a firmware runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In RAM, where it has been loaded.
    Ram(Kernel),
    /// In flash.
    Flash,
}

/// Why a firmware cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The file.
    #[error(transparent)]
    File(KernelError),
    /// Longer or shorter than a bank.
    #[error("has {0} bytes; a flash bank's file has {FLASH_BANK}")]
    Size(u64),
    /// Firmware in RAM has no flash.
    #[error("runs in RAM and keeps no variables in flash: leave out the file for them")]
    NoVars,
}

/// Loads a firmware that runs in RAM; of one that runs in flash, only the size is looked at.
///
/// # Errors
/// Why not.
pub fn load(firmware: &Firmware, memory: &GuestMemoryMmap, room: Room) -> Result<Place, FirmwareError> {
    let mut file = kernel::open(&firmware.image).map_err(FirmwareError::File)?;
    let start = read_up_to(&mut file, START).map_err(FirmwareError::File)?;
    let io = |error| FirmwareError::File(KernelError::Io(error));
    let size = file.metadata().map_err(io)?.len();
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    if starts_a_volume(&start) {
        return if size == FLASH_BANK {
            Ok(Place::Flash)
        } else {
            Err(FirmwareError::Size(size))
        };
    }
    if firmware.vars.is_some() {
        return Err(FirmwareError::NoVars);
    }
    let loaded = if start.starts_with(b"\x7fELF") {
        elf::load(&mut file, size, memory, room)
    } else {
        load_raw(&mut file, size, memory, room)
    };
    loaded.map(Place::Ram).map_err(FirmwareError::File)
}

/// Whether a file that has been found good is for flash.
pub fn is_volume(path: &Path) -> bool {
    let start = kernel::open(path).and_then(|mut file| read_up_to(&mut file, START));
    start.is_ok_and(|start| starts_a_volume(&start))
}

fn starts_a_volume(start: &[u8]) -> bool {
    start.get(VOLUME_AT..VOLUME_AT + VOLUME.len()) == Some(VOLUME)
}

/// A binary without a header, where a kernel would be.
fn load_raw(file: &mut File, size: u64, memory: &GuestMemoryMmap, room: Room) -> Result<Kernel, KernelError> {
    if size < START as u64 {
        return Err(KernelError::Short(usize::try_from(size).unwrap_or(0)));
    }
    if size > room.len() {
        return Err(KernelError::TooLarge {
            need: size,
            room: room.len(),
        });
    }
    let len = usize::try_from(size).map_err(|error| KernelError::Io(io::Error::other(error)))?;
    memory
        .read_exact_volatile_from(GuestAddress(room.start), file, len)
        .map_err(KernelError::Memory)?;
    Ok(Kernel {
        entry: room.start,
        start: room.start,
        end: room.start + size,
        loaded: size,
        form: Form::Plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KERNEL_OFFSET, RAM_BASE};
    use rvmm_spec::{MemorySize, Vars};

    const START_OF_ROOM: u64 = RAM_BASE + KERNEL_OFFSET;

    fn load_file(path: &Path, vars: bool) -> Result<Place, FirmwareError> {
        let memory = crate::memory::map(MemorySize::from_mib(32)).unwrap();
        let room = Room {
            start: START_OF_ROOM,
            end: RAM_BASE + (32 << 20),
        };
        let vars = vars.then(|| Vars {
            file: "vars.fd".into(),
            template: None,
        });
        let image = path.to_owned();
        load(&Firmware { image, vars }, &memory, room)
    }

    fn file(bytes: &[u8], size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    fn volume() -> Vec<u8> {
        let mut bytes = vec![0; START];
        bytes[VOLUME_AT..VOLUME_AT + 4].copy_from_slice(VOLUME);
        bytes
    }

    #[test]
    fn a_raw_firmware_is_entered_where_a_kernel_would_be() {
        let Place::Ram(kernel) = load_file(file(&[7; 100], 5000).path(), false).unwrap() else {
            unreachable!("it has no firmware volume")
        };
        assert_eq!(
            (kernel.entry, kernel.end, kernel.loaded),
            (START_OF_ROOM, START_OF_ROOM + 5000, 5000)
        );
    }

    #[test]
    fn a_firmware_volume_of_a_bank_s_size_is_for_flash() {
        let flash = load_file(file(&volume(), FLASH_BANK).path(), true);
        assert_eq!(flash.unwrap(), Place::Flash);
        let odd = load_file(file(&volume(), FLASH_BANK - 1).path(), true).unwrap_err();
        assert_eq!(
            odd.to_string(),
            "has 33554431 bytes; a flash bank's file has 33554432"
        );
    }

    #[test]
    fn a_firmware_that_cannot_be_says_why() {
        let vars = load_file(file(&[7; 100], 5000).path(), true).unwrap_err();
        assert!(matches!(vars, FirmwareError::NoVars));
        let large = load_file(file(&[7; 100], 64 << 20).path(), false).unwrap_err();
        assert_eq!(
            large.to_string(),
            "needs 67108864 bytes of memory; 31457280 are there"
        );
        let short = load_file(file(&[7; 10], 10).path(), false).unwrap_err();
        assert_eq!(short.to_string(), "is no kernel: it has only 10 bytes");
        let missing = load_file(Path::new("/nonexistent"), false).unwrap_err();
        assert_eq!(missing.to_string(), "cannot be read");
    }
}
