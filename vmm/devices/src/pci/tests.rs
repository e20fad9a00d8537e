//! Enumeration as firmware and kernel do it, and as a hostile guest would.

use std::sync::{Arc, Mutex};

use super::config::Identity;
use super::*;
use crate::bus::{Bus, BusDevice, Range};

const IDENTITY: Identity = Identity {
    id: (0x1234, 0x5678),
    subsystem: (0x9abc, 0xdef0),
    class: 0x01_8000,
    revision: 1,
};
const LOW: Range = Range {
    base: 0x4000_0000,
    len: 0x10_0000,
};
const HIGH: Range = Range {
    base: 0x4_0000_0000,
    len: 0x1000_0000,
};

/// Answers with one byte, everywhere.
struct Echo(u8);

impl BusDevice for Echo {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(self.0);
    }

    fn write(&mut self, _: u64, data: &[u8]) {
        self.0 = data[0];
    }
}

struct Follower(Arc<Mutex<Vec<Option<u64>>>>);

impl Placed for Follower {
    fn placed(&mut self, base: Option<u64>) {
        self.0.lock().unwrap().push(base);
    }
}

struct Board {
    host: Host,
    memory: Arc<Bus>,
}

/// A function with a BAR of 64 bits and 16 KiB, of which the first page answers.
fn function(answer: u8) -> Function {
    let mut config = ConfigSpace::new(&IDENTITY);
    config.add_bar(0, 0x4000, true);
    let region = Region {
        bar: 0,
        range: Range { base: 0, len: 0x1000 },
        device: Arc::new(Mutex::new(Echo(answer))),
    };
    Function::new(config, vec![region])
}

impl Board {
    /// Functions in slots 1 and 2.
    fn new() -> Self {
        let memory = Arc::new(Bus::new());
        let mut host = Host::new(memory.clone(), vec![LOW, HIGH]);
        host.plug(1, function(0x11)).unwrap();
        host.plug(2, function(0x22)).unwrap();
        Self { host, memory }
    }

    fn read(&mut self, slot: u64, register: u64) -> u32 {
        let mut data = [0; 4];
        self.host.read(slot << 15 | register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, slot: u64, register: u64, value: u32) {
        self.host.write(slot << 15 | register, &value.to_le_bytes());
    }

    fn place(&mut self, slot: u64, base: u64) {
        self.write(slot, 0x10, (base & 0xffff_ffff) as u32);
        self.write(slot, 0x14, (base >> 32) as u32);
        self.write(slot, 0x04, 2);
    }

    fn answer(&self, address: u64) -> u8 {
        let mut data = [0];
        self.memory.read(address, &mut data);
        data[0]
    }
}

#[test]
fn the_bridge_is_in_slot_0_and_empty_slots_read_all_ones() {
    let mut board = Board::new();
    assert_eq!(
        (board.read(0, 0), board.read(0, 8) >> 8),
        (0x0008_1b36, 0x06_0000)
    );
    assert_eq!(
        (board.read(1, 0), board.read(2, 0x2c)),
        (0x5678_1234, 0xdef0_9abc)
    );
    for absent in [
        3 << 15,
        31 << 15,
        1 << 15 | 1 << 12,
        1 << 20,
        0xfff_fffc,
        u64::MAX - 3,
    ] {
        let mut data = [0; 4];
        board.host.write(absent, &[0; 4]);
        board.host.read(absent, &mut data);
        assert_eq!(data, [0xff; 4], "{absent:#x}");
    }
}

#[test]
fn odd_accesses_of_configuration_space_read_all_ones_and_write_nothing() {
    let mut board = Board::new();
    for (offset, width) in [(0, 0), (0, 3), (0, 8), (1, 2), (2, 4), (0xffe, 4), (0xfff, 2)] {
        let mut data = vec![0; width];
        board.host.write(1 << 15 | offset, &data);
        board.host.read(1 << 15 | offset, &mut data);
        assert_eq!(data, vec![0xff; width], "{width} at {offset:#x}");
    }
    assert_eq!(
        (board.read(1, 0x100), board.read(1, 0xffc)),
        (0, 0),
        "no extended space"
    );
}

#[test]
fn read_only_registers_stay() {
    let mut board = Board::new();
    let before: Vec<_> = (0..64).map(|register| board.read(1, 4 * register)).collect();
    for register in (0..64).filter(|register| !matches!(register, 1 | 4 | 5 | 15)) {
        board.write(1, 4 * register, 0xffff_ffff);
    }
    let after: Vec<_> = (0..64).map(|register| board.read(1, 4 * register)).collect();
    assert_eq!(before, after);
    board.write(1, 4, 0xffff_ffff);
    assert_eq!(board.read(1, 4), 0x406, "memory, bus master, no INTx");
}

#[test]
fn a_bar_tells_its_size_and_is_decoded_where_it_is_put() {
    let mut board = Board::new();
    board.write(1, 0x10, 0xffff_ffff);
    board.write(1, 0x14, 0xffff_ffff);
    assert_eq!(
        (board.read(1, 0x10), board.read(1, 0x14)),
        (0xffff_c004, 0xffff_ffff)
    );
    board.place(1, HIGH.base + 0x8000);
    assert_eq!(
        (board.answer(HIGH.base + 0x8000), board.answer(HIGH.base + 0x8fff)),
        (0x11, 0x11)
    );
    assert_eq!(
        board.answer(HIGH.base + 0x9000),
        0xff,
        "nothing answers in the rest of the BAR"
    );
    board.write(1, 0x04, 0);
    assert_eq!(board.answer(HIGH.base + 0x8000), 0xff);
}

#[test]
fn a_bar_that_moves_takes_its_follower_along() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut board = Board::new();
    let follower = Box::new(Follower(seen.clone()));
    board
        .host
        .plug(3, function(0x33).with_placed(0, follower))
        .unwrap();
    board.place(3, LOW.base);
    board.write(3, 0x3c, 7);
    // What a kernel does after the firmware: switch off, measure, put elsewhere, switch on.
    board.write(3, 0x04, 0);
    board.write(3, 0x10, 0xffff_ffff);
    board.place(3, HIGH.base);
    assert_eq!((board.answer(LOW.base), board.answer(HIGH.base)), (0xff, 0x33));
    assert_eq!(*seen.lock().unwrap(), [Some(LOW.base), None, Some(HIGH.base)]);
}

