//! The SCSI host against well-meaning and hostile drivers.

use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vm_memory::GuestMemoryMmap;

use super::*;
use crate::virtio::driver::{DATA, NEEDS_RESET, Rig, Ring, VERSION_1, WRITE, peek, poke};
use crate::virtio::medium::platter::{Platter, SECTORS};
use crate::virtio::medium::{Alarm, Cache, Limits, OnError, Trouble};

mod answers;
mod hotplug;
mod model;
mod waiting;

const HEADER: u64 = DATA;
const RESPONSE: u64 = DATA + 0x100;
const BUFFER: u64 = DATA + 0x1000;
/// Bytes from one request's place to the next one's.
const PLACE: u64 = 0x4000;

const CONTROL: usize = 0;
const EVENTS: usize = 1;
const REQUESTS: usize = 2;

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    response: u8,
    status: u8,
    /// Key, code, qualifier; zeroes where there is no sense.
    sense: [u8; 3],
    residual: u32,
    used: u32,
}

/// Data of a command.
#[derive(Clone, Copy)]
enum Data {
    None,
    /// To the driver, so many bytes.
    In(u32),
    /// From the driver: so many bytes, which the test has put into [`BUFFER`].
    Out(u32),
}

fn unit(platter: &Platter) -> Unit {
    let options = UnitOptions {
        serial: "data-1".to_owned(),
        ..UnitOptions::default()
    };
    Unit::new(Box::new(platter.clone()), &options)
}

/// A controller with these units, which have said that they were switched on.
fn up(units: Vec<Unit>) -> (Rig, ScsiHandle) {
    let handle = ScsiHandle::default();
    let count = u8::try_from(units.len()).unwrap();
    for (lun, unit) in (0..).zip(units) {
        handle.insert(lun, unit).unwrap();
    }
    let mut rig = Rig::up(Scsi::new(handle.clone()));
    for lun in 0..count {
        assert_eq!(ask(&mut rig, lun, &[0], Data::None).sense, [6, 0x29, 0]);
    }
    (rig, handle)
}

/// Lays a request at this place; its chain.
fn lay(
    memory: &GuestMemoryMmap,
    place: u64,
    lun: u8,
    id: u64,
    cdb: &[u8],
    data: Data,
) -> Vec<(u64, u32, u16)> {
    let at = |base| base + PLACE * place;
    poke(memory, at(HEADER), &[0; 51]);
    poke(memory, at(HEADER), &[1, 0, 0x40, lun]);
    poke(memory, at(HEADER) + 8, &id.to_le_bytes());
    poke(memory, at(HEADER) + 19, cdb);
    poke(memory, at(RESPONSE), &[0xee; 108]);
    let mut chain = vec![(at(HEADER), 51, 0)];
    if let Data::Out(len) = data {
        chain.push((at(BUFFER), len, 0));
    }
    chain.push((at(RESPONSE), 108, WRITE));
    if let Data::In(len) = data {
        chain.push((at(BUFFER), len, WRITE));
    }
    chain
}

fn answer_at(memory: &GuestMemoryMmap, place: u64, used: u32) -> Answer {
    let bytes = peek(memory, RESPONSE + PLACE * place, 108);
    let sense = match bytes[0] {
        0 => [0; 3],
        _ => [bytes[14], bytes[24], bytes[25]],
    };
    Answer {
        response: bytes[11],
        status: bytes[10],
        sense,
        residual: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        used,
    }
}

/// Carries out one command, with empty rings before.
fn ask(rig: &mut Rig, lun: u8, cdb: &[u8], data: Data) -> Answer {
    (0..3).for_each(|queue| rig.set_ready(queue, false));
    rig.start_queues();
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, REQUESTS);
    ring.add(&lay(&memory, 0, lun, 7, cdb, data));
    rig.run(REQUESTS);
    let (_, used) = ring.take_used().expect("it is answered");
    answer_at(&memory, 0, used)
}

fn good(sent: u32) -> Answer {
    Answer {
        response: 0,
        status: 0,
        sense: [0; 3],
        residual: 0,
        used: 108 + sent,
    }
}

