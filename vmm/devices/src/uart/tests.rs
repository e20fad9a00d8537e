//! The UART against well-meaning and hostile guests.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

const DATA: u64 = 0;
const IER: u64 = super::IER as u64;
const IIR: u64 = super::IIR as u64;
const LCR: u64 = super::LCR as u64;
const MCR: u64 = 4;
const LSR: u64 = 5;
const FIFO: usize = 64;

/// All that is outside a UART.
#[derive(Default)]
struct World {
    pulses: AtomicU32,
    room: AtomicU32,
    printed: Mutex<Vec<u8>>,
}

impl IrqLine for World {
    fn trigger(&self) {
        self.pulses.fetch_add(1, Ordering::Relaxed);
    }
}

impl InputRoom for World {
    fn input_room(&self) {
        self.room.fetch_add(1, Ordering::Relaxed);
    }
}

impl ConsoleOutput for World {
    fn write(&self, bytes: &[u8]) {
        self.printed.lock().unwrap().extend_from_slice(bytes);
    }
}

impl World {
    fn pulses(&self) -> u32 {
        self.pulses.load(Ordering::Relaxed)
    }

    fn rooms(&self) -> u32 {
        self.room.load(Ordering::Relaxed)
    }
}

fn uart() -> (Uart, Arc<World>) {
    let world = Arc::new(World::default());
    (Uart::new(world.clone(), world.clone(), world.clone()), world)
}

fn read(uart: &mut Uart, offset: u64) -> u8 {
    let mut data = [0xee];
    uart.read(offset, &mut data);
    data[0]
}

fn read_all(uart: &mut Uart) -> Vec<u8> {
    std::iter::from_fn(|| (read(uart, LSR) & 1 != 0).then(|| read(uart, DATA))).collect()
}

#[test]
fn what_the_guest_prints_reaches_the_console() {
    let (mut uart, world) = uart();
    uart.write(DATA, b"h");
    uart.write(DATA, b"i");
    assert_eq!(*world.printed.lock().unwrap(), b"hi");
}

#[test]
fn input_is_read_in_order_and_interrupts_once() {
    let (mut uart, world) = uart();
    uart.write(IER, &[1]);
    assert_eq!(uart.push_input(b"ls\r"), 3);
    assert_eq!(world.pulses(), 1);
    assert_eq!(read(&mut uart, IIR) & 0xf, 4);
    assert_eq!(read_all(&mut uart), b"ls\r");
    assert_eq!(world.rooms(), 1);
}

#[test]
fn a_driver_that_stops_reading_early_is_told_that_there_is_more() {
    let (mut uart, _world) = uart();
    uart.write(IER, &[1]);
    uart.push_input(b"abc");
    assert_eq!(read(&mut uart, DATA), b'a');
    assert_eq!(read(&mut uart, IIR) & 0xf, 4, "there is more");
    assert_eq!(read_all(&mut uart), b"bc");
    assert_eq!(read(&mut uart, IIR) & 0xf, 1, "that was all");
}

#[test]
fn input_that_came_while_interrupts_were_off_interrupts_when_they_are_on() {
    let (mut uart, world) = uart();
    uart.push_input(b"x");
    assert_eq!(world.pulses(), 0);
    uart.write(IER, &[1]);
    assert_eq!(world.pulses(), 1);
}

#[test]
fn the_fifo_takes_64_bytes_and_says_when_it_is_empty() {
    let (mut uart, world) = uart();
    let flood = [b'a'; 1000];
    assert_eq!(uart.push_input(&flood), FIFO);
    assert_eq!(uart.push_input(&flood), 0);
    assert_eq!(read_all(&mut uart).len(), FIFO);
    read(&mut uart, DATA);
    assert_eq!(world.rooms(), 1, "an empty FIFO that is read again is no news");
    assert_eq!(uart.push_input(&flood), FIFO);
}

#[test]
fn loopback_echoes_at_most_a_fifo_and_prints_nothing() {
    let (mut uart, world) = uart();
    uart.write(MCR, &[LOOPBACK]);
    for _ in 0..10_000 {
        uart.write(DATA, b"x");
    }
    assert_eq!(uart.push_input(b"typed"), 0);
    assert_eq!(read_all(&mut uart).len(), FIFO);
    assert!(world.printed.lock().unwrap().is_empty());
}

#[test]
fn leaving_loopback_makes_room_for_what_was_typed_meanwhile() {
    let (mut uart, world) = uart();
    uart.write(MCR, &[LOOPBACK]);
    assert_eq!(uart.push_input(b"typed"), 0);
    uart.write(MCR, &[0]);
    uart.write(MCR, &[0]);
    assert_eq!(world.rooms(), 1);
    assert_eq!(uart.push_input(b"typed"), 5);
}

#[test]
fn a_divisor_of_zero_is_just_a_number() {
    let (mut uart, world) = uart();
    uart.write(LCR, &[0x80]);
    uart.write(DATA, &[0]);
    uart.write(IER, &[0]);
    assert_eq!((read(&mut uart, DATA), read(&mut uart, IER)), (0, 0));
    uart.write(LCR, &[3]);
    uart.write(DATA, b"x");
    assert_eq!(*world.printed.lock().unwrap(), b"x");
}

#[test]
fn a_storm_of_interrupt_enables_pulses_no_more_than_the_guest_asks() {
    let (mut uart, world) = uart();
    uart.push_input(b"x");
    for _ in 0..10_000 {
        uart.write(IER, &[0xff]);
    }
    assert_eq!(
        world.pulses(),
        2,
        "one for the input, one for the empty transmitter"
    );
}

#[test]
fn wide_accesses_reach_one_register() {
    let (mut uart, world) = uart();
    for width in [2, 4, 8] {
        let mut data = vec![0xee; width];
        uart.read(LSR, &mut data);
        assert_eq!(
            (data[0], data[1..].iter().all(|&byte| byte == 0)),
            (0x60, true),
            "{width} bytes"
        );
        uart.write(DATA, &vec![b'x'; width]);
    }
    assert_eq!(*world.printed.lock().unwrap(), b"xxx");
}

#[test]
fn beyond_the_eighth_register_there_is_nothing() {
    let (mut uart, world) = uart();
    uart.write(8, b"x");
    uart.write(0x100, b"x");
    assert_eq!(
        (
            read(&mut uart, 8),
            read(&mut uart, 0x100),
            read(&mut uart, u64::MAX)
        ),
        (0, 0, 0)
    );
    assert!(world.printed.lock().unwrap().is_empty());
}

#[test]
fn reset_forgets_input_and_asks_for_more() {
    let (mut uart, world) = uart();
    uart.push_input(&[b'x'; FIFO]);
    uart.write(MCR, &[LOOPBACK]);
    uart.reset();
    assert_eq!((read(&mut uart, LSR), world.rooms()), (0x60, 1));
    assert_eq!(uart.push_input(b"new"), 3);
}

proptest! {
    #[test]
    fn any_sequence_of_accesses_is_harmless_and_bounded(
        accesses in proptest::collection::vec((0u64..10, 0usize..9, any::<Option<u8>>(), 0usize..100), 0..400)
    ) {
        let (mut uart, world) = uart();
        let mut written = 0;
        for (offset, width, value, typed) in accesses {
            let mut data = vec![value.unwrap_or(0); width];
            match value {
                Some(_) => { uart.write(offset, &data); written += 1; }
                None => uart.read(offset, &mut data),
            }
            uart.push_input(&vec![b'x'; typed]);
            prop_assert!(uart.serial.state().in_buffer.len() <= FIFO);
        }
        prop_assert!(world.printed.lock().unwrap().len() <= written);
    }
}
