//! The console against well-meaning and hostile drivers: checklist E.

use std::sync::Mutex;

use super::*;
use crate::virtio::driver::{DATA, EVENT_IDX, HOLE, NEEDS_RESET, Rig, Ring, VERSION_1, WRITE, peek, poke};

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

/// A port's far end, and what it saw.
#[derive(Clone, Default)]
struct Agent {
    ends: Terminal,
    opened: Arc<Mutex<Vec<bool>>>,
}

impl InputSource for Agent {
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        self.ends.read(buffer)
    }
}

impl Port for Agent {
    fn name(&self) -> &'static str {
        "org.test.0"
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.ends.write(bytes);
    }

    fn opened(&mut self, open: bool) {
        self.opened.lock().unwrap().push(open);
    }
}

fn rig_of_two(agent: &Agent) -> Rig {
    let terminal = Terminal::default();
    let console = Console::new(Arc::new(terminal.clone()), Box::new(terminal));
    Rig::up(console.with_port(Box::new(agent.clone())))
}

/// Sends a control message: port, event, value.
fn tell(rig: &mut Rig, ring: &mut Ring<'_>, (port, event, value): (u32, u16, u16)) {
    let mut bytes = port.to_le_bytes().to_vec();
    bytes.extend(event.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    poke(&rig.memory, DATA, &bytes);
    ring.add(&[(DATA, 8, 0)]);
    rig.run(spec::CONTROL_TRANSMIT);
}

/// Gives the device a buffer for a control message, and returns what it put there.
fn told(rig: &mut Rig, ring: &mut Ring<'_>) -> Vec<u8> {
    ring.add(&[(DATA + 0x100, 64, WRITE)]);
    rig.run(spec::CONTROL_RECEIVE);
    let (_, len) = ring.take_used().unwrap_or_default();
    peek(&rig.memory, DATA + 0x100, len as usize)
}

#[test]
fn a_driver_learns_of_the_second_port_its_name_and_that_it_is_open() {
    let agent = Agent::default();
    let mut rig = rig_of_two(&agent);
    let memory = rig.memory.clone();
    let (mut out, mut back) = (
        Ring::new(&memory, spec::CONTROL_TRANSMIT),
        Ring::new(&memory, spec::CONTROL_RECEIVE),
    );
    assert_eq!(rig.read(0x104), 2);
    tell(&mut rig, &mut out, (0, spec::event::DEVICE_READY, 1));
    assert_eq!(told(&mut rig, &mut back), [0, 0, 0, 0, 1, 0, 1, 0]);
    assert_eq!(told(&mut rig, &mut back), [1, 0, 0, 0, 1, 0, 1, 0]);
    tell(&mut rig, &mut out, (0, spec::event::PORT_READY, 1));
    assert_eq!(told(&mut rig, &mut back), [0, 0, 0, 0, 4, 0, 1, 0]);
    assert_eq!(told(&mut rig, &mut back), [0, 0, 0, 0, 6, 0, 1, 0]);
    tell(&mut rig, &mut out, (1, spec::event::PORT_READY, 1));
    assert_eq!(told(&mut rig, &mut back), b"\x01\0\0\0\x07\0\x01\0org.test.0");
    assert_eq!(told(&mut rig, &mut back), [1, 0, 0, 0, 6, 0, 1, 0]);
    // What the device has to say is asked for by itself.
    assert!(rig.kicks.lock().unwrap().contains(&spec::CONTROL_RECEIVE));
}

#[test]
fn the_second_port_carries_bytes_both_ways_and_tells_when_it_is_opened_and_closed() {
    let agent = Agent::default();
    let mut rig = rig_of_two(&agent);
    let memory = rig.memory.clone();
    let mut control = Ring::new(&memory, spec::CONTROL_TRANSMIT);
    tell(&mut rig, &mut control, (1, spec::event::PORT_OPEN, 1));
    poke(&memory, DATA, b"hello");
    Ring::new(&memory, spec::PORT_TRANSMIT).add(&[(DATA, 5, 0)]);
    rig.run(spec::PORT_TRANSMIT);
    assert_eq!(agent.ends.shown(), b"hello");
    agent.ends.type_in(b"ask");
    let mut ring = Ring::new(&memory, spec::PORT_RECEIVE);
    ring.add(&[(DATA, 64, WRITE)]);
    rig.run(Console::PORT_RECEIVE);
    assert_eq!(ring.take_used(), Some((0, 3)));
    tell(&mut rig, &mut control, (1, spec::event::PORT_OPEN, 1));
    tell(&mut rig, &mut control, (1, spec::event::PORT_OPEN, 0));
    tell(&mut rig, &mut control, (1, spec::event::PORT_OPEN, 1));
    rig.reset();
    assert_eq!(*agent.opened.lock().unwrap(), [true, false, true, false]);
}

#[test]
fn control_messages_that_make_no_sense_are_passed_over_and_do_not_pile_up() {
    let agent = Agent::default();
    let mut rig = rig_of_two(&agent);
    let memory = rig.memory.clone();
    let mut out = Ring::new(&memory, spec::CONTROL_TRANSMIT);
    for message in [
        (u32::MAX, 3, 1),
        (2, 6, 1),
        (1, u16::MAX, 1),
        (0, 6, 1),
        (0, 0, 0),
        (1, 1, 1),
    ] {
        tell(&mut rig, &mut out, message);
        out.take_used();
    }
    out.add(&[(DATA, 3, 0)]);
    out.add(&[(DATA, 8, WRITE)]);
    rig.run(spec::CONTROL_TRANSMIT);
    for _ in 0..100 {
        tell(&mut rig, &mut out, (1, spec::event::PORT_READY, 1));
        out.take_used();
    }
    assert!(agent.opened.lock().unwrap().is_empty());
    let mut back = Ring::new(&memory, spec::CONTROL_RECEIVE);
    let told: Vec<_> = (0..100)
        .map_while(|_| Some(told(&mut rig, &mut back)).filter(|said| !said.is_empty()))
        .collect();
    assert_eq!(told.len(), 16);
    assert_eq!(rig.status() & NEEDS_RESET, 0);
}

#[test]
fn a_driver_that_knows_one_port_has_a_console_all_the_same() {
    let terminal = Terminal::default();
    let console = Console::new(Arc::new(terminal.clone()), Box::new(terminal.clone()));
    let mut rig = Rig::new(console.with_port(Box::new(Agent::default())));
    rig.bring_up(VERSION_1);
    let memory = rig.memory.clone();
    poke(&memory, DATA, b"hi");
    Ring::new(&memory, Console::TRANSMIT).add(&[(DATA, 2, 0)]);
    rig.run(Console::TRANSMIT);
    let mut control = Ring::new(&memory, spec::CONTROL_TRANSMIT);
    tell(&mut rig, &mut control, (0, spec::event::DEVICE_READY, 1));
    assert_eq!((terminal.shown(), control.take_used()), (b"hi".to_vec(), None));
}

#[test]
fn there_is_one_port_without_a_size() {
    let mut rig = rig(&Terminal::default());
    assert_eq!(rig.offered() & 0xffff_ffff & !(3 << 28), 0);
    assert_eq!((rig.read(0x100), rig.read(0x104), rig.queue_count()), (0, 0, 2));
}
