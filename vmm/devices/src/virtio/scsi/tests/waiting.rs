//! Commands that wait, for their disk's limits or for the host, and what a driver can do about them.

use super::*;

/// A clock that stands still until the test moves it.
#[derive(Clone, Default)]
struct Clock(Arc<Mutex<Duration>>);

impl Alarm for Clock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn ring_at(&mut self, _: Duration) {}
}

struct Told(std::sync::mpsc::Sender<io::ErrorKind>);

impl Trouble for Told {
    fn tell(&self, error: &io::Error) {
        self.0.send(error.kind()).unwrap();
    }
}

/// A disk of one command a second, and one without limits; the first has done its command for this second.
fn one_is_ahead(platter: &Platter, clock: &Clock) -> Rig {
    let limits = Limits {
        requests: Some(1),
        bytes: None,
    };
    let slow = unit(platter).limited(limits, Box::new(clock.clone()));
    let (mut rig, _) = up(vec![slow, unit(&Platter::new())]);
    assert_eq!(ask(&mut rig, 0, &ten(READ, 0, 1), Data::In(512)), good(512));
    rig
}

/// Empty rings, and these commands on them, each at its place: unit, id, CDB.
fn offer<'a>(rig: &mut Rig, memory: &'a GuestMemoryMmap, commands: &[(u8, u64, [u8; 10])]) -> Ring<'a> {
    (0..3).for_each(|queue| rig.set_ready(queue, false));
    rig.start_queues();
    let mut ring = Ring::new(memory, REQUESTS);
    for (place, (lun, id, cdb)) in (0..).zip(commands) {
        ring.add(&lay(memory, place, *lun, *id, cdb, Data::In(512)));
    }
    ring
}

fn used(ring: &mut Ring<'_>) -> Vec<u32> {
    std::iter::from_fn(|| ring.take_used())
        .map(|(head, _)| head / 3)
        .collect()
}

/// A task-management request; its answer, once there is one.
fn manage(rig: &mut Rig, memory: &GuestMemoryMmap, subtype: u32, lun: [u8; 4], id: u64) -> Option<u8> {
    let at = DATA + 0x9_0000;
    poke(memory, at, &[0; 24]);
    poke(memory, at + 4, &subtype.to_le_bytes());
    poke(memory, at + 8, &lun);
    poke(memory, at + 16, &id.to_le_bytes());
    poke(memory, at + 32, &[0xee]);
    rig.set_ready(0, false);
    let mut ring = Ring::new(memory, CONTROL);
    rig.place_queue(0, 16, ring.table(), ring.avail(), ring.used());
    rig.set_ready(0, true);
    ring.add(&[(at, 24, 0), (at + 32, 1, WRITE)]);
    rig.kicked();
    rig.run(CONTROL);
    let _ = ring.take_used()?;
    Some(peek(memory, at + 32, 1)[0])
}

#[test]
fn a_disk_that_is_ahead_of_its_limits_holds_up_no_other_and_keeps_its_order() {
    let (clock, platter) = (Clock::default(), Platter::new());
    let mut rig = one_is_ahead(&platter, &clock);
    let memory = rig.memory.clone();
    let read = |lba| ten(READ, lba, 1);
    let commands = [(0, 1, read(1)), (1, 2, read(2)), (0, 3, read(3)), (0, 4, [0; 10])];
    let mut ring = offer(&mut rig, &memory, &commands);
    rig.run(REQUESTS);
    // What has nothing to do with the medium has no limits.
    assert_eq!(used(&mut ring), [1, 3]);
    *clock.0.lock().unwrap() = Duration::from_secs(1);
    rig.run(REQUESTS);
    assert_eq!(used(&mut ring), [0]);
    assert_eq!(peek(&memory, BUFFER, 1), [2]);
    *clock.0.lock().unwrap() = Duration::from_secs(3);
    rig.run(REQUESTS);
    assert_eq!(used(&mut ring), [2]);
}

#[test]
fn a_command_waits_for_the_host_and_is_done_once_that_can() {
    let (platter, other) = (Platter::new(), Platter::new());
    let (told, heard) = channel();
    let stops = unit(&platter).failing(OnError::Stop, Box::new(Told(told)));
    let (mut rig, _) = up(vec![stops, unit(&other)]);
    let memory = rig.memory.clone();
    *platter.fails.lock().unwrap() = Some(io::ErrorKind::StorageFull);
    let mut ring = offer(
        &mut rig,
        &memory,
        &[(0, 1, ten(READ, 1, 1)), (1, 2, ten(READ, 2, 1))],
    );
    rig.run(REQUESTS);
    assert_eq!(used(&mut ring), [1]);
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [io::ErrorKind::StorageFull]);
    *platter.fails.lock().unwrap() = None;
    rig.run(REQUESTS);
    assert_eq!(used(&mut ring), [0]);
    assert_eq!(answer_at(&memory, 0, 620), good(512));
    assert_eq!(peek(&memory, BUFFER, 512), [2; 512]);
}

#[test]
fn what_the_host_cannot_do_is_told_as_what_it_is() {
    let platter = Platter::new();
    let (mut rig, _) = up(vec![unit(&platter)]);
    *platter.fails.lock().unwrap() = Some(io::ErrorKind::Other);
    assert_eq!(
        ask(&mut rig, 0, &ten(READ, 0, 1), Data::In(512)),
        check([3, 0x11, 0], 512)
    );
    assert_eq!(
        ask(&mut rig, 0, &ten(WRITE_10, 0, 1), Data::Out(512)),
        check([3, 0x0c, 0], 512)
    );
    *platter.fails.lock().unwrap() = Some(io::ErrorKind::StorageFull);
    assert_eq!(
        ask(&mut rig, 0, &ten(WRITE_10, 0, 1), Data::Out(512)),
        check([7, 0x27, 7], 512)
    );
}