fn check(sense: [u8; 3], residual: u32) -> Answer {
    Answer {
        status: 2,
        sense,
        residual,
        ..good(0)
    }
}

/// READ or WRITE of ten bytes.
fn ten(opcode: u8, lba: u8, blocks: u8) -> [u8; 10] {
    [opcode, 0, 0, 0, 0, lba, 0, 0, blocks, 0]
}

const READ: u8 = 0x28;
const WRITE_10: u8 = 0x2a;

#[test]
fn what_is_written_is_on_the_disk_and_is_read_back_by_commands_of_every_length() {
    let platter = Platter::new();
    let (mut rig, _) = up(vec![unit(&platter)]);
    let memory = rig.memory.clone();
    let writes: [&[u8]; 4] = [
        &[0x0a, 0, 0, 3, 2, 0],
        &[WRITE_10, 0, 0, 0, 0, 3, 0, 0, 2, 0],
        &[0xaa, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0],
        &[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0],
    ];
    for (byte, write) in (0x50..).zip(writes) {
        poke(&memory, BUFFER, &[byte; 1024]);
        assert_eq!(ask(&mut rig, 0, write, Data::Out(1024)), good(0));
        assert_eq!(platter.bytes.lock().unwrap()[3 * 512..5 * 512], [byte; 1024]);
        let mut read = write.to_vec();
        read[0] -= 2;
        poke(&memory, BUFFER, &[0; 1024]);
        assert_eq!(ask(&mut rig, 0, &read, Data::In(1024)), good(1024));
        assert_eq!(peek(&memory, BUFFER, 1024), [byte; 1024]);
    }
    assert_eq!(*platter.flushes.lock().unwrap(), 0, "nobody has asked for it");
    let rest = &platter.bytes.lock().unwrap()[5 * 512..];
    assert!(rest.iter().all(|byte| (6..=8).contains(byte)));
}

#[test]
fn what_reaches_behind_the_end_changes_nothing() {
    let platter = Platter::new();
    let (mut rig, _) = up(vec![unit(&platter)]);
    let before = platter.bytes.lock().unwrap().clone();
    poke(&rig.memory, BUFFER, &[9; 2048]);
    let out = [5, 0x21, 0];
    for (cdb, data) in [
        (ten(WRITE_10, SECTORS, 1).to_vec(), Data::Out(512)),
        (ten(WRITE_10, SECTORS - 1, 2).to_vec(), Data::Out(1024)),
        (ten(READ, SECTORS - 1, 2).to_vec(), Data::In(1024)),
        (
            vec![0x8a, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1],
            Data::Out(512),
        ),
        (
            vec![0x93, 0, 0, 0, 0, 0, 0, 0, 0, SECTORS - 1, 0, 0, 0, 2],
            Data::Out(512),
        ),
        (vec![0x35, 0, 0, 0, 0, SECTORS, 0, 0, 1, 0], Data::None),
    ] {
        let residual = match data {
            Data::None => 0,
            Data::In(len) | Data::Out(len) => len,
        };
        assert_eq!(ask(&mut rig, 0, &cdb, data), check(out, residual), "{cdb:x?}");
    }
    assert_eq!(*platter.bytes.lock().unwrap(), before);
    assert_eq!(
        ask(&mut rig, 0, &ten(READ, SECTORS - 1, 1), Data::In(512)),
        good(512)
    );
}

#[test]
fn a_buffer_that_is_too_short_is_an_overrun_and_one_that_is_longer_has_a_rest() {
    let platter = Platter::new();
    let (mut rig, _) = up(vec![unit(&platter)]);
    let before = platter.bytes.lock().unwrap().clone();
    let overrun = Answer {
        response: 1,
        residual: 512,
        ..good(0)
    };
    assert_eq!(ask(&mut rig, 0, &ten(READ, 0, 2), Data::In(512)), overrun);
    assert_eq!(ask(&mut rig, 0, &ten(WRITE_10, 0, 2), Data::Out(512)), overrun);
    assert_eq!(*platter.bytes.lock().unwrap(), before);
    let rest = Answer {
        residual: 512,
        ..good(512)
    };
    assert_eq!(ask(&mut rig, 0, &ten(READ, 0, 1), Data::In(1024)), rest);
    assert_eq!(ask(&mut rig, 0, &ten(READ, 0, 0), Data::None), good(0));
}

