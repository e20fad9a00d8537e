//! Units that come and go.

use super::*;

/// Gives the driver's buffers for events; their ring.
fn listen<'a>(rig: &mut Rig, memory: &'a GuestMemoryMmap, buffers: u64) -> Ring<'a> {
    (0..3).for_each(|queue| rig.set_ready(queue, false));
    rig.start_queues();
    let mut ring = Ring::new(memory, EVENTS);
    for buffer in 0..buffers {
        ring.add(&[(BUFFER + 16 * buffer, 16, WRITE)]);
    }
    rig.run(EVENTS);
    ring
}

/// The event in this buffer: kind, LUN, reason.
fn event(memory: &GuestMemoryMmap, buffer: u64) -> (u32, [u8; 8], u32) {
    let bytes = peek(memory, BUFFER + 16 * buffer, 16);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    (word(0), bytes[4..12].try_into().unwrap(), word(12))
}

fn lun(number: u8) -> [u8; 8] {
    [1, 0, 0, number, 0, 0, 0, 0]
}

#[test]
fn a_driver_is_told_of_each_unit_that_comes_or_goes() {
    let (mut rig, handle) = up(vec![unit(&Platter::new())]);
    let memory = rig.memory.clone();
    let mut ring = listen(&mut rig, &memory, 3);
    assert!(ring.take_used().is_none());
    handle.insert(5, unit(&Platter::new())).unwrap();
    handle.remove(5);
    rig.run(EVENTS);
    assert_eq!(ring.take_used(), Some((0, 16)));
    assert_eq!(ring.take_used(), Some((1, 16)));
    assert_eq!(event(&memory, 0), (1, lun(5), 1));
    assert_eq!(event(&memory, 1), (1, lun(5), 2));
    assert!(ring.take_used().is_none());
    // The other unit says so, too, and goes on.
    assert_eq!(ask(&mut rig, 0, &[0], Data::None), check([6, 0x3f, 0x0e], 0));
    assert_eq!(ask(&mut rig, 0, &[0], Data::None), good(0));
}

#[test]
fn a_unit_that_comes_later_is_like_one_from_the_start() {
    let (mut rig, handle) = up(vec![]);
    let platter = Platter::new();
    assert_eq!(ask(&mut rig, 0, &[0], Data::None).response, 3);
    handle.insert(0, unit(&platter)).unwrap();
    assert_eq!(handle.insert(0, unit(&platter)), Err(UnitError(0)));
    assert_eq!(handle.insert(64, unit(&platter)), Err(UnitError(64)));
    assert_eq!(ask(&mut rig, 0, &[0], Data::None), check([6, 0x29, 0], 0));
    assert_eq!(ask(&mut rig, 0, &ten(READ, 2, 1), Data::In(512)), good(512));
    assert_eq!(peek(&rig.memory, BUFFER, 512), [3; 512]);
}

#[test]
fn news_wait_for_buffers_and_those_that_are_too_many_are_said_to_be_missed() {
    let (mut rig, handle) = up(vec![]);
    let memory = rig.memory.clone();
    let mut ring = listen(&mut rig, &memory, 0);
    for _ in 0..spec::MAX_EVENTS {
        handle.insert(1, unit(&Platter::new())).unwrap();
        handle.remove(1);
    }
    ring.add(&[(BUFFER, 16, WRITE)]);
    ring.add(&[(BUFFER + 16, 16, WRITE)]);
    rig.run(EVENTS);
    assert_eq!(event(&memory, 0), (1 | 1 << 31, lun(1), 1));
    assert_eq!(event(&memory, 1), (1, lun(1), 2));
}

#[test]
fn a_driver_that_does_not_want_news_gets_none_and_one_that_comes_up_looks_for_itself() {
    let handle = ScsiHandle::default();
    let mut rig = Rig::new(Scsi::new(handle.clone()));
    rig.bring_up(VERSION_1);
    let memory = rig.memory.clone();
    let mut ring = listen(&mut rig, &memory, 2);
    handle.insert(0, unit(&Platter::new())).unwrap();
    rig.run(EVENTS);
    assert!(ring.take_used().is_none());
    rig.reset();
    rig.come_up();
    let mut ring = listen(&mut rig, &memory, 2);
    assert!(ring.take_used().is_none());
    handle.remove(0);
    rig.run(EVENTS);
    assert_eq!(ring.take_used(), Some((0, 16)));
}

#[test]
fn units_stay_when_the_driver_resets_the_controller() {
    let platter = Platter::new();
    let (mut rig, handle) = up(vec![]);
    handle.insert(3, unit(&platter)).unwrap();
    rig.reset();
    rig.come_up();
    assert_eq!(ask(&mut rig, 3, &[0], Data::None), check([6, 0x29, 0], 0));
    assert_eq!(ask(&mut rig, 3, &ten(READ, 0, 1), Data::In(512)), good(512));
}

#[test]
fn nothing_is_left_of_a_unit_that_was_taken_out() {
    let platter = Platter::new();
    let (mut rig, handle) = up(vec![unit(&Platter::new()), unit(&platter)]);
    assert_eq!(Arc::strong_count(&platter.bytes), 2);
    assert!(handle.remove(1));
    assert_eq!(Arc::strong_count(&platter.bytes), 1, "its back end is gone");
    assert_eq!(
        ask(&mut rig, 1, &ten(READ, 0, 1), Data::In(512)),
        check([5, 0x25, 0], 512)
    );
}
