//! Ways to misuse a PCI function that need more than a line: its messages, its detour to the BARs, its doorbells.

use core::sync::atomic::{AtomicBool, Ordering};

use super::bare::{fill, holds_only, load32, load64, store8, store16, store32, store64};
use super::pci::{DECODING, ELSEWHERE, Function, MASTER, WORKING};
use super::transport::{register, structure};
use super::virtio::{S_LIVE, Virtio};
use super::{Verdict, flush, flush_again, flush_laid, flushes, function, life, messages, moved_to, put_back};

/// Message control: messages are on.
const ON: u64 = 0x8000;
/// All of them are masked.
const MASKED: u64 = 0x4000;
/// Bytes of an entry of the table.
const ENTRY: u64 = 16;
/// Where the pending bits are behind the table.
const PENDING: u64 = 0x800;

/// The structures over memory: what it holds must stay, and be the guest's.
pub fn over_ram(address: u64) -> Verdict {
    fill(address, 0x4000, 0x5a);
    let verdict = moved_to(address);
    verdict.unless(!holds_only(address, 0x4000, 0x5a), "a BAR has changed memory")
}

/// One function's structures where another one's are; both work afterwards.
pub fn over_another(other: Virtio) -> Verdict {
    function(|f, d| {
        f.move_to(other.base);
        let _ = other.read(register::STATUS);
        other.kick(0);
        flush_laid(d.seen_at(other.base)).kick(0);
        f.place();
        flush(d.up())
    })
}

/// Decoding is off and on again while requests are under way.
pub fn decode_storm(f: Function, d: Virtio) -> Verdict {
    super::full_of_reads(d);
    (0..100).for_each(|_| {
        d.kick(0);
        f.command(MASTER).command(WORKING);
    });
    flush(d.up())
}

/// A kick of a function that may not reach memory: nothing may change there, until it may, or is set up anew.
pub fn kick_without_leave(f: Function, d: Virtio) -> Verdict {
    flush_laid(f_without_leave(f, d)).kick(0);
    life::let_others_work();
    life::pause();
    let verdict = Verdict::answered_if(d.used_count(0) > 0);
    f.command(WORKING);
    verdict.unless(!flushes(d.up()), "the disk does not come back")
}

fn f_without_leave(f: Function, d: Virtio) -> Virtio {
    f.command(DECODING);
    d
}

/// Puts a message into the first entries of the table and uses it for everything.
fn routed(f: Function, d: Virtio, at: u64, address: u64, data: u64) {
    (0..f.message_count(at).min(4)).for_each(|entry| {
        let entry = f.table() + ENTRY * entry;
        store32(entry, address & 0xffff_ffff);
        store32(entry + 4, address >> 32);
        store32(entry + 8, data);
        store32(entry + 12, 0);
    });
    d.write(register::QUEUE_SEL, 0);
    store16(d.base + 16, 0);
    store16(d.base + 26, 0);
    f.set_half(at + 2, ON);
}

/// Requests whose interrupt is this message.
pub fn message(address: u64, data: u64) -> Verdict {
    messages(|f, d, at| {
        routed(f, d, at, address, data);
        let served = (0..3).all(|turn| flush_again(d, turn));
        life::pause();
        put_back(f, d.up(), Verdict::answered_if(served))
    })
}

/// The message changes again and again while it is due.
pub fn route_storm(f: Function, d: Virtio, at: u64) -> Verdict {
    routed(f, d, at, 0x2800_0000, 1);
    super::full_of_reads(d).kick(0);
    (0..100).for_each(|turn| {
        store32(f.table(), 0x2800_0000 + 0x1000 * turn);
        store32(f.table() + 8, turn);
        store32(f.table() + 12, 0);
    });
    flush(d.up())
}

/// Masks come and go, of one message, of all, and of the whole mechanism, while messages are due.
pub fn mask_storm(f: Function, d: Virtio, at: u64) -> Verdict {
    routed(f, d, at, 0x2800_0000, 1);
    (0..100).for_each(|turn| {
        flush_laid(d).kick(0);
        store32(f.table() + 12, turn & 1);
        f.set_half(at + 2, ON | MASKED)
            .set_half(at + 2, ON)
            .set_half(at + 2, 0)
            .set_half(at + 2, ON);
    });
    flush(d.up())
}