#[test]
fn a_command_that_is_not_known_or_has_a_field_that_cannot_be_is_told_so() {
    let (mut rig, _) = up(vec![unit(&Platter::new())]);
    for (cdb, code) in [
        (&[0x15, 0x10, 0, 0, 24, 0][..], 0x20),
        (&[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0x20),
        (&[0x7f, 0, 0, 0, 0, 0, 0, 24, 0, 9], 0x20),
        (&[0xff; 16], 0x20),
        (&[READ, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], 0x24),
        (&[READ, 0, 0, 0, 0, 0, 0, 0, 1, 4], 0x24),
        (&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], 0x24),
        (&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0x24),
        (&[0x93, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 0x24),
        (&[0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0], 0x24),
        (&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], 0x24),
        (&[0x1b, 0, 0, 0, 2, 0], 0x24),
        (&[0x12, 1, 0x89, 0, 255, 0], 0x24),
        (&[0x1a, 0, 0x0a, 0, 255, 0], 0x24),
        (&[0x1a, 0, 0xc8, 0, 255, 0], 0x39),
        (&[0xa0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0], 0x24),
    ] {
        assert_eq!(
            ask(&mut rig, 0, cdb, Data::None),
            check([5, code, 0], 0),
            "{cdb:x?}"
        );
    }
}

#[test]
fn a_disk_that_can_only_be_read_is_never_written() {
    let platter = Platter::new();
    let options = UnitOptions {
        read_only: true,
        ..UnitOptions::default()
    };
    let (mut rig, _) = up(vec![Unit::new(Box::new(platter.clone()), &options)]);
    let before = platter.bytes.lock().unwrap().clone();
    let protected = [7, 0x27, 0];
    for (cdb, data) in [
        (&ten(WRITE_10, 0, 1)[..], 512),
        (&[0x93, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 512),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], 24),
    ] {
        assert_eq!(ask(&mut rig, 0, cdb, Data::Out(data)), check(protected, data));
    }
    assert_eq!(ask(&mut rig, 0, &ten(READ, 0, 1), Data::In(512)), good(512));
    assert_eq!(*platter.bytes.lock().unwrap(), before);
    assert!(platter.calls.lock().unwrap().is_empty());
}

#[test]
fn space_is_given_back_where_it_is_said_and_all_of_it_or_nothing() {
    let platter = Platter::new();
    let (mut rig, _) = up(vec![unit(&platter)]);
    let memory = rig.memory.clone();
    let unmap = |rig: &mut Rig, lbas: &[(u8, u8)]| {
        let len = u8::try_from(8 + 16 * lbas.len()).unwrap();
        let mut list = vec![0, len - 2, 0, len - 8, 0, 0, 0, 0];
        for &(lba, blocks) in lbas {
            list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0, 0, 0]);
        }
        poke(&memory, BUFFER, &list);
        ask(
            rig,
            0,
            &[0x42, 0, 0, 0, 0, 0, 0, 0, len, 0],
            Data::Out(len.into()),
        )
    };
    assert_eq!(unmap(&mut rig, &[(1, 2), (7, 1), (5, 0)]), good(0));
    let calls = [("discard", 512, 1024), ("discard", 7 * 512, 512)];
    assert_eq!(std::mem::take(&mut *platter.calls.lock().unwrap()), calls);
    assert_eq!(unmap(&mut rig, &[(1, 2), (7, 2)]), check([5, 0x21, 0], 40));
    assert_eq!(unmap(&mut rig, &[(0, 0); 9]), check([5, 0x26, 0], 152));
    assert_eq!(
        ask(&mut rig, 0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0], Data::Out(7)),
        check([5, 0x1a, 0], 7)
    );
    assert_eq!(
        ask(&mut rig, 0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None),
        good(0)
    );
    assert!(platter.calls.lock().unwrap().is_empty());
}

