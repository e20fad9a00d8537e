//! MSI-X: a table of messages, one a vector, and which of them wait behind a mask.
//!
//! ```text
//!   trigger ── off: nothing ── masked: pending ──── unmasked: MessageLine::trigger
//!                                    └─ unmask ──────────┘
//! ```
//!
//! A line is told its message when the vector is, for the first time or again, ready to send one that it has not been
//! told yet. Masking tells it nothing: a masked vector is never triggered.

use std::ops::Range;

use crate::BusDevice;

/// Most vectors of a function: what the table's half of the window holds.
pub const MAX_VECTORS: usize = 128;
/// Bytes of the window: the table, then the pending bits.
pub const WINDOW: u64 = 0x1000;
/// Where the pending bits are in the window.
pub const PENDING: u64 = 0x800;

const ENTRY: u64 = 16;
const MASKED: u32 = 1;
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
/// The bits of message control that the driver writes.
pub const CONTROL_WRITABLE: u16 = ENABLE | FUNCTION_MASK;

/// What a vector sends: `data`, written to `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Message {
    /// A register of the MSI controller, if the guest means well.
    pub address: u64,
    /// An interrupt's identity there.
    pub data: u32,
}

/// The far end of one vector.
pub trait MessageLine: Send {
    /// From now on this is the message.
    fn route(&self, message: Message);

    /// Sends it. Called with the device locked: must not block.
    fn trigger(&self);
}

/// Table, pending bits and switches of one function. The window of a BAR.
pub struct Msix {
    vectors: Vec<Vector>,
    control: u16,
}

struct Vector {
    message: Message,
    masked: bool,
    pending: bool,
    /// What the line was told.
    routed: Option<Message>,
    line: Box<dyn MessageLine>,
}

// === impl Msix ===

impl Msix {
    /// One vector for each line, up to [`MAX_VECTORS`]; all masked, and switched off.
    pub fn new(lines: Vec<Box<dyn MessageLine>>) -> Self {
        let vector = |line| Vector {
            message: Message::default(),
            masked: true,
            pending: false,
            routed: None,
            line,
        };
        Self {
            vectors: lines.into_iter().take(MAX_VECTORS).map(vector).collect(),
            control: 0,
        }
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Whether the driver uses MSI-X.
    pub fn enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// The driver has written message control.
    pub fn set_control(&mut self, control: u16) {
        self.control = control & CONTROL_WRITABLE;
        (0..self.vectors.len()).for_each(|vector| self.update(vector));
    }

    /// Something is due on this vector. One that does not exist is ignored.
    pub fn trigger(&mut self, vector: u16) {
        let vector = usize::from(vector);
        if self.enabled()
            && let Some(entry) = self.vectors.get_mut(vector)
        {
            entry.pending = true;
            self.update(vector);
        }
    }

    /// Sends what is pending and not masked.
    fn update(&mut self, vector: usize) {
        let live = self.control & CONTROL_WRITABLE == ENABLE;
        let Some(vector) = self
            .vectors
            .get_mut(vector)
            .filter(|vector| live && !vector.masked)
        else {
            return;
        };
        if vector.routed != Some(vector.message) {
            vector.routed = Some(vector.message);
            vector.line.route(vector.message);
        }
        if std::mem::take(&mut vector.pending) {
            vector.line.trigger();
        }
    }

    fn read_word(&self, offset: u64) -> u32 {
        if offset >= PENDING {
            let first = (offset - PENDING) * 8;
            let bits = (first..first + 32).zip(0..);
            return bits.fold(0, |word, (vector, bit)| {
                word | u32::from(self.at(vector).is_some_and(|vector| vector.pending)) << bit
            });
        }
        let Some(vector) = self.at(offset / ENTRY) else {
            return 0;
        };
        match offset % ENTRY {
            0 => (vector.message.address & 0xffff_ffff) as u32,
            4 => (vector.message.address >> 32) as u32,
            8 => vector.message.data,
            _ => u32::from(vector.masked),
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        let Some(index) = usize::try_from(offset / ENTRY).ok().filter(|_| offset < PENDING) else {
            return;
        };
        let Some(vector) = self.vectors.get_mut(index) else {
            return;
        };
        let address = &mut vector.message.address;
        match offset % ENTRY {
            0 => *address = *address & !0xffff_ffff | u64::from(value),
            4 => *address = *address & 0xffff_ffff | u64::from(value) << 32,
            8 => vector.message.data = value,
            // Only this one decides when a message is complete: drivers change it behind the mask.
            _ => {
                vector.masked = value & MASKED != 0;
                self.update(index);
            }
        }
    }

    fn at(&self, vector: u64) -> Option<&Vector> {
        self.vectors.get(usize::try_from(vector).ok()?)
    }
}

impl BusDevice for Msix {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match words(offset, data.len()) {
            Some(offsets) => {
                for (offset, word) in offsets.step_by(4).zip(data.chunks_exact_mut(4)) {
                    word.copy_from_slice(&self.read_word(offset).to_le_bytes());
                }
            }
            None => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (offset, word) in words(offset, data.len())
            .into_iter()
            .flat_map(|offsets| offsets.step_by(4))
            .zip(data.chunks_exact(4))
        {
            self.write_word(offset, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
}

/// The words of an access: one or two of them, aligned (PCIe 6.1.4.2).
fn words(offset: u64, width: usize) -> Option<Range<u64>> {
    let width = width as u64;
    let fits = matches!(width, 4 | 8) && offset.is_multiple_of(width) && offset < WINDOW;
    fits.then(|| offset..offset + width)
}
