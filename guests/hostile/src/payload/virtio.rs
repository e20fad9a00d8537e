//! A driver that can do everything right, and then does one thing wrong.

use super::Verdict;
use super::bare::{ARENA, fence, fill, holds_only, load16, load32, now, store16, store32, store64};
use super::life;
use super::transport::{WINDOW, WINDOWS, on_pci, register};

/// Flag of a descriptor: there is another one.
pub const NEXT: u64 = 1;
/// The device writes.
pub const WRITE: u64 = 2;
/// It is a table of descriptors.
pub const INDIRECT: u64 = 4;

/// Feature: indirect tables.
pub const F_INDIRECT: u64 = 1 << 28;
/// Feature: event indices.
pub const F_EVENTS: u64 = 1 << 29;
/// Feature: version 1.
pub const F_VERSION_1: u64 = 1 << 32;

/// Status: seen, driven, live, agreed, standing still.
pub const S_ACKNOWLEDGE: u64 = 1;
/// There is a driver.
pub const S_DRIVER: u64 = 2;
/// The driver is ready.
pub const S_DRIVER_OK: u64 = 4;
/// Features are agreed upon.
pub const S_FEATURES_OK: u64 = 8;
/// The device stands still.
pub const S_NEEDS_RESET: u64 = 64;
/// The driver has given up.
pub const S_FAILED: u64 = 128;
/// All that a working device has.
pub const S_LIVE: u64 = 15;

/// The arena of one device: rings of a queue each 64 KiB, then buffers.
const DEVICE_ARENA: u64 = 0x20_0000;
const QUEUE_ARENA: u64 = 0x1_0000;
const RING_AVAIL: u64 = 0x4000;
const RING_USED: u64 = 0x8000;
const BUFFERS: u64 = 0x10_0000;
/// The largest ring that is used; the rings' places are made for it.
const MAX_RING: u64 = 256;

/// What nobody may write, and what it holds.
const CANARY: u8 = 0xa5;
/// Places of canaries among the buffers: offset and length.
const CANARIES: [(u64, u64); 2] = [(0x100, 0xf00), (0x3000, 0x1000)];

/// One device. It has no state of its own: that is in the registers and in the rings.
#[derive(Clone, Copy)]
pub struct Virtio {
    /// Its window, or the BAR with its structures.
    pub base: u64,
    arena: u64,
}

// === impl Virtio ===

impl Virtio {
    /// A window where no device is: the lowest one.
    pub fn empty() -> Self {
        Self::at(0)
    }

    /// The device in this window, or in this slot of the bus, whichever it is.
    pub(super) fn at(slot: u64) -> Self {
        let base = if on_pci() {
            super::pci::structures(slot)
        } else {
            WINDOWS + slot * WINDOW
        };
        Self {
            base,
            arena: ARENA + slot * DEVICE_ARENA,
        }
    }

    /// The same device, if its structures were there.
    pub fn seen_at(self, base: u64) -> Self {
        Self { base, ..self }
    }

    /// Its window or slot.
    pub fn slot(self) -> u64 {
        (self.arena - ARENA) / DEVICE_ARENA
    }

    /// Writes a register and its upper half behind it.
    pub fn write_pair(self, register: u64, value: u64) -> Self {
        self.write(register, value & 0xffff_ffff)
            .write(register + 4, value >> 32)
    }

    /// The status.
    pub fn status(self) -> u64 {
        self.read(register::STATUS)
    }

    /// What the device offers.
    pub fn offered(self) -> u64 {
        let half = |which| self.write(register::OFFERED_SEL, which).read(register::OFFERED);
        half(0) | half(1) << 32
    }

    /// Back to the start.
    pub fn reset(self) -> Self {
        self.write(register::STATUS, 0)
    }

    /// Tells what the driver accepts.
    pub fn accept(self, features: u64) -> Self {
        self.write(register::ACCEPTED_SEL, 0)
            .write(register::ACCEPTED, features & 0xffff_ffff)
            .write(register::ACCEPTED_SEL, 1)
            .write(register::ACCEPTED, features >> 32)
    }

    /// Up to the features.
    pub fn introduce(self) -> Self {
        self.reset()
            .write(register::STATUS, S_ACKNOWLEDGE)
            .write(register::STATUS, S_ACKNOWLEDGE | S_DRIVER)
    }

    /// Up to FEATURES_OK, with these features of those that are offered.
    pub fn negotiate(self, features: u64) -> Self {
        self.introduce()
            .accept(features & self.offered())
            .write(register::STATUS, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK)
    }

    /// The size that a queue is used with.
    pub fn ring_size(self, queue: u64) -> u64 {
        self.write(register::QUEUE_SEL, queue)
            .read(register::QUEUE_MAX)
            .min(MAX_RING)
    }

    /// Where a queue's table is.
    pub fn table(self, queue: u64) -> u64 {
        self.arena + queue * QUEUE_ARENA
    }

    /// Where its available ring is.
    pub fn avail(self, queue: u64) -> u64 {
        self.table(queue) + RING_AVAIL
    }

    /// Where its used ring is.
    pub fn used(self, queue: u64) -> u64 {
        self.table(queue) + RING_USED
    }

    /// Tells the device where a queue is, and how large.
    pub fn place(self, queue: u64, size: u64, table: u64, avail: u64, used: u64) -> Self {
        self.write(register::QUEUE_SEL, queue)
            .write(register::QUEUE_NUM, size)
            .write_pair(register::DESCRIPTORS, table)
            .write_pair(register::AVAILABLE, avail)
            .write_pair(register::USED, used)
    }