#[test]
fn the_same_block_is_written_again_and_again() {
    let platter = Platter::new();
    let (mut rig, _) = up(vec![unit(&platter)]);
    let memory = rig.memory.clone();
    let same = |flags, lba, blocks| [0x93, flags, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks, 0, 0];
    poke(&memory, BUFFER, &[0; 512]);
    assert_eq!(ask(&mut rig, 0, &same(0, 1, 2), Data::Out(512)), good(0));
    assert_eq!(ask(&mut rig, 0, &same(8, 3, 1), Data::Out(512)), good(0));
    assert_eq!(ask(&mut rig, 0, &same(9, 4, 1), Data::None), good(0));
    let calls = [("zero", 512, 1024), ("unmap", 1536, 512), ("unmap", 2048, 512)];
    assert_eq!(std::mem::take(&mut *platter.calls.lock().unwrap()), calls);
    let pattern: Vec<u8> = (0..=255).chain(0..=255).collect();
    poke(&memory, BUFFER, &pattern);
    assert_eq!(ask(&mut rig, 0, &same(8, 5, 3), Data::Out(512)), good(0));
    assert_eq!(platter.bytes.lock().unwrap()[5 * 512..], pattern.repeat(3));
    assert!(platter.calls.lock().unwrap().is_empty());
    assert_eq!(
        ask(&mut rig, 0, &[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], Data::Out(512)),
        good(0)
    );
    assert_eq!(platter.bytes.lock().unwrap()[..512], pattern);
    let short = Answer {
        response: 1,
        residual: 511,
        ..good(0)
    };
    assert_eq!(ask(&mut rig, 0, &same(0, 0, 1), Data::Out(511)), short);
}

#[test]
fn what_the_driver_wants_on_the_disk_is_flushed() {
    let platter = Platter::new();
    let through = UnitOptions {
        cache: Cache::Writethrough,
        ..UnitOptions::default()
    };
    let through = Unit::new(Box::new(platter.clone()), &through);
    let (mut rig, _) = up(vec![unit(&platter), through]);
    let flushes = || std::mem::take(&mut *platter.flushes.lock().unwrap());
    ask(&mut rig, 0, &ten(WRITE_10, 0, 1), Data::Out(512));
    assert_eq!(flushes(), 0);
    for cdb in [
        &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[0x91; 1],
        &[0x1b, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(ask(&mut rig, 0, cdb, Data::None), good(0));
        assert_eq!(flushes(), 1, "{cdb:x?}");
    }
    let unit_access = [WRITE_10, 8, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(ask(&mut rig, 0, &unit_access, Data::Out(512)), good(0));
    assert_eq!(flushes(), 1);
    ask(&mut rig, 1, &ten(WRITE_10, 0, 1), Data::Out(512));
    assert_eq!(flushes(), 1);
}

#[test]
fn a_request_without_room_for_its_answer_stops_the_device_until_it_is_reset() {
    let (mut rig, _) = up(vec![unit(&Platter::new())]);
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, REQUESTS);
    let mut chain = lay(&memory, 0, 0, 1, &[0], Data::None);
    chain[1].1 = 107;
    (0..3).for_each(|queue| rig.set_ready(queue, false));
    rig.start_queues();
    ring.add(&chain);
    rig.run(REQUESTS);
    assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
    rig.reset();
    rig.come_up();
    assert_eq!(
        ask(&mut rig, 0, &[0], Data::None).sense,
        [6, 0x29, 0],
        "it was reset"
    );
    // A header that is cut short has an answer, if no status of a unit.
    let mut chain = lay(&memory, 0, 0, 1, &[0], Data::None);
    chain[0].1 = 50;
    (0..3).for_each(|queue| rig.set_ready(queue, false));
    rig.start_queues();
    let mut ring = Ring::new(&memory, REQUESTS);
    ring.add(&chain);
    rig.run(REQUESTS);
    assert!(ring.take_used().is_some());
    assert_eq!(answer_at(&memory, 0, 0).response, 9);
}
