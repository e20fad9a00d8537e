//! The PLIC, checked against the specification and against hostile guests.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

/// One hart's input, and how often it changed.
#[derive(Default)]
struct Pin {
    high: AtomicBool,
    changes: AtomicU32,
}

impl LevelLine for Pin {
    fn set(&self, high: bool) {
        self.high.store(high, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}

struct Board {
    plic: Arc<Mutex<Plic>>,
    pins: Vec<Arc<Pin>>,
}

impl Board {
    /// Two harts, 40 sources; source n has priority 1 and is enabled for hart 0.
    fn new() -> Self {
        let pins = vec![Arc::new(Pin::default()), Arc::new(Pin::default())];
        let outputs = pins.iter().map(|pin| pin.clone() as Arc<dyn LevelLine>).collect();
        let board = Self {
            plic: Arc::new(Mutex::new(Plic::new(40, outputs))),
            pins,
        };
        for source in 1..=40 {
            board.write(4 * source, 1);
        }
        board.enable(0, [u32::MAX, u32::MAX]);
        board
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.plic.lock().unwrap().read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.plic.lock().unwrap().write(offset, &value.to_le_bytes());
    }

    fn enable(&self, hart: u64, words: [u32; 2]) {
        self.write(0x2000 + 0x80 * hart, words[0]);
        self.write(0x2004 + 0x80 * hart, words[1]);
    }

    fn trigger(&self, source: u32) {
        PlicSource::new(self.plic.clone(), source).trigger();
    }

    fn claim(&self, hart: u64) -> u32 {
        self.read(0x20_0004 + 0x1000 * hart)
    }

    fn complete(&self, hart: u64, source: u32) {
        self.write(0x20_0004 + 0x1000 * hart, source);
    }

    fn set_threshold(&self, hart: u64, threshold: u32) {
        self.write(0x20_0000 + 0x1000 * hart, threshold);
    }

    fn high(&self, hart: usize) -> bool {
        self.pins[hart].high.load(Ordering::Relaxed)
    }
}

#[test]
fn an_edge_is_pending_until_claimed_and_claimed_until_completed() {
    let board = Board::new();
    board.trigger(10);
    assert!(board.high(0));
    assert_eq!(board.read(0x1000), 1 << 10);
    assert_eq!(board.claim(0), 10);
    assert!(!board.high(0));
    assert_eq!((board.claim(0), board.read(0x1000)), (0, 0));
    board.complete(0, 10);
    assert!(!board.high(0));
}

#[test]
fn an_edge_during_service_is_not_lost() {
    let board = Board::new();
    board.trigger(10);
    assert_eq!(board.claim(0), 10);
    board.trigger(10);
    board.trigger(10);
    assert_eq!((board.high(0), board.claim(0)), (false, 0));
    board.complete(0, 10);
    assert_eq!((board.high(0), board.claim(0), board.claim(0)), (true, 10, 0));
}

#[test]
fn the_highest_priority_is_claimed_first_and_the_lowest_number_breaks_ties() {
    let board = Board::new();
    board.write(4 * 33, 5);
    for source in [7, 33, 3] {
        board.trigger(source);
    }
    assert_eq!(
        [board.claim(0), board.claim(0), board.claim(0), board.claim(0)],
        [33, 3, 7, 0]
    );
}

#[test]
fn the_threshold_masks_the_line_and_not_the_claim() {
    let board = Board::new();
    board.set_threshold(0, 1);
    board.trigger(5);
    assert!(!board.high(0));
    board.set_threshold(0, 0);
    assert!(board.high(0));
    board.set_threshold(0, 7);
    assert!(!board.high(0));
    assert_eq!(board.claim(0), 5);
}

#[test]
fn priority_zero_and_disabled_sources_never_interrupt() {
    let board = Board::new();
    board.write(4 * 5, 0);
    board.enable(0, [!(1 << 6), 0]);
    board.trigger(5);
    board.trigger(6);
    assert_eq!((board.high(0), board.claim(0)), (false, 0));
    assert_eq!(board.read(0x1000), 1 << 5 | 1 << 6);
    board.write(4 * 5, 1);
    assert!(board.high(0));
}

#[test]
fn one_edge_for_two_harts_is_claimed_by_one() {
    let board = Board::new();
    board.enable(1, [1 << 9, 0]);
    board.trigger(9);
    assert!(board.high(0) && board.high(1));
    assert_eq!((board.claim(1), board.claim(0)), (9, 0));
    assert!(!board.high(0) && !board.high(1));
}

#[test]
fn completing_a_source_that_is_not_enabled_here_is_ignored() {
    let board = Board::new();
    board.trigger(9);
    assert_eq!(board.claim(0), 9);
    board.trigger(9);
    board.complete(1, 9);
    assert_eq!(board.claim(0), 0);
    board.complete(0, 9);
    assert_eq!(board.claim(0), 9);
}

#[test]
fn a_hart_that_was_started_again_gets_its_line_again() {
    let board = Board::new();
    board.trigger(5);
    let forget = || board.pins[0].high.store(false, Ordering::Relaxed);
    // KVM clears a hart's pending interrupts when it is started; its driver then sets the threshold.
    forget();
    board.set_threshold(0, 0);
    assert!(board.high(0));
    // And if it does not, the next interrupt brings the line back.
    forget();
    board.trigger(6);
    assert!(board.high(0));
}

#[test]
fn lines_are_only_touched_where_they_may_have_to_move() {
    let board = Board::new();
    for source in [1, 2, 3, 1] {
        board.trigger(source);
    }
    for _ in 0..4 {
        board.claim(0);
    }
    // Up, again with each further edge, down.
    assert_eq!(board.pins[0].changes.load(Ordering::Relaxed), 5);
    assert_eq!(board.pins[1].changes.load(Ordering::Relaxed), 0);
}

#[test]
fn sources_and_harts_that_do_not_exist_cannot_be_reached() {
    let board = Board::new();
    for source in [0, 41, 1023, 1024, u32::MAX] {
        board.trigger(source);
        board.complete(0, source);
    }
    assert_eq!(
        (board.read(0x1000), board.read(0x1004), board.high(0)),
        (0, 0, false)
    );
    board.enable(0, [u32::MAX, u32::MAX]);
    assert_eq!(
        (board.read(0x2000), board.read(0x2004)),
        (u32::MAX - 1, (1 << 9) - 1)
    );
    for offset in [
        0,
        4 * 41,
        0x2000 + 0x80 * 2,
        0x20_0000 + 0x1000 * 2,
        0x5f_fffc,
        0x20_0008,
    ] {
        board.write(offset, 1);
        assert_eq!(board.read(offset), 0, "{offset:#x}");
    }
}

#[test]
fn priorities_and_thresholds_keep_three_bits() {
    let board = Board::new();
    board.write(4, u32::MAX);
    board.set_threshold(0, u32::MAX);
    assert_eq!((board.read(4), board.read(0x20_0000)), (7, 7));
}

#[test]
fn odd_widths_read_all_ones_and_write_nothing() {
    let board = Board::new();
    let mut plic = board.plic.lock().unwrap();
    let mut data = [0; 8];
    plic.read(4, &mut data);
    assert_eq!(data, [0xff; 8]);
    plic.read(6, &mut data[..4]);
    assert_eq!(data[..4], [0xff; 4]);
    plic.write(4, &[0]);
    plic.write(4, &[0; 8]);
    let mut word = [0; 4];
    plic.read(4, &mut word);
    assert_eq!(word, [1, 0, 0, 0]);
}

#[test]
fn reset_lowers_every_line_and_forgets_all() {
    let board = Board::new();
    board.trigger(4);
    board.plic.lock().unwrap().reset();
    assert!(!board.high(0));
    assert_eq!((board.read(0x1000), board.read(0x2000), board.read(4)), (0, 0, 0));
}

/// What a guest or a device may do to the controller.
#[derive(Debug, Clone)]
enum Step {
    Trigger(u32),
    Read(u64, usize),
    Write(u64, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let places = prop_oneof![
        0u64..0x1100,
        0x2000u64..0x2200,
        (0u64..3, 0u64..8).prop_map(|(hart, register)| 0x20_0000 + 0x1000 * hart + 4 * (register % 3)),
        any::<u64>(),
    ];
    let offset = (places, 0u64..8).prop_map(|(place, odd)| if odd == 0 { place } else { place & !3 });
    prop_oneof![
        (0u32..50).prop_map(Step::Trigger),
        (offset.clone(), 0usize..9).prop_map(|(offset, width)| Step::Read(offset, width)),
        (offset, prop_oneof![0u32..50, any::<u32>()]).prop_map(|(offset, value)| Step::Write(offset, value)),
    ]
}

proptest! {
    #[test]
    fn after_any_sequence_a_line_is_high_exactly_when_a_source_waits_above_the_threshold(
        steps in proptest::collection::vec(step(), 0..200)
    ) {
        let board = Board::new();
        for step in steps {
            match step {
                Step::Trigger(source) => board.trigger(source),
                Step::Read(offset, width) => board.plic.lock().unwrap().read(offset, &mut vec![0; width]),
                Step::Write(offset, value) => board.write(offset, value),
            }
        }
        for hart in 0..2 {
            board.set_threshold(hart, 0);
        }
        for (hart, index) in [(0, 0), (1, 1)] {
            let high = board.high(index);
            let first = board.claim(hart);
            prop_assert_eq!(high, first != 0);
            while board.claim(hart) != 0 {}
            prop_assert!(!board.high(index));
        }
    }
}

#[test]
fn a_level_that_stays_high_is_due_again_after_completion() {
    let board = Board::new();
    let line = PlicSource::new(board.plic.clone(), 7);
    line.set(true);
    assert!(board.high(0));
    assert_eq!((board.claim(0), board.claim(0), board.high(0)), (7, 0, false));
    board.complete(0, 7);
    assert!(board.high(0));
    assert_eq!(board.claim(0), 7);
    line.set(false);
    board.complete(0, 7);
    assert_eq!((board.claim(0), board.high(0)), (0, false));
}

#[test]
fn a_level_that_is_lowered_before_it_is_claimed_leaves_nothing_behind() {
    let board = Board::new();
    let line = PlicSource::new(board.plic.clone(), 7);
    line.set(true);
    assert_eq!(board.read(0x1000), 1 << 7);
    line.set(false);
    assert_eq!((board.read(0x1000), board.claim(0), board.high(0)), (0, 0, false));
    PlicSource::new(board.plic.clone(), 41).set(true);
    assert!(!board.high(0));
}
