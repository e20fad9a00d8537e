//! Linux's driver on a clock of the test's, and guests that do worse.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::BusDevice;

/// A watchdog behind its function's registers, with all that it is told and tells.
struct Fixture {
    clock: Arc<AtomicU64>,
    /// When it is due.
    timer: Arc<Mutex<Option<Duration>>>,
    bites: Arc<AtomicUsize>,
    watchdog: Arc<Mutex<Watchdog>>,
    function: Function,
    memory: Memory,
}

impl Fixture {
    fn new() -> Self {
        let (clock, timer) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let bites = Arc::new(AtomicUsize::new(0));
        let (time, due, bitten) = (clock.clone(), timer.clone(), bites.clone());
        let now = move || Duration::from_millis(time.load(Ordering::Relaxed));
        let since = now.clone();
        let watchdog = Arc::new(Mutex::new(Watchdog::new(
            now,
            move |rest| *due.lock().unwrap() = rest.map(|rest| since() + rest),
            move || {
                bitten.fetch_add(1, Ordering::Relaxed);
            },
        )));
        Self {
            function: function(&watchdog),
            memory: Memory(watchdog.clone()),
            clock,
            timer,
            bites,
            watchdog,
        }
    }

    /// Time goes on, and the timer with it, which may be due several times.
    fn pass(&self, milliseconds: u64) {
        let end = self.now() + milliseconds;
        let due = || {
            self.wait()
                .map(|wait| self.now() + u64::try_from(wait.as_millis()).unwrap() + 1)
        };
        while let Some(due) = due().filter(|due| *due <= end) {
            self.clock.store(due, Ordering::Relaxed);
            self.watchdog.lock().unwrap().time_is_up();
        }
        self.clock.store(end, Ordering::Relaxed);
    }