#[test]
fn a_bar_outside_the_windows_is_not_decoded() {
    let mut board = Board::new();
    for base in [
        0,
        0x3000_0000,
        0x8000_0000,
        LOW.base - 0x4000,
        LOW.base + LOW.len,
        HIGH.base + HIGH.len,
        0xffff_ffff_ffff_c000,
    ] {
        board.place(1, base);
        assert_eq!(board.answer(base), 0xff, "{base:#x}");
    }
    board.place(1, LOW.base + LOW.len - 0x4000);
    assert_eq!(board.answer(LOW.base + LOW.len - 0x4000), 0x11);
}

#[test]
fn of_bars_at_one_place_the_lower_slot_wins_until_it_leaves() {
    let mut board = Board::new();
    board.place(2, LOW.base);
    assert_eq!(board.answer(LOW.base), 0x22);
    board.place(1, LOW.base);
    assert_eq!(board.answer(LOW.base), 0x11);
    board.write(1, 0x04, 0);
    assert_eq!(board.answer(LOW.base), 0x22);
}

#[test]
fn functions_come_and_go_while_the_bus_runs() {
    let mut board = Board::new();
    board.place(1, LOW.base);
    board.place(2, LOW.base);
    assert_eq!(board.host.plug(1, function(0)), Err(PlugError::Taken(1)));
    assert_eq!(board.host.plug(32, function(0)), Err(PlugError::NoSlot(32)));
    assert!(
        board.host.unplug(0).is_none() && board.host.unplug(9).is_none() && board.host.unplug(99).is_none()
    );
    assert!(board.host.unplug(1).is_some());
    assert_eq!((board.read(1, 0), board.answer(LOW.base)), (0xffff_ffff, 0x22));
    assert_eq!(board.host.free_slot(), Some(1));
    board.host.plug(1, function(0x44)).unwrap();
    assert_eq!(board.answer(LOW.base), 0x22, "a new function decodes nothing yet");
    board.place(1, LOW.base + 0x4000);
    assert_eq!(board.answer(LOW.base + 0x4000), 0x44);
}

/// Remembers its changes.
struct Level(Arc<Mutex<Vec<bool>>>);

impl crate::LevelLine for Level {
    fn set(&self, high: bool) {
        self.0.lock().unwrap().push(high);
    }
}

#[test]
fn a_shared_line_is_high_while_anybody_raises_it() {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let wire = Arc::new(Wire::new(Arc::new(Level(changes.clone()))));
    let (first, second) = (Intx::new(wire.clone(), 1), Intx::new(wire, 5));
    first.assert(true);
    second.assert(true);
    first.assert(true);
    first.assert(false);
    assert_eq!(*changes.lock().unwrap(), [true]);
    second.allow(false);
    second.allow(true);
    drop(second);
    assert_eq!(*changes.lock().unwrap(), [true, false, true, false]);
}
