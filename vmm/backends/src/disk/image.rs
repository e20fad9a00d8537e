//! A disk in an image that imago reads and writes: qcow2, and raw images past the page cache, whose requests have to be
//! brought to the alignment that the host asks for.
//!
//! imago is given a file that is open and locked, the one below it where the disk has a base, and a gate that opens no
//! other: neither a backing file nor a data file that an image names. Its caches are written back by `flush`, which then syncs the file; so what was flushed survives a crash of
//! the host. What was not may leave clusters in the image that nobody uses.

use std::fs::File;
use std::io;

use imago::file::File as Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, StorageOpenOptions};
use rvmm_devices::virtio::blk::{BlockBackend, Geometry};
use vm_memory::VolatileSlice;

use super::qcow2::{Qcow2Error, cluster_size};
use super::raw;
use crate::transfer;

/// Zeroes are written in pieces of this length, where the format has no better way.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// An image that imago reads and maybe writes, on its base if it has one.
pub(super) type Layer = FormatAccess<Storage>;

/// An image, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct ImageDisk {
    image: Layer,
    size: u64,
    geometry: Geometry,
    /// Most bytes of one write.
    most: u64,
}

// === impl ImageDisk ===

impl ImageDisk {
    /// A raw image that was opened for direct I/O.
    pub(super) fn raw(file: File, writable: bool) -> io::Result<Self> {
        let mut geometry = raw::geometry(&file);
        let image = raw_layer(file, writable, true)?;
        // Smaller writes read and write back what is around them.
        let align = u32::try_from(image.req_align()).unwrap_or(u32::MAX);
        geometry.physical_block = geometry.physical_block.max(align.min(4096));
        Ok(Self::new(image, geometry, true))
    }

    /// A qcow2 image whose header was checked, on this base.
    pub(super) fn qcow2(
        file: File,
        writable: bool,
        direct: bool,
        base: Option<Layer>,
    ) -> Result<Self, Qcow2Error> {
        let geometry = Geometry {
            discard: cluster_size(&file)?,
            ..raw::geometry(&file)
        };
        let image = qcow2_layer(file, writable, direct, base)?;
        Ok(Self::new(image, geometry, direct))
    }

    fn new(image: FormatAccess<Storage>, geometry: Geometry, direct: bool) -> Self {
        Self {
            size: image.size(),
            image,
            geometry,
            most: if direct {
                u64::MAX
            } else {
                transfer::MAX_CACHED_WRITE as u64
            },
        }
    }

    fn write_zeroes_plainly(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let piece = ZEROES.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            self.image.write(&ZEROES[..piece], offset)?;
            offset += piece as u64;
            len -= piece as u64;
        }
        Ok(())
    }
}

/// A raw image.
pub(super) fn raw_layer(file: File, writable: bool, direct: bool) -> io::Result<Layer> {
    let options = StorageOpenOptions::new().write(writable).direct(direct);
    let storage = Storage::from_open_file(file, options)?;
    let raw = Raw::builder(storage).write(writable);
    Ok(FormatAccess::new(raw.open(DenyImplicitOpenGate::default())?))
}

/// A qcow2 image whose header was checked.
pub(super) fn qcow2_layer(
    file: File,
    writable: bool,
    direct: bool,
    base: Option<Layer>,
) -> Result<Layer, Qcow2Error> {
    let options = StorageOpenOptions::new().write(writable).direct(direct);
    let storage = Storage::from_open_file(file, options).map_err(Qcow2Error::Open)?;
    let mut qcow2 = Qcow2::<Storage>::builder(storage).write(writable);
    // Without one, what the image itself names is asked for, and the gate refuses it.
    if base.is_some() {
        qcow2 = qcow2.backing(base);
    }
    let qcow2 = qcow2.open(DenyImplicitOpenGate::default());
    Ok(FormatAccess::new(qcow2.map_err(Qcow2Error::Open)?))
}

impl BlockBackend for ImageDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let (buffers, _guard) = IoVectorMut::from_volatile_slice(buffers);
        self.image.readv(buffers, offset)
    }

    fn write_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let (mut buffers, _guard) = IoVector::from_volatile_slice(buffers);
        let mut offset = offset;
        while buffers.len() > self.most {
            let (piece, rest) = buffers.split_at(self.most);
            self.image.writev(piece, offset)?;
            offset += self.most;
            buffers = rest;
        }
        self.image.writev(buffers, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.image.flush()?;
        self.image.sync()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        match self.image.discard_to_any(offset, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let result = if unmap {
            self.image.discard_to_zero(offset, len)
        } else {
            self.image.write_zeroes(offset, len)
        };
        match result {
            // Version 2 has no clusters that read as zeroes.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.write_zeroes_plainly(offset, len)
            }
            result => result,
        }
    }
}
