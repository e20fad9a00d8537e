//! The console against well-meaning and hostile drivers: checklist E.

use std::sync::Mutex;

use super::*;
use crate::virtio::driver::{DATA, EVENT_IDX, HOLE, NEEDS_RESET, Rig, Ring, WRITE, peek, poke};

/// Both ends of the console's wire.
#[derive(Clone, Default)]
struct Terminal {
    typed: Arc<Mutex<Vec<u8>>>,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn type_in(&self, text: &[u8]) {
        self.typed.lock().unwrap().extend_from_slice(text);
    }

    fn shown(&self) -> Vec<u8> {
        std::mem::take(&mut self.shown.lock().unwrap())
    }
}

impl ConsoleOutput for Terminal {
    fn write(&self, bytes: &[u8]) {
        self.shown.lock().unwrap().extend_from_slice(bytes);
    }
}

impl InputSource for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut typed = self.typed.lock().unwrap();
        let len = typed.len().min(buffer.len());
        buffer[..len].copy_from_slice(&typed[..len]);
        typed.drain(..len);
        len
    }
}

fn rig(terminal: &Terminal) -> Rig {
    Rig::up(Console::new(
        Arc::new(terminal.clone()),
        Box::new(terminal.clone()),
    ))
}

#[test]
fn what_the_guest_prints_is_shown() {
    let terminal = Terminal::default();
    let mut rig = rig(&terminal);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Console::TRANSMIT);
    poke(&memory, DATA, b"login: ");
    ring.add(&[(DATA, 3, 0), (DATA + 3, 4, 0)]);
    rig.run(Console::TRANSMIT);
    assert_eq!(
        (terminal.shown(), ring.take_used()),
        (b"login: ".to_vec(), Some((0, 0)))
    );
}

#[test]
fn output_beyond_the_limit_of_a_chain_is_cut() {
    let terminal = Terminal::default();
    let mut rig = rig(&terminal);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Console::TRANSMIT);
    ring.add(&[(DATA, 0x8_0000, 0), (DATA, 0x8_0000, 0)]);
    ring.add(&[(DATA, 0, 0)]);
    ring.add(&[(DATA, 100, WRITE)]);
    rig.run(Console::TRANSMIT);
    assert_eq!((terminal.shown().len(), ring.used_idx()), (MAX_CHAIN_BYTES, 3));
}

#[test]
fn what_is_typed_reaches_the_guest() {
    let terminal = Terminal::default();
    let mut rig = rig(&terminal);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Console::RECEIVE);
    ring.add(&[(DATA, 64, WRITE)]);
    rig.run(Console::RECEIVE);
    assert_eq!((ring.take_used(), rig.irq.count()), (None, 0));
    terminal.type_in(b"root\r");
    rig.run(Console::RECEIVE);
    assert_eq!((ring.take_used(), rig.irq.count()), (Some((0, 5)), 1));
    assert_eq!(peek(&memory, DATA, 6), b"root\r\0");
}

#[test]
fn input_waits_for_buffers_and_fills_them_in_order() {
    let terminal = Terminal::default();
    let mut rig = rig(&terminal);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Console::RECEIVE);
    terminal.type_in(b"abcdefg");
    rig.run(Console::RECEIVE);
    ring.add(&[(DATA, 2, WRITE)]);
    ring.add(&[(DATA + 0x10, 1, WRITE), (DATA + 0x20, 2, WRITE)]);
    rig.run(Console::RECEIVE);
    assert_eq!((ring.take_used(), ring.take_used()), (Some((0, 2)), Some((1, 3))));
    ring.add(&[(DATA + 0x30, 64, WRITE)]);
    rig.run(Console::RECEIVE);
    assert_eq!(ring.take_used(), Some((3, 2)));
    assert_eq!(
        (peek(&memory, DATA + 0x20, 2), peek(&memory, DATA + 0x30, 2)),
        (b"de".to_vec(), b"fg".to_vec())
    );
}

#[test]
fn buffers_that_hold_nothing_lose_no_input() {
    let terminal = Terminal::default();
    let mut rig = rig(&terminal);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Console::RECEIVE);
    terminal.type_in(b"ab");
    ring.add(&[(DATA, 64, 0)]);
    ring.add(&[(DATA, 0, WRITE)]);
    ring.add(&[(DATA, 64, WRITE)]);
    rig.run(Console::RECEIVE);
    assert_eq!(
        [ring.take_used(), ring.take_used(), ring.take_used()],
        [Some((0, 0)), Some((1, 0)), Some((2, 2))]
    );
}

#[test]
fn input_that_waited_is_forgotten_at_reset() {
    let terminal = Terminal::default();
    let mut rig = rig(&terminal);
    terminal.type_in(b"old");
    rig.run(Console::RECEIVE);
    rig.reset();
    let offered = rig.offered() & !EVENT_IDX;
    rig.bring_up(offered);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Console::RECEIVE);
    ring.add(&[(DATA, 64, WRITE)]);
    rig.run(Console::RECEIVE);
    assert_eq!(ring.take_used(), None);
}

#[test]
fn buffers_outside_ram_stop_the_device() {
    for queue in [Console::RECEIVE, Console::TRANSMIT] {
        let terminal = Terminal::default();
        let mut rig = rig(&terminal);
        terminal.type_in(b"x");
        let memory = rig.memory.clone();
        let flags = if queue == Console::RECEIVE { WRITE } else { 0 };
        Ring::new(&memory, queue).add(&[(HOLE - 1, 2, flags)]);
        rig.run(queue);
        assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
        assert!(terminal.shown().is_empty());
    }
}

#[test]
fn there_is_one_port_without_a_size() {
    let mut rig = rig(&Terminal::default());
    assert_eq!(rig.offered() & 0xffff_ffff & !(3 << 28), 0);
    assert_eq!((rig.read(0x100), rig.read(0x104), rig.queue_count()), (0, 0, 2));
}
