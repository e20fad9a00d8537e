//! Devices that are plugged into a machine that runs: held against the same bounds as those it began with.

use std::fmt;
use std::str::FromStr;

use crate::limits::{MAX_DEVICE_ID, MAX_SCSI_DISKS};
use crate::{Disk, DiskBus, Net, NetWish, Spec, SpecError, Transport};

/// The name of a device that is plugged in: 1 to [`MAX_DEVICE_ID`] ASCII letters, digits, `-` and `_`, a letter first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceId(String);

/// The text is no name for a device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is no name for a device: 1 to {MAX_DEVICE_ID} letters, digits, '-' and '_', a letter first")]
pub struct ParseDeviceIdError(String);

// === impl DeviceId ===

impl DeviceId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = ParseDeviceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let begins = text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic());
        if begins && text.len() <= MAX_DEVICE_ID && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseDeviceIdError(text.to_owned()))
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Spec ===

impl Spec {
    /// Whether there is room for one more device of its own besides this many that are plugged in already.
    ///
    /// # Errors
    /// [`SpecError::NoHotPlug`] without a bus that knows it, [`SpecError::Devices`] where it is full.
    pub fn has_room(&self, plugged: usize) -> Result<(), SpecError> {
        let devices = self.places() + plugged + 1;
        match self.transport {
            Transport::Mmio => Err(SpecError::NoHotPlug),
            transport if devices > transport.max_devices() => Err(SpecError::Devices(devices, transport)),
            Transport::Pci => Ok(()),
        }
    }

    /// The number for one more disk on the SCSI controller: one that neither those that are there from the start have
    /// nor these, which are plugged in; the first from `next` on, which follows the last that was given. So a number is taken again as late
    /// as can be: what a guest still wants of the disk that had it must not reach another one.
    ///
    /// # Errors
    /// [`SpecError::NoScsi`] without a controller, [`SpecError::ScsiDisks`] where it is full.
    pub fn free_lun(&self, taken: &[u8], next: u8) -> Result<u8, SpecError> {
        if !self.scsi {
            return Err(SpecError::NoScsi);
        }
        let free = self.disks_on(DiskBus::Scsi).count()..MAX_SCSI_DISKS;
        (usize::from(next)..MAX_SCSI_DISKS)
            .chain(0..usize::from(next))
            .filter(|lun| free.contains(lun))
            .filter_map(|lun| u8::try_from(lun).ok())
            .find(|lun| !taken.contains(lun))
            .ok_or(SpecError::ScsiDisks(MAX_SCSI_DISKS + 1))
    }

    /// Holds a disk against the bounds of this machine.
    ///
    /// # Errors
    /// What is not possible.
    pub fn check_disk(&self, disk: &Disk) -> Result<(), SpecError> {
        if disk.base.is_some() {
            return Err(SpecError::BasePlugged);
        }
        disk.check(self.cpus)
    }

    /// The interface that is wished for, as the one with this number that the machine ever had.
    ///
    /// # Errors
    /// What is not possible.
    pub fn check_net(&self, wish: NetWish, index: usize) -> Result<Net, SpecError> {
        wish.check()?;
        if wish.vhost {
            return Err(SpecError::VhostPlugged);
        }
        Ok(wish.met(self.uid.as_deref().unwrap_or(&self.name), index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Boot;

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!("data-1".parse::<DeviceId>().unwrap().as_str(), "data-1");
        for text in ["", "1a", "a/b", "a,b=c", "\u{e4}", &"x".repeat(MAX_DEVICE_ID + 1)] {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_disk_on_scsi_needs_the_controller_and_gets_the_next_number_that_is_free() {
        let spec = |disks: usize, scsi| {
            let disk = Disk {
                bus: DiskBus::Scsi,
                ..Disk::new("d")
            };
            let wish = Spec::builder(Boot::new("Image")).scsi(scsi);
            (0..disks).fold(wish, |wish, _| wish.disk(disk.clone())).build()
        };
        assert_eq!(spec(0, false).unwrap().free_lun(&[], 0), Err(SpecError::NoScsi));
        let empty = spec(0, true).unwrap();
        assert_eq!(empty.free_lun(&[0, 2], 0), Ok(1));
        assert_eq!(empty.free_lun(&[0, 2], 2), Ok(3));
        assert_eq!(empty.free_lun(&[63], 63), Ok(0));
        assert_eq!(empty.free_lun(&[], 64), Ok(0));
        let begun = spec(2, false).unwrap();
        assert!(begun.scsi());
        assert_eq!(begun.virtio_devices(), 3, "console, rng and the controller");
        assert_eq!(begun.free_lun(&[3, 2], 0), Ok(4));
        let all: Vec<_> = (2..64).collect();
        assert_eq!(begun.free_lun(&all, 5), Err(SpecError::ScsiDisks(65)));
        assert!(spec(64, false).is_ok());
        assert_eq!(spec(65, false), Err(SpecError::ScsiDisks(65)));
    }

    #[test]
    fn there_is_room_on_pci_alone_and_only_so_much() {
        let on_mmio = Spec::builder(Boot::new("Image")).build().unwrap();
        assert_eq!(on_mmio.has_room(0), Err(SpecError::NoHotPlug));
        let on_pci = Spec::builder(Boot::new("Image"))
            .transport(Transport::Pci)
            .build()
            .unwrap();
        assert_eq!(on_pci.has_room(28), Ok(()));
        assert_eq!(on_pci.has_room(29), Err(SpecError::Devices(32, Transport::Pci)));
    }
}