    /// Makes the selected queue live.
    pub fn ready(self) -> Self {
        self.write(register::QUEUE_READY, 1)
    }

    /// Gives every queue its usual place, empty.
    pub fn place_all(self) -> Self {
        (0..4)
            .filter(|&queue| self.ring_size(queue) > 0)
            .fold(self, |device, queue| {
                fill(self.table(queue), QUEUE_ARENA, 0);
                device
                    .place(
                        queue,
                        self.ring_size(queue),
                        self.table(queue),
                        self.avail(queue),
                        self.used(queue),
                    )
                    .ready()
            })
    }

    /// DRIVER_OK.
    pub fn go(self) -> Self {
        self.write(register::STATUS, S_LIVE)
    }

    /// From whatever state to a live device with these features, empty queues and canaries among its buffers.
    pub fn up_with(self, features: u64) -> Self {
        let device = self.reset();
        fill(self.buffer(0), 0x4000, 0);
        CANARIES
            .iter()
            .for_each(|&(offset, len)| fill(self.buffer(offset), len, CANARY));
        device.negotiate(features).place_all().go()
    }

    /// [`Virtio::up_with`] all features that do not change how rings work.
    pub fn up(self) -> Self {
        self.up_with(!F_EVENTS)
    }

    /// A place among the device's buffers.
    pub fn buffer(self, offset: u64) -> u64 {
        self.arena + BUFFERS + offset
    }

    /// Whether nothing was written between the buffers.
    pub(super) fn canaries_live(self) -> bool {
        CANARIES
            .iter()
            .all(|&(offset, len)| holds_only(self.buffer(offset), len, CANARY))
    }

    /// Writes a descriptor of a queue's table.
    pub fn descriptor(self, queue: u64, index: u64, addr: u64, len: u64, flags: u64, next: u64) -> Self {
        self.descriptor_at(self.table(queue) + 16 * index, addr, len, flags, next)
    }

    /// Writes a descriptor anywhere.
    pub fn descriptor_at(self, place: u64, addr: u64, len: u64, flags: u64, next: u64) -> Self {
        store64(place, addr);
        store32(place + 8, len);
        store16(place + 12, flags);
        store16(place + 14, next);
        self
    }

    /// Makes a chain available, without a kick.
    pub fn offer(self, queue: u64, head: u64) -> Self {
        let idx = load16(self.avail(queue) + 2);
        store16(
            self.avail(queue) + 4 + 2 * (idx % self.ring_size(queue).max(1)),
            head,
        );
        self.jump(queue, idx + 1)
    }

    /// Sets the available ring's index.
    pub fn jump(self, queue: u64, idx: u64) -> Self {
        fence();
        store16(self.avail(queue) + 2, idx);
        fence();
        self
    }

    /// Kicks a queue.
    pub fn kick(self, queue: u64) -> Self {
        self.write(register::NOTIFY, queue)
    }

    /// How many chains came back.
    pub fn used_count(self, queue: u64) -> u64 {
        fence();
        load16(self.used(queue) + 2)
    }

    /// How many bytes the device says that it wrote for the last chain.
    pub fn used_len(self, queue: u64) -> u64 {
        let last = self.used_count(queue).wrapping_sub(1) % self.ring_size(queue).max(1);
        load32(self.used(queue) + 4 + 8 * last + 4)
    }

    /// Waits until so many chains came back. A device that stands still, or where nothing is expected to come, is
    /// not waited for longer than another one takes to answer.
    pub fn wait_for(self, queue: u64, count: u64) -> Verdict {
        if !life::expects_an_answer() {
            life::let_others_work();
        }
        let limit = now() + life::patience();
        loop {
            if self.status() & S_NEEDS_RESET != 0 {
                return Verdict::NeedsReset;
            }
            if self.used_count(queue) >= count {
                return Verdict::Answered;
            }
            if now() > limit {
                return Verdict::Refused;
            }
        }
    }

    /// The same, for what comes in any case but those where the device stands still.
    pub fn wait_patiently(self, queue: u64, count: u64) -> Verdict {
        let limit = now() + life::long_patience();
        while self.used_count(queue) < count {
            if self.status() & S_NEEDS_RESET != 0 {
                return Verdict::NeedsReset;
            }
            if now() > limit {
                return Verdict::Refused;
            }
        }
        Verdict::Answered
    }

    /// Kicks, and waits for one chain.
    pub fn serve(self, queue: u64) -> Verdict {
        self.kick(queue).wait_for(queue, 1)
    }

    /// Makes one chain of these buffers (address, length, flags) and sees what comes of it.
    pub fn chain(self, queue: u64, buffers: &[(u64, u64, u64)]) -> Verdict {
        self.lay(queue, buffers).offer(queue, 0).serve(queue)
    }

    /// Writes the descriptors of one chain, from the table's start on.
    pub fn lay(self, queue: u64, buffers: &[(u64, u64, u64)]) -> Self {
        self.lay_at(self.table(queue), buffers)
    }

    /// Writes the descriptors of one chain into a table that may be anywhere.
    pub fn lay_at(self, table: u64, buffers: &[(u64, u64, u64)]) -> Self {
        let last = buffers.len().saturating_sub(1);
        (0..).zip(buffers).for_each(|(index, &(addr, len, flags))| {
            let more = if usize::try_from(index) == Ok(last) {
                0
            } else {
                NEXT
            };
            self.descriptor_at(table + 16 * index, addr, len, flags | more, index + 1);
        });
        self
    }
}
