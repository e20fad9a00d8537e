//! Rings and interrupts against well-meaning and hostile drivers: checklist A8 to A15.

use proptest::prelude::*;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_STATUS};

use super::*;
use crate::virtio::device::drain;
use crate::virtio::driver::{
    DATA, DRIVER_OK, FEATURES_OK, HIGH_RAM, HOLE, NEEDS_RESET, RAM, RING_SIZE, Rig, Ring, WRITE, descriptor,
    peek, poke,
};

/// Called for each chain, before anything is written to it.
type Meddle = Box<dyn FnMut(&GuestMemoryMmap) + Send>;

/// A device that writes an `x` into each byte it may write, up to 64 a chain.
struct Filler(Meddle);

impl VirtioDevice for Filler {
    fn id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[RING_SIZE]
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn process(&mut self, _: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        drain(queue, memory, |buffers| {
            (self.0)(memory);
            Ok(u32::try_from(buffers.parts().1.write(&[b'x'; 64])).unwrap())
        })
    }
}

/// A device whose driver, so many times, makes the first chain available again just when nothing was left.
struct Latecomer(u32);

impl VirtioDevice for Latecomer {
    fn id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[RING_SIZE]
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn process(&mut self, _: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        let stop = drain(queue, memory, |_| Ok(0))?;
        if self.0 > 0 {
            self.0 -= 1;
            Ring::watch(memory, 0).offer(0);
        }
        Ok(stop)
    }
}

fn filler() -> Filler {
    Filler(Box::new(|_| {}))
}

fn filler_with(features: u64) -> Rig {
    let mut rig = Rig::new(filler());
    rig.bring_up(features);
    rig
}

/// The device has given up on its driver, said so, and does nothing more.
fn assert_stopped(rig: &mut Rig, used: u16) {
    assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(
        rig.interrupt_status() & 2,
        2,
        "a configuration change is announced"
    );
    let pulses = rig.irq.count();
    rig.run(0);
    let memory = rig.memory.clone();
    assert_eq!(Ring::watch(&memory, 0).used_idx(), used);
    assert_eq!(rig.irq.count(), pulses);
}

#[test]
fn chains_are_used_in_order_and_announced_once_a_batch() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 16, WRITE)]);
    ring.add(&[(DATA + 0x100, 4, 0), (DATA + 0x200, 2, WRITE)]);
    rig.run(0);
    assert_eq!(
        [ring.take_used(), ring.take_used(), ring.take_used()],
        [Some((0, 16)), Some((1, 2)), None]
    );
    assert_eq!((rig.irq.count(), rig.interrupt_status()), (1, 1));
    assert_eq!(peek(&memory, DATA, 17), b"xxxxxxxxxxxxxxxx\0");
}

#[test]
fn rings_wrap_around() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    for turn in 0..5 * RING_SIZE {
        ring.add(&[(DATA, 1, WRITE)]);
        rig.run(0);
        assert_eq!(ring.take_used(), Some((u32::from(turn % RING_SIZE), 1)));
    }
}

#[test]
fn a_run_without_work_interrupts_nobody() {
    let mut rig = Rig::up(filler());
    for _ in 0..10_000 {
        rig.run(0);
    }
    assert_eq!((rig.irq.count(), rig.kicked()), (0, vec![]));
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.set_avail_flags(1);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((ring.used_idx(), rig.irq.count()), (1, 0));
    ring.set_avail_flags(0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((ring.used_idx(), rig.irq.count()), (2, 1));
}

#[test]
fn kicks_are_disabled_during_work_and_enabled_after_it() {
    let mut rig = Rig::new(Filler(Box::new(|memory| {
        assert_eq!(Ring::watch(memory, 0).used_flags(), 1);
    })));
    rig.bring_up(VERSION_1);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((ring.used_idx(), ring.used_flags()), (1, 0));
}

#[test]
fn event_indices_say_when_to_interrupt_and_when_to_kick() {
    let mut rig = filler_with(VERSION_1 | EVENT_IDX);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.set_used_event(1);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((rig.irq.count(), ring.avail_event()), (0, 1));
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((rig.irq.count(), ring.avail_event()), (1, 2));
}

#[test]
fn nonsense_in_used_event_costs_interrupts_and_no_more() {
    let mut rig = filler_with(VERSION_1 | EVENT_IDX);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    for nonsense in [u16::MAX, 0x8000, 500, 0] {
        ring.set_used_event(nonsense);
        ring.add(&[(DATA, 1, WRITE)]);
        rig.run(0);
    }
    assert_eq!((ring.used_idx(), rig.status() & NEEDS_RESET), (4, 0));
}

#[test]
fn an_available_index_too_far_ahead_stops_the_device() {
    for idx in [RING_SIZE + 1, 0x8000, u16::MAX] {
        let mut rig = Rig::up(filler());
        let memory = rig.memory.clone();
        Ring::new(&memory, 0).set_avail_idx(idx);
        rig.run(0);
        assert_stopped(&mut rig, 0);
    }
}

#[test]
fn an_available_index_that_goes_back_stops_the_device() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    ring.set_avail_idx(1);
    rig.run(0);
    assert_stopped(&mut rig, 2);
}

