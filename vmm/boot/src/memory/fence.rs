//! Pages beside guest RAM that nobody may touch: what runs over an end of it ends rvmm, rather than change what happens
//! to lie there.

use std::num::NonZeroUsize;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of a fence: a page of any host's size.
pub const FENCE: usize = 64 << 10;

/// Mapped pages without access, until dropped.
#[derive(Debug)]
pub(super) struct Fence {
    start: NonZeroUsize,
    len: usize,
}

// === impl Fence ===

impl Fence {
    /// A fence before and one behind a mapping, where nothing else lies.
    pub(super) fn around(start: *mut u8, len: usize) -> [Option<Self>; 2] {
        let first = start.addr();
        [
            first.checked_sub(FENCE).and_then(|at| Self::at(at, FENCE)),
            first.checked_add(len).and_then(|at| Self::at(at, FENCE)),
        ]
    }

    fn at(address: usize, len: usize) -> Option<Self> {
        let start = NonZeroUsize::new(address)?;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE | MapFlags::NORESERVE;
        let wanted = ptr::with_exposed_provenance_mut(address);
        #[expect(unsafe_code, reason = "pages are taken where nothing is mapped")]
        // SAFETY: with MAP_FIXED_NOREPLACE no mapping is changed that is there already.
        let got = unsafe { rustix::mm::mmap_anonymous(wanted, len, ProtFlags::empty(), flags) }.ok()?;
        let fence = Self {
            start: NonZeroUsize::new(got.addr())?,
            len,
        };
        // A kernel before 4.17 takes the address for a hint.
        (fence.start == start).then_some(fence)
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let start = ptr::with_exposed_provenance_mut(self.start.get());
        #[expect(unsafe_code, reason = "a mapping of ours is undone")]
        // SAFETY: the range is the mapping that this fence made and owns; nothing can refer to memory without access.
        unsafe { rustix::mm::munmap(start, self.len) }.ok();
    }
}
