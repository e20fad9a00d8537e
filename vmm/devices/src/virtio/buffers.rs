//! The buffers of one descriptor chain, checked.
//!
//! Each descriptor is read from guest memory exactly once, so that a driver that changes it afterwards changes
//! nothing. A chain that is loaded lies in RAM as a whole, has no more descriptors than the queue, and has what the
//! device reads before what it writes (2.7.4.2, 2.7.5.3). The vector is reused from chain to chain, so that a
//! request costs no allocation.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::chain::Chain;
use super::device::QueueError;
use crate::blunt::Check;

/// A chain's buffers.
#[derive(Default)]
pub struct Buffers<'m> {
    slices: Vec<VolatileSlice<'m>>,
    /// So many of the slices are the device's to read; the others are its to write.
    readable: usize,
}

/// A run of buffers, consumed from its front.
pub struct Part<'s, 'm> {
    slices: &'s mut [VolatileSlice<'m>],
}

// === impl Buffers ===

impl<'m> Buffers<'m> {
    /// Replaces what is held by the buffers of `chain`, which may have `max` descriptors.
    ///
    /// # Errors
    /// When the chain breaks a rule.
    pub fn load(
        &mut self,
        chain: Chain<'m>,
        memory: &'m GuestMemoryMmap,
        max: u16,
    ) -> Result<(), QueueError> {
        self.slices.clear();
        // Once, and not again and again as a chain turns out to be longer.
        self.slices.reserve(usize::from(max));
        self.readable = 0;
        let mut writing = false;
        // The walk ends both at a chain's last descriptor and where the chain is malformed. What it gave last tells which.
        let mut unfinished = true;
        let mut left = max;
        for descriptor in chain {
            left = match left.checked_sub(1) {
                Some(left) => left,
                None if Check::ChainLength.is_out() => 0,
                None => return Err(QueueError::LongChain(max)),
            };
            if writing && !descriptor.is_write_only() {
                return Err(QueueError::MixedChain);
            }
            writing = descriptor.is_write_only();
            self.push(&descriptor, memory)?;
            if !writing {
                self.readable = self.slices.len();
            }
            unfinished = descriptor.has_next();
        }
        if unfinished {
            Err(QueueError::BrokenChain)
        } else {
            Ok(())
        }
    }

    fn push(&mut self, descriptor: &Descriptor, memory: &'m GuestMemoryMmap) -> Result<(), QueueError> {
        let len = descriptor.len() as usize;
        // Nearly all lie within one region of RAM, which is found faster so.
        if len > 0
            && let Ok(slice) = memory.get_slice(descriptor.addr(), len)
        {
            self.slices.push(slice);
            return Ok(());
        }
        for slice in memory.get_slices(descriptor.addr(), len) {
            self.slices.push(slice.map_err(QueueError::OutsideRam)?);
        }
        Ok(())
    }

    /// Bytes of all buffers together.
    pub fn len(&self) -> u64 {
        total(&self.slices)
    }

    /// Whether there is no byte in any buffer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the device may read, and what it may write.
    pub fn parts(&mut self) -> (Part<'_, 'm>, Part<'_, 'm>) {
        let (readable, writable) = self.slices.split_at_mut(self.readable);
        (Part { slices: readable }, Part { slices: writable })
    }
}

// === impl Part ===

impl<'s, 'm> Part<'s, 'm> {
    /// A run of buffers that may come from several chains. They are used up.
    pub fn over(slices: &'s mut [VolatileSlice<'m>]) -> Self {
        Self { slices }
    }

    /// The buffers that are left.
    pub fn slices(&self) -> &[VolatileSlice<'m>] {
        self.slices
    }

    /// The bytes that are left.
    pub fn len(&self) -> u64 {
        total(self.slices)
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes out, as many as there are; returns their number.
    pub fn read(&mut self, mut to: &mut [u8]) -> usize {
        let wanted = to.len();
        while let Some(slice) = self.front(to.len()) {
            let copied = slice.copy_to(to);
            to = &mut to[copied..];
        }
        wanted - to.len()
    }

    /// Copies bytes in, as many as there is room for; returns their number.
    pub fn write(&mut self, mut from: &[u8]) -> usize {
        let wanted = from.len();
        while let Some(slice) = self.front(from.len()) {
            slice.copy_from(from);
            from = &from[slice.len()..];
        }
        wanted - from.len()
    }

    /// Takes bytes off the front without copying them, as many as there are.
    pub fn take(&mut self, mut len: usize) -> Vec<VolatileSlice<'m>> {
        let mut taken = Vec::new();
        while let Some(slice) = self.front(len) {
            len -= slice.len();
            taken.push(slice);
        }
        taken
    }

    /// Splits off the very last byte.
    pub fn split_last_byte(self) -> Option<(Part<'s, 'm>, VolatileSlice<'m>)> {
        let last = self.slices.iter().rposition(|slice| !slice.is_empty())?;
        let slices = &mut self.slices[..=last];
        let (head, byte) = slices[last].split_at(slices[last].len() - 1).ok()?;
        slices[last] = head;
        Some((Part { slices }, byte))
    }

    /// Takes a piece of at most `max` bytes off the front; `None` if that would be no byte.
    fn front(&mut self, max: usize) -> Option<VolatileSlice<'m>> {
        let first = self
            .slices
            .iter()
            .position(|slice| !slice.is_empty())
            .filter(|_| max > 0)?;
        let (piece, rest) = self.slices[first]
            .split_at(max.min(self.slices[first].len()))
            .ok()?;
        self.slices[first] = rest;
        self.slices = &mut std::mem::take(&mut self.slices)[first + usize::from(rest.is_empty())..];
        Some(piece)
    }
}

fn total(slices: &[VolatileSlice<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

#[cfg(test)]
mod tests;
