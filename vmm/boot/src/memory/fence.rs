//! Fences around guest RAM: address space that nobody may touch. What runs over an end of guest RAM ends rvmm, rather than
//! change what happens to lie there.
//!
//! ```text
//!   reserve  |· fence ·|··· hole of RAM's size and one huge page more ···|· fence ·|     · = no access
//!   map RAM  |· fence ·|          RAM          |   (the kernel's choice)  |· fence ·|
//!   close    |······ fence ······|     RAM     |·········· fence ···················|
//! ```
//!
//! The kernel puts a mapping into the highest gap that takes it, which is the hole, unless another thread is quicker or
//! a gap just as large lies above. Then guest RAM is elsewhere, and has no fences. The hole ends on a 2 MiB border, so
//! that also kernels which look for none (before 6.7) put RAM on one.

use std::num::NonZeroUsize;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags};

/// Least bytes of a fence: a page of any host's size.
pub const FENCE: usize = 64 << 10;

/// What a huge page has.
const HUGE_PAGE: usize = 2 << 20;

/// Mapped address space without access, until dropped.
#[derive(Debug)]
struct Shut {
    start: NonZeroUsize,
    len: usize,
}

/// A place for guest RAM between two fences.
#[derive(Debug)]
pub(super) struct Site {
    before: Shut,
    hole: NonZeroUsize,
    behind: Shut,
}

/// The fences around guest RAM, until dropped.
#[derive(Debug)]
pub(super) struct Fences {
    _shut: Vec<Shut>,
}

// === impl Site ===

impl Site {
    /// Makes a place for a mapping of `len` bytes, if there is room.
    pub(super) fn reserve(len: usize) -> Option<Self> {
        let room = len.checked_add(2 * HUGE_PAGE + 2 * FENCE)?;
        let all = Shut::new(None, room)?;
        let first = all.start.get();
        let hole_end = (first + room - FENCE) / HUGE_PAGE * HUGE_PAGE;
        let hole = hole_end - HUGE_PAGE - len;
        let (before, rest) = all.split(hole)?;
        let (inside, behind) = rest.split(hole_end)?;
        drop(inside);
        let hole = NonZeroUsize::new(hole)?;
        Some(Self { before, hole, behind })
    }

    /// Shuts what was left open around the mapping that has been made.
    pub(super) fn close(self, start: *mut u8, len: usize) -> Option<Fences> {
        let (start, end) = (start.addr(), start.addr().checked_add(len)?);
        let left = start.checked_sub(self.hole.get())?;
        let right = self.behind.start.get().checked_sub(end)?;
        let shut = |at: usize, len: usize| {
            let at = NonZeroUsize::new(at).filter(|_| len > 0)?;
            Shut::new(Some(at), len)
        };
        let between = [shut(self.hole.get(), left), shut(end, right)];
        let all = [self.before, self.behind].into_iter();
        Some(Fences {
            _shut: all.chain(between.into_iter().flatten()).collect(),
        })
    }
}

// === impl Shut ===

impl Shut {
    /// Takes address space, here or anywhere, where nothing is mapped.
    fn new(at: Option<NonZeroUsize>, len: usize) -> Option<Self> {
        let (wanted, place) = match at {
            Some(at) => (
                ptr::with_exposed_provenance_mut(at.get()),
                MapFlags::FIXED_NOREPLACE,
            ),
            None => (ptr::null_mut(), MapFlags::empty()),
        };
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | place;
        #[expect(unsafe_code, reason = "address space is taken where nothing is mapped")]
        // SAFETY: without an address the kernel takes one that is free; with one, MAP_FIXED_NOREPLACE changes no mapping
        // that is there.
        let got = unsafe { rustix::mm::mmap_anonymous(wanted, len, ProtFlags::empty(), flags) }.ok()?;
        let start = NonZeroUsize::new(got.addr())?;
        let shut = Self { start, len };
        // A kernel before 4.17 takes the address for a hint.
        at.is_none_or(|at| at == start).then_some(shut)
    }

    /// Two parts, the second from `at` on.
    fn split(self, at: usize) -> Option<(Self, Self)> {
        let len = at.checked_sub(self.start.get()).filter(|len| *len < self.len)?;
        let second = Self {
            start: NonZeroUsize::new(at)?,
            len: self.len - len,
        };
        let first = Self {
            start: self.start,
            len,
        };
        // It is two of them that unmap it now.
        std::mem::forget(self);
        Some((first, second))
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        let start = ptr::with_exposed_provenance_mut(self.start.get());
        #[expect(unsafe_code, reason = "a mapping of ours is undone")]
        // SAFETY: the range is mapped by us and owned by this value; nothing can refer to memory without access.
        unsafe { rustix::mm::munmap(start, self.len) }.ok();
    }
}
