//! The walk along one chain of descriptors, from its head through the queue's table or an indirect one (2.7.5).
//!
//! A table is found in RAM once, and each descriptor is read from it exactly once, in two words: most of what a request
//! of many buffers costs is this. The walk ends at the last descriptor, and where the chain is malformed: a next beyond
//! the table, more steps than the table has places, an indirect table in another one, of a length that is no number of
//! descriptors, or not wholly in RAM, and more than 4 GiB altogether. Whether the last descriptor that it gave has a
//! next tells the two ends apart.

use std::sync::atomic::Ordering;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// Bytes of a descriptor.
const SIZE: usize = size_of::<Descriptor>();

/// A chain that the driver made available, and how far it has been walked.
pub struct Chain<'m> {
    memory: &'m GuestMemoryMmap,
    table: Option<VolatileSlice<'m>>,
    entries: u16,
    head: u16,
    next: u16,
    /// Descriptors that may come yet.
    left: u16,
    /// Bytes of the buffers so far.
    bytes: u32,
    is_indirect: bool,
}

// === impl Chain ===

impl<'m> Chain<'m> {
    /// The chain that begins at `head` in a queue's table of so many entries.
    pub(super) fn new(memory: &'m GuestMemoryMmap, table: GuestAddress, entries: u16, head: u16) -> Self {
        Self {
            memory,
            table: place(memory, table, entries),
            entries,
            head,
            next: head,
            left: entries,
            bytes: 0,
            is_indirect: false,
        }
    }

    /// The number by which the driver knows the chain.
    pub fn head_index(&self) -> u16 {
        self.head
    }

    /// Goes on in an indirect table. Its own next is not followed.
    fn enter(&mut self, to: &Descriptor) -> Option<()> {
        let len = usize::try_from(to.len()).ok()?;
        let entries = u16::try_from(len / SIZE).ok()?;
        if self.is_indirect || !len.is_multiple_of(SIZE) {
            return None;
        }
        self.table = place(self.memory, to.addr(), entries);
        (self.entries, self.left) = (entries, entries);
        self.next = 0;
        self.is_indirect = true;
        Some(())
    }

    /// Reads the next descriptor, from wherever the walk is.
    fn read(&self) -> Option<Descriptor> {
        if self.left == 0 || self.next >= self.entries {
            return None;
        }
        let table = self.table.as_ref()?;
        let at = usize::from(self.next) * SIZE;
        let words: (Result<u64, _>, Result<u64, _>) = (
            table.load(at, Ordering::Relaxed),
            table.load(at + SIZE / 2, Ordering::Relaxed),
        );
        let [addr, rest] = match words {
            (Ok(addr), Ok(rest)) => [addr, rest],
            // An indirect table may lie anywhere. Of one that is not aligned, neither word has been read yet.
            _ => table.read_obj::<[u64; 2]>(at).ok()?,
        };
        let [l0, l1, l2, l3, f0, f1, n0, n1] = rest.to_ne_bytes();
        Some(Descriptor::new(
            u64::from_le(addr),
            u32::from_le_bytes([l0, l1, l2, l3]),
            u16::from_le_bytes([f0, f1]),
            u16::from_le_bytes([n0, n1]),
        ))
    }
}

impl Iterator for Chain<'_> {
    type Item = Descriptor;

    fn next(&mut self) -> Option<Descriptor> {
        let mut descriptor = self.read()?;
        if descriptor.refers_to_indirect_table() {
            self.enter(&descriptor)?;
            descriptor = self.read()?;
            if descriptor.refers_to_indirect_table() {
                return None;
            }
        }
        self.bytes = self.bytes.checked_add(descriptor.len())?;
        if descriptor.has_next() {
            self.next = descriptor.next();
            self.left -= 1;
        } else {
            self.left = 0;
        }
        Some(descriptor)
    }
}

fn place(memory: &GuestMemoryMmap, table: GuestAddress, entries: u16) -> Option<VolatileSlice<'_>> {
    memory.get_slice(table, usize::from(entries) * SIZE).ok()
}
