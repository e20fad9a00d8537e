//! A disk of the spec as a device.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rvmm_backends::DiskError;
use rvmm_backends::disk::{self, Timer};
use rvmm_devices::virtio::blk::{Block, BlockBackend, BlockOptions, Cache, Limits, OnError, Trouble};
use rvmm_spec::{CacheMode, Disk, MemorySize, OnDiskError};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::MachineError;
use crate::gate::Gate;
use crate::meters::Meters;
use crate::slots::Backend;

/// A disk whose request waits: the machine is told, and tries again when it goes on.
pub struct Waiting {
    disk: String,
    gate: Arc<Gate>,
    /// Rung by the gate; it has to be open for as long as the disk is.
    _again: Arc<EventFd>,
}

// === impl Waiting ===

impl Waiting {
    /// For a disk of this name, whose queues this bell has looked at when the machine goes on.
    pub fn new(disk: String, gate: &Arc<Gate>, again: &Arc<EventFd>) -> Self {
        Self {
            disk,
            gate: Arc::clone(gate),
            _again: Arc::clone(again),
        }
    }
}

impl Trouble for Waiting {
    fn tell(&self, error: &io::Error) {
        self.gate.report_disk(DiskError {
            disk: self.disk.clone(),
            why: error.to_string(),
        });
    }
}

/// Opens a disk. Its queues go on at its alarm, if it has limits, and when the machine does, if it stops that.
///
/// # Errors
/// What is wrong with the image, or that the host has no more descriptors.
pub fn open(
    disk: &Disk,
    name: String,
    gate: &Arc<Gate>,
    meters: &Meters,
) -> Result<(Block, Option<Backend>), MachineError> {
    let image = disk::open(disk).map_err(MachineError::Disk)?;
    on(meters.on(name.clone(), image), disk, name, gate)
}

/// A disk on an image that somebody else opened.
///
/// # Errors
/// As [`open`].
pub fn open_from(
    disk: &Disk,
    file: File,
    name: String,
    gate: &Arc<Gate>,
    meters: &Meters,
) -> Result<(Block, Option<Backend>), MachineError> {
    let image = disk::open_from(disk, file).map_err(MachineError::Disk)?;
    on(meters.on(name.clone(), image), disk, name, gate)
}

fn on(
    backend: Box<dyn BlockBackend>,
    disk: &Disk,
    name: String,
    gate: &Arc<Gate>,
) -> Result<(Block, Option<Backend>), MachineError> {
    let options = BlockOptions {
        read_only: disk.read_only,
        serial: disk.serial.clone().unwrap_or_default(),
        cache: cache(disk),
        queues: disk.queues,
    };
    let mut block = Block::new(backend, &options);
    let queues = 0..disk.queues.into();
    let mut feeds = Vec::new();
    if let Some(on_error) = on_error(disk) {
        let again = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(MachineError::Timer)?;
        let again = Arc::new(again);
        feeds.push((again.as_raw_fd(), queues.clone()));
        gate.ring_on_resume(&again);
        let waiting = Waiting::new(name, gate, &again);
        block = block.failing(on_error, Box::new(waiting));
    }
    if let Some(limits) = limits(disk) {
        let timer = Timer::new().map_err(MachineError::Timer)?;
        feeds.push((timer.as_raw_fd(), queues));
        block = block.limited(limits, Box::new(timer));
    }
    let backend = (!feeds.is_empty()).then(|| feeds.into_iter().collect());
    Ok((block, backend))
}

/// When what was written is safe.
pub fn cache(disk: &Disk) -> Cache {
    match disk.cache {
        CacheMode::Writeback => Cache::Writeback,
        CacheMode::Writethrough => Cache::Writethrough,
        CacheMode::Unsafe => Cache::Unsafe,
    }
}

/// What is done where the host fails, if that is not to tell the guest.
pub fn on_error(disk: &Disk) -> Option<OnError> {
    match disk.on_error {
        OnDiskError::Report => None,
        OnDiskError::Stop => Some(OnError::Stop),
        OnDiskError::Enospc => Some(OnError::Enospc),
        OnDiskError::Ignore => Some(OnError::Ignore),
    }
}

/// How fast it may be, if that is limited.
pub fn limits(disk: &Disk) -> Option<Limits> {
    (disk.iops.is_some() || disk.bandwidth.is_some()).then(|| Limits {
        requests: disk.iops,
        bytes: disk.bandwidth.map(MemorySize::bytes),
    })
}