#[test]
fn a_head_beyond_the_table_stops_the_device() {
    for head in [RING_SIZE, u16::MAX] {
        let mut rig = Rig::up(filler());
        let memory = rig.memory.clone();
        Ring::new(&memory, 0).offer(head);
        rig.run(0);
        assert_stopped(&mut rig, 0);
    }
}

#[test]
fn chains_before_a_malformed_one_are_used() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    ring.add(&[(HOLE, 1, WRITE)]);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_stopped(&mut rig, 1);
}

#[test]
fn reset_brings_a_stopped_device_back() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    Ring::new(&memory, 0).offer(RING_SIZE);
    rig.run(0);
    rig.advance(DRIVER_OK);
    assert_stopped(&mut rig, 0);
    rig.write(VIRTIO_MMIO_STATUS, 0);
    rig.bring_up(VERSION_1);
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((ring.take_used(), rig.status() & NEEDS_RESET), (Some((0, 1)), 0));
}

#[test]
fn a_queue_of_a_bad_size_does_not_start() {
    for size in [0, 3, 12, u32::from(RING_SIZE) * 2, 0x1_0000, 0x1_0010, u32::MAX] {
        let mut rig = Rig::new(filler());
        rig.negotiate(VERSION_1);
        rig.place_queue(0, size, RAM, RAM + 0x1000, RAM + 0x2000);
        rig.set_ready(0, true);
        assert!(!rig.is_ready(0), "{size}");
        assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET, "{size}");
        assert_eq!(rig.irq.count(), 0, "no interrupt before DRIVER_OK");
    }
}

#[test]
fn misaligned_rings_do_not_start() {
    for (desc, avail, used) in [(8, 0, 0), (0, 1, 0), (0, 0, 2), (1, 1, 1)] {
        let mut rig = Rig::new(filler());
        rig.negotiate(VERSION_1);
        rig.place_queue(0, 16, RAM + desc, RAM + 0x1000 + avail, RAM + 0x2000 + used);
        rig.set_ready(0, true);
        assert!(!rig.is_ready(0), "{desc} {avail} {used}");
    }
}

#[test]
fn rings_outside_ram_do_not_start() {
    let good = [RAM, RAM + 0x1000, RAM + 0x2000];
    for bad in [0, 0x1000_0000, HOLE, HOLE - 16, HIGH_RAM - 16, !0xf] {
        for ring in 0..3 {
            let mut place = good;
            place[ring] = bad;
            let mut rig = Rig::new(filler());
            rig.negotiate(VERSION_1);
            rig.place_queue(0, 16, place[0], place[1], place[2]);
            rig.set_ready(0, true);
            assert!(!rig.is_ready(0), "ring {ring} at {bad:#x}");
        }
    }
}

#[test]
fn a_queue_that_is_ready_cannot_be_moved() {
    let mut rig = Rig::up(filler());
    rig.place_queue(0, 4, HOLE, HOLE, HOLE);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!(ring.take_used(), Some((0, 1)));
    rig.set_ready(0, false);
    rig.set_ready(0, true);
    assert!(rig.is_ready(0), "nor for the next start");
}

#[test]
fn reset_takes_interrupts_back() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    Ring::new(&memory, 0).add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!(rig.interrupt_status(), 1);
    rig.write(VIRTIO_MMIO_STATUS, 0);
    assert_eq!(rig.interrupt_status(), 0);
}

#[test]
fn a_queue_does_not_start_before_the_features_are_agreed_upon() {
    let mut rig = Rig::new(filler());
    rig.start_queues();
    assert!(!rig.is_ready(0));
    rig.negotiate(VERSION_1);
    rig.start_queues();
    assert!(rig.is_ready(0));
}

#[test]
fn a_queue_stopped_and_started_again_begins_with_empty_rings() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    Ring::new(&memory, 0).add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    rig.set_ready(0, false);
    rig.run(0);
    rig.start_queues();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((ring.take_used(), ring.take_used()), (Some((0, 1)), None));
}