#[test]
fn a_command_that_waits_is_aborted_by_its_id_and_answered_before_the_wish_is() {
    let (clock, platter) = (Clock::default(), Platter::new());
    let mut rig = one_is_ahead(&platter, &clock);
    let memory = rig.memory.clone();
    let commands = [(0, 0x11, ten(READ, 1, 1)), (0, 0x12, ten(READ, 2, 1))];
    let mut ring = offer(&mut rig, &memory, &commands);
    rig.run(REQUESTS);
    const QUERY: u32 = 6;
    let unit = [1, 0, 0x40, 0];
    assert_eq!(
        manage(&mut rig, &memory, QUERY, unit, 0x12),
        Some(10),
        "it is there"
    );
    assert_eq!(manage(&mut rig, &memory, QUERY, unit, 0x13), Some(0));
    assert_eq!(
        manage(&mut rig, &memory, 0, unit, 0x13),
        Some(0),
        "nothing to abort"
    );
    assert_eq!(manage(&mut rig, &memory, 0, unit, 0x11), None);
    assert_eq!(rig.kicked(), [REQUESTS]);
    assert!(ring.take_used().is_none());
    rig.run(REQUESTS);
    assert_eq!(used(&mut ring), [0]);
    assert_eq!(answer_at(&memory, 0, 108).response, 2);
    assert_eq!(rig.kicked(), [CONTROL]);
    rig.run(CONTROL);
    assert_eq!(peek(&memory, DATA + 0x9_0020, 1), [0]);
    // The other one is still to be done.
    *clock.0.lock().unwrap() = Duration::from_secs(1);
    rig.run(REQUESTS);
    assert_eq!(used(&mut ring), [1]);
}

#[test]
fn a_reset_of_a_unit_ends_what_waits_for_it_and_is_told_at_its_next_command() {
    let (clock, platter) = (Clock::default(), Platter::new());
    let mut rig = one_is_ahead(&platter, &clock);
    let memory = rig.memory.clone();
    let mut ring = offer(
        &mut rig,
        &memory,
        &[(0, 1, ten(READ, 1, 1)), (0, 2, ten(READ, 2, 1))],
    );
    rig.run(REQUESTS);
    assert_eq!(manage(&mut rig, &memory, 5, [1, 0, 0x40, 0], 0), None);
    rig.run(REQUESTS);
    rig.run(CONTROL);
    assert_eq!(used(&mut ring), [0, 1]);
    assert_eq!([0, 1].map(|place| answer_at(&memory, place, 0).response), [4, 4]);
    assert_eq!(peek(&memory, DATA + 0x9_0020, 1), [0]);
    assert_eq!(ask(&mut rig, 0, &[0], Data::None), check([6, 0x29, 0], 0));
    assert_eq!(ask(&mut rig, 1, &[0], Data::None), good(0));
}

#[test]
fn wishes_about_what_is_not_there_are_answered_as_they_should() {
    let (mut rig, handle) = up(vec![unit(&Platter::new())]);
    let memory = rig.memory.clone();
    offer(&mut rig, &memory, &[]);
    assert_eq!(manage(&mut rig, &memory, 5, [1, 0, 0x40, 9], 0), Some(12));
    assert_eq!(manage(&mut rig, &memory, 5, [1, 3, 0x40, 0], 0), Some(3));
    assert_eq!(
        manage(&mut rig, &memory, 2, [1, 0, 0x40, 0], 0),
        Some(11),
        "CLEAR ACA"
    );
    assert_eq!(manage(&mut rig, &memory, 99, [1, 0, 0x40, 0], 0), Some(11));
    assert_eq!(
        manage(&mut rig, &memory, 4, [1, 0, 0x40, 0], 0),
        Some(0),
        "I_T NEXUS RESET"
    );
    handle.remove(0);
    assert_eq!(manage(&mut rig, &memory, 5, [1, 0, 0x40, 0], 0), Some(3));
}

#[test]
fn what_waited_for_a_unit_that_was_taken_out_is_answered() {
    let platter = Platter::new();
    let (told, _heard) = channel();
    let stops = unit(&platter).failing(OnError::Stop, Box::new(Told(told)));
    let (mut rig, handle) = up(vec![stops, unit(&Platter::new())]);
    let memory = rig.memory.clone();
    *platter.fails.lock().unwrap() = Some(io::ErrorKind::Other);
    let mut ring = offer(&mut rig, &memory, &[(0, 1, ten(READ, 1, 1))]);
    rig.run(REQUESTS);
    assert!(ring.take_used().is_none());
    assert!(handle.remove(0));
    // Another disk with its number has nothing to do with it.
    let next = Platter::new();
    handle.insert(0, unit(&next)).unwrap();
    rig.run(REQUESTS);
    assert_eq!(used(&mut ring), [0]);
    assert_eq!(answer_at(&memory, 0, 108), check([5, 0x25, 0], 512));
}

#[test]
fn more_that_waits_than_the_queue_has_places_is_the_drivers_fault() {
    let (clock, platter) = (Clock::default(), Platter::new());
    let mut rig = one_is_ahead(&platter, &clock);
    let memory = rig.memory.clone();
    let ring = offer(&mut rig, &memory, &[(0, 1, ten(READ, 1, 1))]);
    rig.run(REQUESTS);
    for _ in 0..16 {
        // The same chain, again and again.
        ring.offer(0);
        rig.run(REQUESTS);
    }
    assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
}
