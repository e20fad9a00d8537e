//! The configuration space of a function: a header of type 0, BARs, a list of capabilities.
//!
//! It is bytes, and for each of them which bits the guest can write. What a size probe of a BAR needs follows from
//! that alone: the address bits below the BAR's size cannot be written, so all-ones reads back as the size.

/// Bytes of the conventional part; what lies beyond it in the 4 KiB of ECAM reads as zeros: no extended capability.
pub const LEN: usize = 256;
/// How many BAR registers a header has.
pub const BARS: usize = 6;

/// The command register: switches decoding and INTx.
pub const COMMAND: u16 = 0x04;
/// Memory decoding is on.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// The function may reach memory.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// INTx is off.
pub const COMMAND_NO_INTX: u16 = 1 << 10;
/// The status register.
pub const STATUS: u16 = 0x06;
/// INTx is due.
pub const STATUS_INTX: u8 = 1 << 3;
/// The first BAR.
pub const BAR0: u16 = 0x10;

/// Bits of the command register that can be written: memory, bus master, INTx disable.
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const CAPABILITIES: u16 = 0x34;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;
const FIRST_CAPABILITY: usize = 0x40;
const BAR_64_BIT: u32 = 0b100;

/// What a function says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor and device.
    pub id: (u16, u16),
    /// Vendor and device of the board.
    pub subsystem: (u16, u16),
    /// Class, subclass, programming interface, in 24 bits.
    pub class: u32,
    /// Revision of the device.
    pub revision: u8,
}

/// The registers.
pub struct ConfigSpace {
    bytes: [u8; LEN],
    writable: [u8; LEN],
    bars: [Option<Bar>; BARS],
    /// Where the next capability goes, and the pointer that is to lead there.
    free: usize,
    last_pointer: u16,
}

#[derive(Clone, Copy)]
struct Bar {
    size: u64,
    wide: bool,
}

// === impl ConfigSpace ===

impl ConfigSpace {
    /// A function without BARs, capabilities and interrupt.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; LEN],
            writable: [0; LEN],
            bars: [None; BARS],
            free: FIRST_CAPABILITY,
            last_pointer: CAPABILITIES,
        };
        let class = identity.class << 8 | u32::from(identity.revision);
        space.set(0x00, &identity.id.0.to_le_bytes());
        space.set(0x02, &identity.id.1.to_le_bytes());
        space.set(0x08, &class.to_le_bytes());
        space.set(0x2c, &identity.subsystem.0.to_le_bytes());
        space.set(0x2e, &identity.subsystem.1.to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// The function interrupts through INTA.
    pub fn use_intx(&mut self) {
        self.set(INTERRUPT_PIN, &[1]);
    }

    /// Adds a memory BAR at this register, of a power of two of at least 16 bytes. One of 64 bits takes the next
    /// register, too.
    pub fn add_bar(&mut self, index: usize, size: u64, wide: bool) {
        let register = bar_register(index);
        let mask = !(size - 1);
        let low = (mask & 0xffff_fff0) as u32;
        self.set(register, &(if wide { BAR_64_BIT } else { 0 }).to_le_bytes());
        self.allow(register, &low.to_le_bytes());
        if wide {
            let high = (mask >> 32) as u32;
            self.allow(register + 4, &high.to_le_bytes());
        }
        self.bars[index] = Some(Bar { size, wide });
    }

    /// Adds a capability behind those already there: its body follows id and pointer, of which `writable` says what
    /// the guest can write. Returns where it begins.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let at = u16::try_from(self.free).expect("the space has 256 bytes");
        self.set(self.last_pointer, &at.to_le_bytes()[..1]);
        let status = STATUS_CAPABILITIES.to_le_bytes();
        self.set(STATUS, &status);
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        self.allow(at + 2, writable);
        self.last_pointer = at + 1;
        // Capabilities begin at multiples of four.
        self.free += (2 + body.len()).next_multiple_of(4);
        at
    }

    /// The guest reads. An access that goes beyond the space reads zeros there.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        let rest = self.bytes.get(usize::from(offset)..).unwrap_or_default();
        data.fill(0);
        for (to, from) in data.iter_mut().zip(rest) {
            *to = *from;
        }
    }

    /// The guest writes; bits that cannot be written stay.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, value) in (usize::from(offset)..LEN).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | value & mask;
        }
    }

    /// Sets registers from the device's side.
    pub fn set(&mut self, offset: u16, data: &[u8]) {
        let rest = self.bytes.get_mut(usize::from(offset)..).unwrap_or_default();
        for (to, from) in rest.iter_mut().zip(data) {
            *to = *from;
        }
    }

    /// A register of 16 bits.
    pub fn word(&self, offset: u16) -> u16 {
        let mut word = [0; 2];
        self.read(offset, &mut word);
        u16::from_le_bytes(word)
    }

    /// A register of 32 bits.
    pub fn long(&self, offset: u16) -> u32 {
        let mut long = [0; 4];
        self.read(offset, &mut long);
        u32::from_le_bytes(long)
    }

    /// Where the guest has put this BAR and how long it is, if memory is decoded and there is such a BAR.
    pub fn bar(&self, index: usize) -> Option<(u64, u64)> {
        let bar = self.bars.get(index).copied().flatten()?;
        if self.word(COMMAND) & COMMAND_MEMORY == 0 {
            return None;
        }
        let low = u64::from(self.long(bar_register(index)) & !0xf);
        let high = if bar.wide {
            u64::from(self.long(bar_register(index) + 4)) << 32
        } else {
            0
        };
        Some((high | low, bar.size))
    }

    fn allow(&mut self, offset: u16, mask: &[u8]) {
        let rest = self.writable.get_mut(usize::from(offset)..).unwrap_or_default();
        for (to, from) in rest.iter_mut().zip(mask) {
            *to = *from;
        }
    }
}

fn bar_register(index: usize) -> u16 {
    BAR0 + 4 * u16::try_from(index.min(BARS - 1)).unwrap_or(0)
}