    fn wait(&self) -> Option<Duration> {
        let now = Duration::from_millis(self.now());
        let due = *self.timer.lock().unwrap();
        due.map(|due| due.saturating_sub(now))
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn bites(&self) -> usize {
        self.bites.load(Ordering::Relaxed)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.memory.write(offset, &value.to_le_bytes());
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.memory.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn unlock(&mut self) {
        self.memory.write(0xc, &[0x80]);
        self.memory.write(0xc, &[0x86]);
    }

    fn preload(&mut self, first: u32, second: u32) {
        self.unlock();
        self.write(0x0, first);
        self.unlock();
        self.write(0x4, second);
    }

    fn feed(&mut self) {
        self.unlock();
        self.memory.write(0xc, &0x100u16.to_le_bytes());
    }

    fn lock_register(&mut self) -> u8 {
        let mut data = [0];
        self.function.read(0x68, &mut data);
        data[0]
    }

    /// As Linux does for a heartbeat of two seconds: each stage a second.
    fn arm(&mut self) {
        self.function.write(0x60, &0x0003u16.to_le_bytes());
        self.preload(1 << 10, 1 << 10);
        self.feed();
        self.function.write(0x68, &[0x02]);
    }
}

#[test]
fn it_is_the_watchdog_that_linux_looks_for() {
    let mut chip = Fixture::new();
    let mut id = [0; 4];
    chip.function.read(0, &mut id);
    assert_eq!(id, [0x86, 0x80, 0xab, 0x25]);
    chip.function.write(0x10, &u32::MAX.to_le_bytes());
    let mut bar = [0; 4];
    chip.function.read(0x10, &mut bar);
    assert_eq!(u32::from_le_bytes(bar), !0xf);
    assert_eq!(
        (chip.read(0), chip.read(4), chip.read(0xc)),
        (PRELOAD, PRELOAD, 0)
    );
}

#[test]
fn a_guest_that_does_not_feed_it_is_bitten_once_after_both_stages() {
    let mut chip = Fixture::new();
    chip.arm();
    chip.pass(1100);
    assert_eq!((chip.bites(), chip.read(0x8)), (0, 1));
    chip.pass(800);
    assert_eq!(chip.bites(), 0);
    chip.pass(10_000);
    assert_eq!((chip.bites(), chip.wait()), (1, None));
    assert_eq!((chip.read(0xc), chip.lock_register()), (0x200, 0));
    chip.unlock();
    chip.write(0xc, 0x200);
    assert_eq!(chip.read(0xc), 0);
}

#[test]
fn a_guest_that_feeds_it_lives() {
    let mut chip = Fixture::new();
    chip.arm();
    for _ in 0..20 {
        chip.pass(1900);
        chip.feed();
    }
    assert_eq!(chip.bites(), 0);
    chip.pass(3000);
    assert_eq!(chip.bites(), 1);
}

#[test]
fn food_without_the_magic_is_none() {
    let mut chip = Fixture::new();
    chip.arm();
    chip.pass(1500);
    chip.write(0xc, 0x100);
    chip.write(0x0, 1);
    chip.write(0xc, 0x80);
    chip.write(0xc, 0x100);
    chip.write(0xc, 0x86);
    chip.write(0xc, 0x100);
    assert_eq!(chip.read(0), 1 << 10);
    chip.pass(1000);
    assert_eq!(chip.bites(), 1);
}

#[test]
fn nothing_counts_before_it_is_switched_on_or_after_it_is_switched_off() {
    let mut chip = Fixture::new();
    chip.preload(1, 1);
    chip.feed();
    assert_eq!(chip.wait(), None);
    chip.arm();
    chip.pass(500);
    chip.function.write(0x68, &[0]);
    assert_eq!((chip.wait(), chip.lock_register()), (None, 0));
    chip.pass(5000);
    assert_eq!(chip.bites(), 0);
}

#[test]
fn once_locked_it_stays_on() {
    let mut chip = Fixture::new();
    chip.arm();
    chip.function.write(0x68, &[0x03]);
    chip.function.write(0x68, &[0x00]);
    assert_eq!(chip.lock_register(), 0x03);
    chip.pass(5000);
    assert_eq!(chip.bites(), 1);
}

#[test]
fn a_guest_that_asks_for_no_harm_gets_none_and_may_let_it_run_on() {
    let mut chip = Fixture::new();
    chip.arm();
    chip.function.write(0x60, &0x0023u16.to_le_bytes());
    chip.pass(5000);
    assert_eq!((chip.bites(), chip.wait()), (0, None));
    chip.function.write(0x68, &[0]);
    chip.function.write(0x68, &[0x06]);
    chip.pass(50_000);
    assert!(chip.wait().is_some());
    assert_eq!(chip.bites(), 0);
}

#[test]
fn the_fast_rate_is_a_thousandth_and_no_stage_is_shorter_than_a_millisecond() {
    let mut chip = Fixture::new();
    chip.function.write(0x60, &0x0007u16.to_le_bytes());
    chip.preload(PRELOAD, 0);
    chip.function.write(0x68, &[0x02]);
    assert_eq!(chip.wait(), Some(CLOCK * 32 * PRELOAD));
    chip.pass(1007);
    assert_eq!(chip.wait(), Some(SHORTEST));
}

#[test]
fn its_time_stands_still_with_the_machine() {
    let mut chip = Fixture::new();
    chip.arm();
    chip.pass(900);
    chip.watchdog.lock().unwrap().stand_still();
    assert_eq!(chip.wait(), None);
    chip.clock.fetch_add(1_000_000, Ordering::Relaxed);
    chip.watchdog.lock().unwrap().time_is_up();
    chip.watchdog.lock().unwrap().go_on();
    chip.pass(800);
    assert_eq!(chip.bites(), 0);
    chip.pass(1000);
    assert_eq!(chip.bites(), 1);
}

#[test]
fn accesses_of_other_widths_reach_the_same_registers() {
    let mut chip = Fixture::new();
    chip.function.write(0x60, &0xffff_ffffu32.to_le_bytes());
    chip.function.write(0x68, &0xffff_fffdu32.to_le_bytes());
    let mut both = [[0; 4]; 2];
    chip.function.read(0x60, &mut both[0]);
    chip.function.read(0x68, &mut both[1]);
    assert_eq!(both, [[0x27, 0, 0, 0], [0x05, 0, 0, 0]]);
    let mut wide = [0; 8];
    chip.memory.read(0, &mut wide);
    assert_eq!(wide, [0xff; 8]);
}

proptest! {
    #[test]
    fn any_accesses_are_survived(
        accesses in proptest::collection::vec((any::<bool>(), 0u16..0x100, proptest::collection::vec(any::<u8>(), 0..9), 0u64..5000), 0..64),
    ) {
        let mut chip = Fixture::new();
        for (in_memory, offset, mut data, time) in accesses {
            if in_memory {
                chip.memory.write(u64::from(offset) % 20, &data);
                chip.memory.read(u64::from(offset) % 20, &mut data);
            } else {
                chip.function.write(offset, &data);
                chip.function.read(offset, &mut data);
            }
            chip.pass(time);
            prop_assert!(chip.wait().is_none_or(|wait| wait <= CLOCK * SLOW * PRELOAD));
        }
    }
}
