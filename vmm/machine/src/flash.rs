//! The two banks of flash: firmware, which the guest only reads and executes, and its variables.
//!
//! Both lie in memory of ours that KVM shows to the guest as ROM. A write to the second bank comes to the device; while
//! that answers commands, its bytes are hidden. What is written goes to the file of the variables at once.

use std::io;
use std::sync::Arc;

use rvmm_backends::vars::{self, VarsError, VarsFile};
use rvmm_boot::firmware::FLASH_BANK;
use rvmm_devices::flash::{Flash, FlashArray};
use rvmm_hypervisor::Vm;
use rvmm_spec::Firmware;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::MachineError;
use crate::layout::FLASH;

/// The numbers of the banks among the machine's ROMs.
const CODE: usize = 0;
const VARS: usize = 1;

/// Banks that are filled, for a VM that is yet to be made.
pub struct Banks {
    code: GuestMemoryMmap,
    vars: GuestMemoryMmap,
    file: Option<VarsFile>,
}

/// The second bank's bytes, in memory and in its file.
struct Variables {
    memory: GuestMemoryMmap,
    file: Option<VarsFile>,
    vm: Arc<dyn Vm>,
}

// === impl Banks ===

impl Banks {
    /// Reads a firmware and its variables, which are made from their template where they do not exist.
    ///
    /// # Errors
    /// The file that is missing or is no bank.
    pub fn open(firmware: &Firmware) -> Result<Self, MachineError> {
        let (code, vars) = (map(CODE)?, map(VARS)?);
        vars::read_bank(&firmware.image, FLASH_BANK, fill(&code, CODE)).map_err(MachineError::Vars)?;
        let file = firmware.vars.as_ref().map(|wanted| {
            vars::ensure(&wanted.file, wanted.template.as_deref(), FLASH_BANK)?;
            let file = VarsFile::open(&wanted.file, FLASH_BANK)?;
            let read = file.read(fill(&vars, VARS));
            read.map_err(|error| VarsError::Open(wanted.file.clone(), error))?;
            Ok(file)
        });
        let file = file.transpose().map_err(MachineError::Vars)?;
        Ok(Self { code, vars, file })
    }

    /// The memory of both, in their order.
    pub fn roms(&self) -> Vec<GuestMemoryMmap> {
        vec![self.code.clone(), self.vars.clone()]
    }

    /// Shows the firmware to the guest, and gives the device of the second bank.
    ///
    /// # Errors
    /// A host that knows no ROM cannot run code from flash.
    pub fn plug(self, vm: &Arc<dyn Vm>) -> Result<Flash, MachineError> {
        vm.show_rom(CODE, true).map_err(MachineError::Hypervisor)?;
        Ok(Flash::new(Box::new(Variables {
            memory: self.vars,
            file: self.file,
            vm: Arc::clone(vm),
        })))
    }
}

/// Zeros until they are filled; a page that stays zero costs nothing.
fn map(bank: usize) -> Result<GuestMemoryMmap, MachineError> {
    let len = usize::try_from(FLASH_BANK).map_err(|error| MachineError::Flash(io::Error::other(error)))?;
    GuestMemoryMmap::from_ranges(&[(address(bank, 0), len)])
        .map_err(|error| MachineError::Flash(io::Error::other(error)))
}

fn address(bank: usize, offset: u64) -> GuestAddress {
    GuestAddress(FLASH.nth(bank as u64).base + offset)
}

fn fill(memory: &GuestMemoryMmap, bank: usize) -> impl FnMut(u64, &[u8]) -> io::Result<()> {
    move |offset, bytes| {
        memory
            .write_slice(bytes, address(bank, offset))
            .map_err(io::Error::other)
    }
}

// === impl Variables ===

impl FlashArray for Variables {
    fn len(&self) -> u64 {
        FLASH_BANK
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        if self.memory.read_slice(data, address(VARS, offset)).is_err() {
            data.fill(0xff);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let kept = self
            .file
            .as_mut()
            .is_none_or(|file| file.write(offset, data).is_ok());
        kept && self.memory.write_slice(data, address(VARS, offset)).is_ok()
    }

    fn show(&mut self, shown: bool) {
        if shown && let Some(file) = &mut self.file {
            file.settle();
        }
        // Hidden, every read comes to the device, which answers it as well.
        self.vm.show_rom(VARS, shown).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvmm_devices::BusDevice;
    use rvmm_hypervisor::fake;
    use rvmm_spec::Vars;
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    fn bank(path: &Path, text: &[u8]) {
        let file = File::create(path).unwrap();
        file.set_len(FLASH_BANK).unwrap();
        file.write_all_at(text, 0x4_0000).unwrap();
    }

    fn firmware(folder: &Path) -> Firmware {
        bank(&folder.join("code.fd"), b"code");
        bank(&folder.join("template.fd"), b"\xff\xff\xff\xff");
        Firmware {
            image: folder.join("code.fd"),
            vars: Some(Vars {
                file: folder.join("vars.fd"),
                template: Some(folder.join("template.fd")),
            }),
        }
    }

    #[test]
    fn what_the_firmware_writes_is_in_its_file_and_there_at_the_next_boot() {
        let folder = tempfile::tempdir().unwrap();
        let firmware = firmware(folder.path());
        let banks = Banks::open(&firmware).unwrap();
        let code = banks.roms()[CODE].clone();
        assert_eq!(
            code.read_obj::<[u8; 4]>(GuestAddress(0x2004_0000)).unwrap(),
            *b"code"
        );
        let (fake, created) = fake::create(fake::facts(), Vec::new());
        let mut flash = banks.plug(&created.vm).unwrap();
        flash.write(0x4_0000, &0x40_0040u32.to_le_bytes());
        flash.write(0x4_0000, b"mine");
        flash.write(0, &0xff_00ffu32.to_le_bytes());
        assert_eq!(
            fake.roms(),
            [(CODE, true), (VARS, true), (VARS, false), (VARS, true)]
        );
        drop(flash);
        let kept = fs::read(folder.path().join("vars.fd")).unwrap();
        assert_eq!(kept[0x4_0000..0x4_0004], *b"mine");
        let again = Banks::open(&firmware).unwrap();
        let vars = again.roms()[VARS].clone();
        assert_eq!(
            vars.read_obj::<[u8; 4]>(GuestAddress(0x2204_0000)).unwrap(),
            *b"mine"
        );
    }

    #[test]
    fn without_a_file_variables_live_for_one_boot() {
        let folder = tempfile::tempdir().unwrap();
        let firmware = Firmware {
            vars: None,
            ..firmware(folder.path())
        };
        let (_, created) = fake::create(fake::facts(), Vec::new());
        let mut flash = Banks::open(&firmware).unwrap().plug(&created.vm).unwrap();
        flash.write(0, &0x20_0020u32.to_le_bytes());
        flash.write(0, &0xd0_00d0u32.to_le_bytes());
        flash.write(0, &0xff_00ffu32.to_le_bytes());
        let mut data = [0; 4];
        flash.read(64, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert!(!folder.path().join("vars.fd").exists());
    }
}
