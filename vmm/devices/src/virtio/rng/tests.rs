//! The entropy device against well-meaning and hostile drivers: checklist E.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::virtio::driver::{DATA, HOLE, NEEDS_RESET, Rig, Ring, WRITE, peek, poke};

/// Fills with `r` and counts.
#[derive(Clone, Default)]
struct Dice {
    thrown: Arc<AtomicUsize>,
    broken: bool,
}

impl EntropySource for Dice {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("broken"));
        }
        buffer.fill(b'r');
        self.thrown.fetch_add(buffer.len(), Ordering::Relaxed);
        Ok(())
    }
}

fn rig(dice: &Dice) -> Rig {
    Rig::up(Rng::new(Box::new(dice.clone())))
}

#[test]
fn the_driver_s_buffers_are_filled() {
    let mut rig = rig(&Dice::default());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 3, WRITE), (DATA + 0x10, 2, WRITE)]);
    rig.run(0);
    assert_eq!(
        (ring.take_used(), peek(&memory, DATA, 4)),
        (Some((0, 5)), b"rrr\0".to_vec())
    );
}

#[test]
fn a_greedy_request_gets_no_more_than_the_limit() {
    let dice = Dice::default();
    let mut rig = rig(&dice);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 0x10_0000, WRITE)]);
    rig.run(0);
    assert_eq!(ring.take_used(), Some((0, 1 << 10)));
    assert_eq!(
        (peek(&memory, DATA + 1023, 2), dice.thrown.load(Ordering::Relaxed)),
        (b"r\0".to_vec(), 1 << 10)
    );
}

#[test]
fn buffers_that_cannot_be_written_get_nothing() {
    let mut rig = rig(&Dice::default());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    poke(&memory, DATA, b"mine");
    ring.add(&[(DATA, 4, 0)]);
    ring.add(&[(DATA, 0, WRITE)]);
    rig.run(0);
    assert_eq!((ring.take_used(), ring.take_used()), (Some((0, 0)), Some((1, 0))));
    assert_eq!(peek(&memory, DATA, 4), b"mine");
}

#[test]
fn a_source_without_bytes_gives_none() {
    let mut rig = rig(&Dice {
        broken: true,
        ..Dice::default()
    });
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 64, WRITE)]);
    rig.run(0);
    assert_eq!(
        (ring.take_used(), peek(&memory, DATA, 1)),
        (Some((0, 0)), vec![0])
    );
}

#[test]
fn a_buffer_outside_ram_stops_the_device() {
    let dice = Dice::default();
    let mut rig = rig(&dice);
    let memory = rig.memory.clone();
    Ring::new(&memory, 0).add(&[(HOLE - 1, 64, WRITE)]);
    rig.run(0);
    assert_eq!(
        (rig.status() & NEEDS_RESET, dice.thrown.load(Ordering::Relaxed)),
        (NEEDS_RESET, 0)
    );
}

/// Time that the test lets pass, and when the alarm is to ring.
#[derive(Clone, Default)]
struct Clock(Arc<Mutex<(Duration, Option<Duration>)>>);

impl Alarm for Clock {
    fn now(&self) -> Duration {
        self.0.lock().unwrap().0
    }

    fn ring_at(&mut self, at: Duration) {
        self.0.lock().unwrap().1 = Some(at);
    }
}

#[test]
fn a_limit_lets_requests_wait_and_answers_each_in_full() {
    let clock = Clock::default();
    let rng = Rng::new(Box::new(Dice::default())).limited(1000, Box::new(clock.clone()));
    let mut rig = Rig::up(rng);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 600, WRITE)]);
    ring.add(&[(DATA, 600, WRITE)]);
    rig.run(0);
    assert_eq!((ring.take_used(), ring.take_used()), (Some((0, 600)), None));
    // A tenth of a second's worth was there; the rest of the first request is a debt of half a second.
    let due = clock.0.lock().unwrap().1.unwrap();
    assert_eq!(due.as_millis(), 500);
    clock.0.lock().unwrap().0 = due;
    rig.run(0);
    assert_eq!(ring.take_used(), Some((1, 600)));
}