/// Entries behind the last one, written and read.
pub fn table_beyond(f: Function, at: u64) -> Verdict {
    let behind = f.table() + ENTRY * f.message_count(at);
    (behind..f.table() + PENDING)
        .step_by(8)
        .for_each(|place| store64(place, 0x5a5a_5a5a_5a5a_5a5a));
    Verdict::answered_if(
        (behind..f.table() + PENDING)
            .step_by(4)
            .any(|place| load32(place) == 0x5a5a_5a5a),
    )
}

/// The pending bits, written: they are the function's alone.
pub fn pending_written(f: Function, at: u64) -> Verdict {
    let pending = f.table() + (f.word(at + 8) & !7);
    let before = load32(pending);
    store32(pending, !before & 0xffff_ffff);
    store64(pending, !before);
    Verdict::answered_if(load32(pending) != before)
}

/// An entry's address, a byte and two at a time.
pub fn table_in_pieces(f: Function) -> Verdict {
    store64(f.table(), 0);
    store8(f.table(), 0xff);
    store16(f.table() + 2, 0xffff);
    Verdict::answered_if(load32(f.table()) != 0)
}

/// An entry's address at once.
pub fn table_at_once(f: Function) -> Verdict {
    store64(f.table(), 0x1_2800_0000);
    Verdict::answered_if(load64(f.table()) == 0x1_2800_0000)
}

/// A vector for a queue, or for the configuration; a driver reads what became of it.
pub fn vector(d: Virtio, field: u64, value: u64) -> Verdict {
    d.write(register::QUEUE_SEL, 0);
    store16(d.base + field, value);
    Verdict::answered_if(super::bare::load16(d.base + field) == value)
}

/// Sets the detour up: which BAR, where, how many bytes.
pub fn detour(f: Function, bar: u64, offset: u64, len: u64) -> u64 {
    let at = f.access();
    f.set_byte(at + 4, bar)
        .set_word(at + 8, offset)
        .set_word(at + 12, len);
    at + 16
}

/// A zero written by this detour; refused where the device's status is not touched by it.
pub fn detour_write(bar: fn(u64) -> u64, offset: u64, len: u64) -> Verdict {
    function(|f, d| {
        let data = detour(f, bar(f.bar()), offset, len);
        f.set_word(data, 0);
        let _ = f.word(data);
        Verdict::answered_if(d.status() != S_LIVE)
    })
}

/// The status, read by the detour.
pub fn detour_status(f: Function) -> Verdict {
    let data = detour(f, f.bar(), structure::COMMON + 20, 1);
    Verdict::answered_if(f.byte(data) == S_LIVE)
}

/// A kick by the detour.
pub fn detour_kick(f: Function, d: Virtio) -> Verdict {
    flush_laid(d);
    let data = detour(f, f.bar(), structure::NOTIFY, 2);
    f.set_half(data, 0);
    d.wait_for(0, 1)
}

/// The detour to everywhere, by every length.
pub fn detour_storm(f: Function, d: Virtio) -> Verdict {
    (0..200).for_each(|turn| {
        let data = detour(f, turn % 8, (turn * 0x1357_9bdf) & 0xffff_ffff, turn % 6);
        let _ = (f.word(data), f.byte(data + 3), f.half(data + 2));
    });
    flush(d)
}

/// Kicks at every place but those of queues.
pub fn doorbells_elsewhere(d: Virtio) {
    let bells = d.bell(0);
    (4..0x1000).step_by(4).for_each(|at| store16(bells + at, 0));
    (0..16).for_each(|at| store8(bells + at, 0));
    store64(bells, 0);
    store64(bells + 0xff8, 0);
    store32(bells + 0x1000, 0);
}

static STOP: AtomicBool = AtomicBool::new(false);

/// This hart uses a disk, the other one switches its function off and on and moves it all the while.
pub fn two_harts_on_the_bus(f: Function, d: Virtio) -> Verdict {
    STOP.store(false, Ordering::Relaxed);
    let started = super::start_other_hart(|| {
        let f = Function::in_slot(1);
        while !STOP.load(Ordering::Relaxed) {
            f.command(0).command(WORKING).move_to(ELSEWHERE).place();
        }
    });
    (0..20).for_each(|_| {
        d.up().kick(0);
    });
    STOP.store(true, Ordering::Relaxed);
    let stopped = started && super::wait_for_other_hart();
    f.place();
    flush(d.up()).unless(!stopped, "the other hart did not start or stop")
}
