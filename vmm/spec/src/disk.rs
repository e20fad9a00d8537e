//! A disk as it is asked for: which file, what the guest may do with it, how it is cached, how fast it may be.

use std::path::PathBuf;

use crate::limits::{MAX_DISK_IOPS, MAX_DISK_QUEUES, MAX_SCSI_SERIAL, MAX_SERIAL, MIN_DISK_BANDWIDTH};
use crate::{MemorySize, SpecError};

/// A disk on a file or block device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// How the guest reaches it.
    pub bus: DiskBus,
    /// What the image is. Never guessed: a guest may write whatever it likes into a raw image's first sector.
    pub format: DiskFormat,
    /// What the disk holds where nothing was written into the image yet.
    pub base: Option<Base>,
    /// The guest may only read.
    pub read_only: bool,
    /// What the guest reads back as the device's serial, at most [`DiskBus::max_serial`] bytes.
    pub serial: Option<String>,
    /// Past the host's page cache.
    pub direct: bool,
    /// When what was written is safe.
    pub cache: CacheMode,
    /// What is done when the host cannot do what the guest asked of the disk.
    pub on_error: OnDiskError,
    /// Request queues, 1 to the number of vCPUs and to [`MAX_DISK_QUEUES`]. On SCSI, where the controller has them, 1.
    pub queues: u16,
    /// Most requests a second, on average; no limit if `None`.
    pub iops: Option<u64>,
    /// Most bytes a second, on average; no limit if `None`.
    pub bandwidth: Option<MemorySize>,
}

/// How the guest reaches a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskBus {
    /// A device of its own: `/dev/vda`. It comes and goes with [`crate::Transport::Pci`] alone, and no guest is told.
    #[default]
    Virtio,
    /// A logical unit of the machine's SCSI controller: `/dev/sda`. It comes and goes on any transport, and the guest is told.
    Scsi,
}

/// An image under another one, only read and so shared by many machines. It is named here alone: what the upper image's
/// header says of a backing file is hostile, and such an image is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The image.
    pub path: PathBuf,
    /// What it is.
    pub format: DiskFormat,
}

/// How an image holds the disk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskFormat {
    /// The guest's byte n is the file's byte n.
    #[default]
    Raw,
    /// QEMU's format, versions 2 and 3, in one file: no backing file, no data file, no snapshots.
    Qcow2,
}

/// When what a guest wrote survives a crash of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Once it has flushed. A guest may switch to [`CacheMode::Writethrough`] itself.
    #[default]
    Writeback,
    /// At once. A guest may switch to [`CacheMode::Writeback`] itself.
    Writethrough,
    /// Never: flushes do nothing. For disks that are thrown away.
    Unsafe,
}

/// What is done when the host cannot read, write or flush a disk. A request that breaks the device's rules always fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDiskError {
    /// The guest's request fails, and the guest sees it.
    #[default]
    Report,
    /// The machine is paused, and the request is tried again when it goes on.
    Stop,
    /// [`OnDiskError::Stop`] where a write finds no space left, [`OnDiskError::Report`] otherwise.
    Enospc,
    /// The guest is told that it was done. What it reads then is anything.
    Ignore,
}

// === impl DiskBus ===

impl DiskBus {
    /// Longest serial of a disk in bytes.
    pub fn max_serial(self) -> usize {
        match self {
            Self::Virtio => MAX_SERIAL,
            Self::Scsi => MAX_SCSI_SERIAL,
        }
    }
}

// === impl Disk ===

