//! Room in RAM: what is free, and the highest place in it for one thing more.

/// Free memory from `start` up to, and without, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// First free address.
    pub start: u64,
    /// First address that is not free.
    pub end: u64,
}

/// Memory of which parts are taken.
#[derive(Debug, Clone)]
pub struct Places {
    whole: Room,
    /// Sorted, without overlaps.
    taken: Vec<Room>,
}

const PAGE: u64 = 4096;

// === impl Room ===

impl Room {
    /// Bytes in it.
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether `len` bytes from `start` lie in it.
    pub fn holds(self, start: u64, len: u64) -> bool {
        start >= self.start && start.checked_add(len).is_some_and(|end| end <= self.end)
    }
}

// === impl Places ===

impl Places {
    /// All of this is free.
    pub fn new(whole: Room) -> Self {
        Self {
            whole,
            taken: Vec::new(),
        }
    }

    /// This is free no longer.
    pub fn take(&mut self, room: Room) {
        if !room.is_empty() {
            let at = self.taken.partition_point(|other| other.start < room.start);
            self.taken.insert(at, room);
        }
    }

    /// Takes `len` bytes as high as they go, from the start of a page.
    ///
    /// # Errors
    /// How long the largest free piece is, where none is long enough.
    pub fn highest(&mut self, len: u64) -> Result<Room, u64> {
        let below = Room {
            start: 0,
            end: self.whole.start,
        };
        let (mut largest, mut end) = (0, self.whole.end);
        // The gaps above each taken room, from the highest down.
        for at in (0..=self.taken.len()).rev() {
            let taken = at
                .checked_sub(1)
                .and_then(|at| self.taken.get(at))
                .copied()
                .unwrap_or(below);
            let floor = taken.end.max(self.whole.start).next_multiple_of(PAGE);
            let start = end.checked_sub(len).map(|start| start & !(PAGE - 1));
            if let Some(start) = start.filter(|&start| start >= floor) {
                let found = Room {
                    start,
                    end: start + len,
                };
                self.take(found);
                return Ok(found);
            }
            largest = largest.max(end.saturating_sub(floor));
            end = end.min(taken.start);
        }
        Err(largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn room(start: u64, end: u64) -> Room {
        Room { start, end }
    }

    #[test]
    fn the_highest_gap_that_is_long_enough_is_taken() {
        let mut places = Places::new(room(0x10_0000, 0x80_0000));
        places.take(room(0x70_0000, 0x7f_f000));
        places.take(room(0x20_0000, 0x30_0000));
        assert_eq!(places.highest(0x800), Ok(room(0x7f_f000, 0x7f_f800)));
        assert_eq!(places.highest(0x2000), Ok(room(0x6f_e000, 0x70_0000)));
        assert_eq!(places.highest(0x3f_0000), Ok(room(0x30_e000, 0x6f_e000)));
        assert_eq!(places.highest(0x10_0000), Ok(room(0x10_0000, 0x20_0000)));
        assert_eq!(places.highest(0x10_0000), Err(0xe000));
    }

    proptest! {
        #[test]
        fn what_is_taken_never_overlaps(lens in proptest::collection::vec(1u64..0x9000, 1..20), start in 0u64..0x5_0000, len in 0u64..0x5000) {
            let whole = room(0x1_0000, 0x6_0000);
            let mut places = Places::new(whole);
            let mut rooms = vec![room(start, start + len)];
            places.take(rooms[0]);
            rooms.extend(lens.into_iter().filter_map(|len| places.highest(len).ok()));
            for (index, one) in rooms.iter().enumerate().skip(1) {
                prop_assert!(whole.holds(one.start, one.len()));
                for other in rooms[..index].iter().filter(|other| !other.is_empty()) {
                    prop_assert!(one.end <= other.start || other.end <= one.start, "{one:?} {other:?}");
                }
            }
        }
    }
}