#[test]
fn rings_on_top_of_each_other_harm_only_their_driver() {
    let mut rig = Rig::new(filler());
    rig.negotiate(VERSION_1);
    rig.place_queue(0, 16, DATA, DATA, DATA);
    rig.set_ready(0, true);
    rig.advance(DRIVER_OK);
    let memory = rig.memory.clone();
    memory
        .write_obj(descriptor(1 << 16, 1, WRITE, 0), GuestAddress(DATA))
        .unwrap();
    rig.run(0);
    rig.run(0);
    assert_eq!(peek(&memory, DATA - 16, 16), [0; 16]);
    assert_eq!(peek(&memory, DATA + 0x200, 16), [0; 16]);
}

#[test]
fn a_ring_inside_its_own_buffer_ends() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(ring.avail(), 64, WRITE)]);
    rig.run(0);
    assert_stopped(&mut rig, 1);
}

#[test]
fn a_descriptor_changed_in_flight_changes_nothing() {
    let mut rig = Rig::new(Filler(Box::new(|memory| {
        Ring::watch(memory, 0).store(0, descriptor(DATA + 0x1000, 64, WRITE, 0));
    })));
    rig.bring_up(VERSION_1);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 4, WRITE)]);
    rig.run(0);
    assert_eq!(ring.take_used(), Some((0, 4)));
    assert_eq!(
        (peek(&memory, DATA, 5), peek(&memory, DATA + 0x1000, 1)),
        (b"xxxx\0".to_vec(), vec![0])
    );
}

#[test]
fn a_driver_that_keeps_adding_does_not_keep_the_event_loop() {
    let mut rig = Rig::new(Filler(Box::new(|memory| Ring::watch(memory, 0).offer(0))));
    rig.bring_up(VERSION_1);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((ring.used_idx(), rig.kicked()), (RING_SIZE, vec![0]));
    rig.run(0);
    assert_eq!((ring.used_idx(), rig.kicked()), (2 * RING_SIZE, vec![0]));
}

#[test]
fn a_driver_that_adds_behind_the_last_look_is_looked_at_again() {
    let mut rig = Rig::new(Latecomer(1));
    rig.bring_up(VERSION_1);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((ring.used_idx(), rig.kicked()), (2, vec![]));
}

#[test]
fn a_driver_that_is_always_late_does_not_keep_the_event_loop() {
    let mut rig = Rig::new(Latecomer(1000));
    rig.bring_up(VERSION_1);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!(
        (usize::from(ring.used_idx()), rig.kicked()),
        (MAX_ROUNDS, vec![0])
    );
}

#[test]
fn a_turn_is_bounded_in_bytes() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    for _ in 0..RING_SIZE {
        ring.add(&[(DATA, 1 << 20, WRITE)]);
    }
    rig.run(0);
    assert_eq!((ring.used_idx(), rig.kicked(), rig.irq.count()), (4, vec![0], 1));
    rig.run(0);
    assert_eq!((ring.used_idx(), rig.kicked()), (8, vec![0]));
}

#[test]
fn an_interrupt_between_acknowledgement_and_new_work_is_not_lost() {
    let mut rig = Rig::up(filler());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    let seen = rig.interrupt_status();
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    rig.write(VIRTIO_MMIO_INTERRUPT_ACK, seen);
    assert_eq!((rig.irq.count(), ring.used_idx()), (2, 2));
}

proptest! {
    #[test]
    fn rings_placed_anywhere_neither_panic_nor_hang(
        size in prop_oneof![Just(16u32), any::<u32>()],
        place in proptest::array::uniform3(prop_oneof![
            (0u64..0x400).prop_map(|offset| DATA + offset * 4),
            any::<u64>(),
        ]),
        content in proptest::collection::vec(any::<u8>(), 0x1000),
        idx in 0u16..20,
    ) {
        let mut rig = Rig::new(filler());
        poke(&rig.memory, DATA, &content);
        rig.negotiate(VERSION_1 | EVENT_IDX);
        rig.place_queue(0, size, place[0], place[1], place[2]);
        rig.set_ready(0, true);
        rig.advance(DRIVER_OK);
        // The available index decides whether anything happens at all.
        let _ = rig.memory.write_obj(idx, GuestAddress(place[1].wrapping_add(2)));
        for _ in 0..4 {
            rig.run(0);
        }
        prop_assert_eq!(rig.status() & FEATURES_OK, FEATURES_OK);
        prop_assert!(rig.irq.count() <= 4 * 5);
    }
}
