//! The machine's devices, and what well-behaved drivers ask of them.

use core::sync::atomic::{AtomicU64, Ordering};

use super::bare::{fill, load8, load64, store8, store32, store64};
use super::virtio::{F_EVENTS, NEXT, Virtio, WRITE};
use super::{INFLATE, Verdict, life, pages, sockets};

const KIND_NET: u64 = 1;
const KIND_BLK: u64 = 2;
const KIND_CONSOLE: u64 = 3;
const KIND_RNG: u64 = 4;
const KIND_BALLOON: u64 = 5;
const KIND_VSOCK: u64 = 19;

/// Feature of a disk: it can only be read.
const READ_ONLY: u64 = 1 << 5;

/// Feature of a console: more ports than one.
const MULTIPORT: u64 = 1 << 1;

/// Requests of a disk.
pub const IN: u64 = 0;
/// Writes.
pub const OUT: u64 = 1;
/// Flushes.
pub const FLUSH: u64 = 4;
/// Asks for the serial.
pub const GET_ID: u64 = 8;
/// Gives blocks back.
pub const DISCARD: u64 = 11;
/// Writes zeroes.
pub const ZEROES: u64 = 13;

/// A sector.
pub const SECTOR: u64 = 512;
/// Where a request's header is among the buffers.
pub const HEADER: u64 = 0;
/// Where its status is.
pub const STATUS: u64 = 0x40;
/// Where its data is.
pub const DATA: u64 = 0x1000;
/// Bytes of data between two canaries.
pub const DATA_LEN: u64 = 0x2000;
/// A status that no device writes.
const NO_STATUS: u64 = 0xee;

/// How the first sector of each disk begins.
const MARK: u64 = u64::from_le_bytes(*b"hostile!");

/// The disk that can be written, live.
pub fn blk() -> Virtio {
    raw_blk().up()
}

/// The same, as it is.
pub fn raw_blk() -> Virtio {
    life::needed(known(0, KIND_BLK, |disk| disk.offered() & READ_ONLY == 0))
}

/// The disk that can only be read, live.
pub fn read_only() -> Virtio {
    raw_read_only().up()
}

fn raw_read_only() -> Virtio {
    life::needed(known(1, KIND_BLK, |disk| disk.offered() & READ_ONLY != 0))
}

/// The network interface, live.
pub fn net() -> Virtio {
    raw_net().up()
}

/// The same, as it is.
pub fn raw_net() -> Virtio {
    life::needed(known(2, KIND_NET, |_| true))
}

/// The console, live.
pub fn console() -> Virtio {
    raw_console().up_with(!(F_EVENTS | MULTIPORT))
}

/// The same, as it is.
pub fn raw_console() -> Virtio {
    life::needed(known(3, KIND_CONSOLE, |_| true))
}

/// The entropy device, live.
pub fn rng() -> Virtio {
    raw_rng().up()
}

/// The same, as it is.
pub fn raw_rng() -> Virtio {
    life::needed(known(4, KIND_RNG, |_| true))
}

/// The balloon, live.
pub fn balloon() -> Virtio {
    raw_balloon().up()
}

/// The same, as it is.
pub fn raw_balloon() -> Virtio {
    life::needed(known(5, KIND_BALLOON, |_| true))
}

/// The socket device, live; not every machine has one.
pub fn vsock() -> Option<Virtio> {
    raw_vsock().map(Virtio::up)
}

fn raw_vsock() -> Option<Virtio> {
    known(6, KIND_VSOCK, |_| true)
}

/// In which window a device was found, counted from 1: it stays there, and looking costs many accesses.
static PLACES: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];
/// It was looked for, and is not there.
const ABSENT: u64 = u64::MAX;

fn known(place: usize, kind: u64, wanted: fn(Virtio) -> bool) -> Option<Virtio> {
    match PLACES[place].load(Ordering::Relaxed) {
        0 => {}
        ABSENT => return None,
        window => return Some(Virtio::at(window - 1)),
    }
    let found = Virtio::find(kind, wanted);
    let window = found.map_or(ABSENT, |device| device.slot() + 1);
    PLACES[place].store(window, Ordering::Relaxed);
    found
}

/// Every device there is.
pub(super) fn all() -> impl Iterator<Item = Virtio> {
    let always = [
        raw_blk(),
        raw_net(),
        raw_console(),
        raw_rng(),
        raw_read_only(),
        raw_balloon(),
    ];
    always.into_iter().chain(raw_vsock())
}

// === impl Virtio: disks ===

impl Virtio {
    /// Writes a request's header and readies its status.
    pub fn header(self, kind: u64, sector: u64) -> Self {
        store32(self.buffer(HEADER), kind);
        store32(self.buffer(HEADER + 4), 0);
        store64(self.buffer(HEADER + 8), sector);
        store8(self.buffer(STATUS), NO_STATUS);
        self
    }