impl Disk {
    /// A raw image that the guest reads and writes, with the documented defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            bus: DiskBus::default(),
            format: DiskFormat::default(),
            base: None,
            read_only: false,
            serial: None,
            direct: false,
            cache: CacheMode::default(),
            on_error: OnDiskError::default(),
            queues: 1,
            iops: None,
            bandwidth: None,
        }
    }

    /// Holds the disk against the bounds, in a machine of so many vCPUs.
    pub(crate) fn check(&self, cpus: u8) -> Result<(), SpecError> {
        if let Some(serial) = &self.serial
            && (serial.is_empty()
                || serial.len() > self.bus.max_serial()
                || !serial.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(SpecError::Serial(serial.clone(), self.bus.max_serial()));
        }
        // A raw image does not know what was not written into it yet.
        if self.base.is_some() && self.format == DiskFormat::Raw {
            return Err(SpecError::RawOnBase);
        }
        if self.bus == DiskBus::Scsi && self.queues != 1 {
            return Err(SpecError::ScsiQueues(self.queues));
        }
        let most = u16::from(cpus).min(MAX_DISK_QUEUES);
        if !(1..=most).contains(&self.queues) {
            return Err(SpecError::DiskQueues(self.queues, most));
        }
        match (self.iops, self.bandwidth) {
            (Some(iops), _) if !(1..=MAX_DISK_IOPS).contains(&iops) => Err(SpecError::DiskIops(iops)),
            (_, Some(size)) if size.bytes() < MIN_DISK_BANDWIDTH => Err(SpecError::DiskBandwidth(size)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, Spec};

    fn build(disk: Disk) -> Result<Spec, SpecError> {
        Spec::builder(Boot::new("Image")).cpus(4).disk(disk).build()
    }

    #[test]
    fn a_disk_has_at_most_a_queue_for_each_vcpu() {
        let queues = |queues| Disk {
            queues,
            ..Disk::new("d")
        };
        assert!(build(queues(4)).is_ok());
        assert_eq!(build(queues(5)), Err(SpecError::DiskQueues(5, 4)));
        assert_eq!(build(queues(0)), Err(SpecError::DiskQueues(0, 4)));
    }

    #[test]
    fn a_disk_on_scsi_has_a_longer_serial_and_no_queues_of_its_own() {
        let on = |bus, serial: usize, queues| {
            build(Disk {
                bus,
                serial: Some("s".repeat(serial)),
                queues,
                ..Disk::new("d")
            })
        };
        assert!(on(DiskBus::Scsi, MAX_SCSI_SERIAL, 1).is_ok());
        let text = on(DiskBus::Scsi, MAX_SCSI_SERIAL + 1, 1).unwrap_err().to_string();
        assert!(text.contains("must be 1 to 36 printable"), "{text}");
        assert!(on(DiskBus::Virtio, MAX_SERIAL, 2).is_ok());
        assert!(on(DiskBus::Virtio, MAX_SERIAL + 1, 1).is_err());
        assert_eq!(on(DiskBus::Scsi, 1, 2), Err(SpecError::ScsiQueues(2)));
    }

    #[test]
    fn only_an_image_that_knows_what_it_lacks_lies_on_a_base() {
        let on_base = |format| Disk {
            format,
            base: Some(Base {
                path: "b".into(),
                format: DiskFormat::Raw,
            }),
            ..Disk::new("d")
        };
        assert!(build(on_base(DiskFormat::Qcow2)).is_ok());
        assert_eq!(build(on_base(DiskFormat::Raw)), Err(SpecError::RawOnBase));
    }

    #[test]
    fn limits_that_would_stop_a_disk_are_refused() {
        let slow = Disk {
            iops: Some(0),
            ..Disk::new("d")
        };
        assert_eq!(build(slow), Err(SpecError::DiskIops(0)));
        let narrow = MemorySize::from_bytes(MIN_DISK_BANDWIDTH - 1);
        let slow = Disk {
            bandwidth: Some(narrow),
            ..Disk::new("d")
        };
        assert_eq!(build(slow), Err(SpecError::DiskBandwidth(narrow)));
    }

    #[test]
    fn a_serial_that_a_guest_could_not_read_whole_is_refused() {
        let serial = |serial: &str| Disk {
            serial: Some(serial.to_owned()),
            ..Disk::new("d")
        };
        assert!(build(serial("0123456789abcdefghij")).is_ok());
        for bad in ["", "0123456789abcdefghijk", "a b", "ä"] {
            assert_eq!(
                build(serial(bad)),
                Err(SpecError::Serial(bad.to_owned(), MAX_SERIAL))
            );
        }
    }
}
