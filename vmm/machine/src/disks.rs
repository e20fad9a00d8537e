//! A disk of the spec as a device.

use std::fs::File;
use std::os::fd::AsRawFd;

use rvmm_backends::disk::{self, Timer};
use rvmm_devices::virtio::blk::{Block, BlockBackend, BlockOptions, Cache, Limits};
use rvmm_spec::{CacheMode, Disk, MemorySize};

use crate::MachineError;
use crate::slots::Backend;

/// Opens a disk. One with limits has an alarm, at which all its queues go on.
///
/// # Errors
/// What is wrong with the image, or that the host has no more descriptors.
pub fn open(disk: &Disk) -> Result<(Block, Option<Backend>), MachineError> {
    on(disk::open(disk).map_err(MachineError::Disk)?, disk)
}

/// A disk on an image that somebody else opened.
///
/// # Errors
/// As [`open`].
pub fn open_from(disk: &Disk, file: File) -> Result<(Block, Option<Backend>), MachineError> {
    on(disk::open_from(disk, file).map_err(MachineError::Disk)?, disk)
}

fn on(backend: Box<dyn BlockBackend>, disk: &Disk) -> Result<(Block, Option<Backend>), MachineError> {
    let options = BlockOptions {
        read_only: disk.read_only,
        serial: disk.serial.clone().unwrap_or_default(),
        cache: match disk.cache {
            CacheMode::Writeback => Cache::Writeback,
            CacheMode::Writethrough => Cache::Writethrough,
            CacheMode::Unsafe => Cache::Unsafe,
        },
        queues: disk.queues,
    };
    let block = Block::new(backend, &options);
    if disk.iops.is_none() && disk.bandwidth.is_none() {
        return Ok((block, None));
    }
    let limits = Limits {
        requests: disk.iops,
        bytes: disk.bandwidth.map(MemorySize::bytes),
    };
    let timer = Timer::new().map_err(MachineError::Timer)?;
    let alarm = Backend::new(timer.as_raw_fd(), 0..disk.queues.into());
    Ok((block.limited(limits, Box::new(timer)), Some(alarm)))
}