    /// Header, these buffers, status: as one request.
    pub fn request(self, kind: u64, sector: u64, data: &[(u64, u64, u64)]) -> Verdict {
        self.header(kind, sector);
        let last = data.len() as u64 + 1;
        self.descriptor(0, 0, self.buffer(HEADER), 16, NEXT, 1);
        (1..).zip(data).for_each(|(index, &(addr, len, flags))| {
            self.descriptor(0, index, addr, len, flags | NEXT, index + 1);
        });
        self.descriptor(0, last, self.buffer(STATUS), 1, WRITE, 0)
            .offer(0, 0)
            .serve(0);
        self.judged()
    }

    /// A request whose data is `len` bytes at the usual place.
    pub fn simple(self, kind: u64, sector: u64, len: u64) -> Verdict {
        let flags = if kind == IN || kind == GET_ID { WRITE } else { 0 };
        self.request(kind, sector, &[(self.buffer(DATA), len, flags)])
    }

    /// What the status byte says of a chain that came back.
    pub fn judged(self) -> Verdict {
        match self.wait_for(0, 1) {
            Verdict::Answered => self.judged_status(),
            other => other,
        }
    }

    fn judged_status(self) -> Verdict {
        match load8(self.buffer(STATUS)) {
            0 => Verdict::Answered,
            1 | 2 => Verdict::Refused,
            NO_STATUS => Verdict::Broken("a request came back without a status"),
            _ => Verdict::Broken("a request came back with a status that there is not"),
        }
    }

    /// Sectors of the disk.
    pub fn sectors(self) -> u64 {
        load64(self.config())
    }

    /// Whether a sector holds nothing but this byte.
    pub fn sector_holds(self, sector: u64, byte: u8) -> bool {
        let disk = self.up();
        let word = u64::from_ne_bytes([byte; 8]);
        disk.simple(IN, sector, SECTOR) == Verdict::Answered
            && (0..SECTOR)
                .step_by(8)
                .all(|at| load64(disk.buffer(DATA + at)) == word)
    }

    /// Writes a sector full of this byte.
    pub fn write_sector(self, sector: u64, byte: u8) -> bool {
        let disk = self.up();
        fill(disk.buffer(DATA), SECTOR, byte);
        disk.simple(OUT, sector, SECTOR) == Verdict::Answered
    }
}

/// Whether this disk, started anew, gives its first sector.
fn disk_works(disk: Virtio) -> bool {
    let disk = disk.up();
    disk.simple(IN, 0, SECTOR) == Verdict::Answered && load64(disk.buffer(DATA)) == MARK
}

/// Whether the entropy device, started anew, gives entropy.
pub(super) fn rng_works() -> bool {
    let rng = rng();
    rng.chain(0, &[(rng.buffer(DATA), 64, WRITE)]) == Verdict::Answered
        && (0..64).step_by(8).any(|at| load64(rng.buffer(DATA + at)) != 0)
}

pub(super) fn blk_works() -> bool {
    disk_works(raw_blk())
}

fn net_works() -> bool {
    let net = net();
    // A header of zeros and a broadcast frame of a type for experiments.
    fill(net.buffer(DATA + 12), 6, 0xff);
    store8(net.buffer(DATA + 12 + 12), 0x88);
    store8(net.buffer(DATA + 12 + 13), 0xb5);
    net.chain(1, &[(net.buffer(DATA), 76, 0)]) == Verdict::Answered
}

fn console_works() -> bool {
    let console = console();
    store8(console.buffer(DATA), 0);
    console.chain(1, &[(console.buffer(DATA), 1, 0)]) == Verdict::Answered
}

fn balloon_works() -> bool {
    pages(INFLATE, &[super::bare::SCRATCH >> 12]) == Verdict::Answered
}

fn vsock_works() -> bool {
    vsock().is_none_or(|_| sockets::unanswered() == Verdict::Answered)
}

/// Whether every device works; says which does not.
pub(super) fn all_work(last: crate::Device) -> Result<(), &'static str> {
    use crate::Device;
    // Another device first: the one that was misused comes last, and starts anew there.
    if last != Device::Rng && !rng_works() {
        return Err("the entropy device answers no more");
    }
    if !blk_works() {
        return Err("the disk answers no more");
    }
    match last {
        Device::Net if !net_works() => Err("the network interface answers no more"),
        Device::Console if !console_works() => Err("the console answers no more"),
        Device::ReadOnly if !disk_works(read_only()) => Err("the read-only disk answers no more"),
        Device::Balloon if !balloon_works() => Err("the balloon answers no more"),
        Device::Vsock if !vsock_works() => Err("the sockets answer no more"),
        Device::Rng if !rng_works() => Err("the entropy device answers no more"),
        _ => Ok(()),
    }
}
