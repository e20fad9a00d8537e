//! What a driver may ask of a disk besides reading and writing.

use std::time::Duration;

use std::sync::{Arc, Mutex};

use super::*;
use crate::BusDevice;

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const UNMAP: u32 = 1;

const FEATURE_CONFIG_WCE: u64 = 1 << 11;
const FEATURE_MQ: u64 = 1 << 12;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

/// Offsets in the register window.
const WRITEBACK: u64 = 0x100 + 32;

/// Sector, number of sectors, flags.
fn segments(rig: &Rig, segments: &[(u64, u32, u32)]) -> u32 {
    let bytes: Vec<u8> = segments
        .iter()
        .flat_map(|(sector, number, flags)| {
            [
                &sector.to_le_bytes()[..],
                &number.to_le_bytes(),
                &flags.to_le_bytes(),
            ]
            .concat()
        })
        .collect();
    poke(&rig.memory, BUFFER, &bytes);
    u32::try_from(bytes.len()).unwrap()
}

fn with_segments(rig: &mut Rig, kind: u32, list: &[(u64, u32, u32)]) -> (u8, u32) {
    let len = segments(rig, list);
    request(rig, kind, 0, &[(BUFFER, len, 0)])
}

fn up(platter: &Platter, options: &BlockOptions) -> Rig {
    Rig::up(Block::new(Box::new(platter.clone()), options))
}

#[test]
fn segments_are_discarded_one_by_one() {
    let platter = Platter::new();
    let mut rig = rig(&platter);
    assert_eq!(
        with_segments(&mut rig, DISCARD, &[(1, 2, 0), (7, 1, 0), (3, 0, 0)]),
        (OK, 1)
    );
    assert_eq!(
        *platter.calls.lock().unwrap(),
        [("discard", 512, 1024), ("discard", 7 * 512, 512)]
    );
}

#[test]
fn zeroes_are_written_with_and_without_giving_space_back() {
    let platter = Platter::new();
    let mut rig = rig(&platter);
    assert_eq!(with_segments(&mut rig, WRITE_ZEROES, &[(0, 8, 0)]), (OK, 1));
    assert_eq!(with_segments(&mut rig, WRITE_ZEROES, &[(4, 1, UNMAP)]), (OK, 1));
    assert_eq!(
        *platter.calls.lock().unwrap(),
        [("zero", 0, 4096), ("unmap", 2048, 512)]
    );
    assert_eq!(*platter.bytes.lock().unwrap(), [0; 4096]);
}

#[test]
fn a_request_with_one_bad_segment_changes_nothing() {
    let platter = Platter::new();
    let mut rig = rig(&platter);
    for bad in [
        (8, 1, 0),
        (7, 2, 0),
        (u64::MAX, 1, 0),
        (u64::MAX / 512, 2, 0),
        (0, u32::MAX, 0),
    ] {
        assert_eq!(
            with_segments(&mut rig, DISCARD, &[(0, 1, 0), bad]),
            (IOERR, 1),
            "{bad:?}"
        );
        assert_eq!(
            with_segments(&mut rig, WRITE_ZEROES, &[bad]),
            (IOERR, 1),
            "{bad:?}"
        );
    }
    for flags in [UNMAP, 2, 0x8000_0000, u32::MAX] {
        assert_eq!(
            with_segments(&mut rig, DISCARD, &[(0, 1, 0), (0, 1, flags)]),
            (UNSUPP, 1)
        );
    }
    for flags in [2, 3, u32::MAX] {
        assert_eq!(
            with_segments(&mut rig, WRITE_ZEROES, &[(0, 1, flags)]),
            (UNSUPP, 1)
        );
    }
    assert_eq!(platter.calls.lock().unwrap().len(), 0);
}

#[test]
fn too_many_segments_none_at_all_and_broken_ones_fail() {
    let platter = Platter::new();
    let mut rig = rig(&platter);
    assert_eq!(with_segments(&mut rig, DISCARD, &[(0, 1, 0); 9]), (IOERR, 1));
    assert_eq!(with_segments(&mut rig, WRITE_ZEROES, &[(0, 1, 0); 2]), (IOERR, 1));
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(request(&mut rig, kind, 0, &[]), (IOERR, 1));
        assert_eq!(request(&mut rig, kind, 0, &[(BUFFER, 15, 0)]), (IOERR, 1));
        assert_eq!(request(&mut rig, kind, 0, &[(BUFFER, 17, 0)]), (IOERR, 1));
        assert_eq!(
            request(&mut rig, kind, 0, &[(BUFFER, 16, WRITE)]),
            (IOERR, 1),
            "nothing to read"
        );
    }
    assert_eq!(platter.calls.lock().unwrap().len(), 0);
}

#[test]
fn a_read_only_disk_offers_nothing_that_changes_it() {
    let platter = Platter::new();
    let read_only = BlockOptions {
        read_only: true,
        ..BlockOptions::default()
    };
    let mut rig = up(&platter, &read_only);
    assert_eq!(rig.offered() & (FEATURE_DISCARD | FEATURE_WRITE_ZEROES), 0);
    assert_eq!(with_segments(&mut rig, DISCARD, &[(0, 1, 0)]), (UNSUPP, 1));
    assert_eq!(with_segments(&mut rig, WRITE_ZEROES, &[(0, 1, 0)]), (UNSUPP, 1));
    assert_eq!(platter.calls.lock().unwrap().len(), 0);
}

#[test]
fn the_config_tells_topology_queues_and_limits() {
    let options = BlockOptions {
        queues: 3,
        ..BlockOptions::default()
    };
    let mut rig = up(&Platter::new(), &options);
    assert_eq!(rig.read(0x108), 128 << 10, "bytes of a segment");
    assert_eq!(
        rig.read(0x118),
        3 | 8 << 16,
        "8 logical blocks in a physical one, which is the least"
    );
    assert_eq!(rig.read(0x11c), 1024, "logical blocks that are best read at once");
    assert_eq!(rig.read(0x120) >> 16, 3, "queues");
    assert_eq!(
        (rig.read(0x124), rig.read(0x128), rig.read(0x12c)),
        (1 << 17, 8, 128)
    );
    assert_eq!(
        (rig.read(0x130), rig.read(0x134), rig.read(0x138)),
        (1 << 16, 1, 1)
    );
    assert_eq!(rig.offered() & FEATURE_MQ, FEATURE_MQ);
}

#[test]
fn each_queue_of_a_disk_serves_requests() {
    let options = BlockOptions {
        queues: 2,
        ..BlockOptions::default()
    };
    let mut rig = up(&Platter::new(), &options);
    put_header(&rig.memory, 0, 3);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 1);
    ring.add(&[(HEADER, 16, 0), (BUFFER, 512, WRITE), (STATUS, 1, WRITE)]);
    rig.run(1);
    assert_eq!(ring.take_used(), Some((0, 513)));
    assert_eq!(peek(&memory, BUFFER, 512), [4; 512]);
}

#[test]
fn the_driver_switches_between_write_back_and_write_through() {
    let platter = Platter::new();
    let mut rig = rig(&platter);
    assert_eq!(rig.offered() & FEATURE_CONFIG_WCE, FEATURE_CONFIG_WCE);
    let write = |rig: &mut Rig| {
        request(rig, 1, 0, &[(BUFFER, 512, 0)]);
        *platter.flushes.lock().unwrap()
    };
    assert_eq!(write(&mut rig), 0);
    rig.transport.write(WRITEBACK, &[0]);
    assert_eq!(write(&mut rig), 1);
    rig.transport.write(WRITEBACK, &[1]);
    assert_eq!(write(&mut rig), 1);
}

#[test]
fn a_write_through_disk_flushes_until_told_otherwise_and_again_after_a_reset() {
    let platter = Platter::new();
    let options = BlockOptions {
        cache: Cache::Writethrough,
        ..BlockOptions::default()
    };
    let mut rig = up(&platter, &options);
    let mut mode = [0xee];
    rig.transport.read(WRITEBACK, &mut mode);
    assert_eq!(mode, [0]);
    request(&mut rig, 1, 0, &[(BUFFER, 512, 0)]);
    assert_eq!(with_segments(&mut rig, WRITE_ZEROES, &[(0, 1, 0)]), (OK, 1));
    assert_eq!(*platter.flushes.lock().unwrap(), 2);
    rig.transport.write(WRITEBACK, &[1]);
    rig.reset();
    rig.transport.read(WRITEBACK, &mut mode);
    assert_eq!(mode, [0]);
}

#[test]
fn other_writes_to_the_config_change_nothing() {
    let mut rig = rig(&Platter::new());
    let before: Vec<u32> = (0..16).map(|word| rig.read(0x100 + 4 * word)).collect();
    for offset in (0..64).filter(|offset| *offset != 32) {
        rig.transport.write(0x100 + offset, &[0xff]);
    }
    rig.transport.write(WRITEBACK, &[0; 4]);
    let after: Vec<u32> = (0..16).map(|word| rig.read(0x100 + 4 * word)).collect();
    assert_eq!(before, after);
}

#[test]
fn an_unsafe_disk_never_flushes() {
    let platter = Platter::new();
    let options = BlockOptions {
        cache: Cache::Unsafe,
        ..BlockOptions::default()
    };
    let mut rig = up(&platter, &options);
    assert_eq!(request(&mut rig, 4, 0, &[]), (OK, 1));
    assert_eq!(*platter.flushes.lock().unwrap(), 0);
}

/// A clock that stands still until it is moved.
#[derive(Clone, Default)]
struct Clock {
    now: Arc<Mutex<Duration>>,
    alarm: Arc<Mutex<Option<Duration>>>,
}

impl Alarm for Clock {
    fn now(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn ring_at(&mut self, at: Duration) {
        *self.alarm.lock().unwrap() = Some(at);
    }
}

#[test]
fn a_disk_at_its_limit_takes_requests_up_again_when_the_alarm_rings() {
    let clock = Clock::default();
    let limits = Limits {
        requests: None,
        bytes: Some(5120),
    };
    let block = Block::new(Box::new(Platter::new()), &BlockOptions::default());
    let mut rig = Rig::up(block.limited(limits, Box::new(clock.clone())));
    put_header(&rig.memory, 0, 0);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    for _ in 0..3 {
        ring.add(&[(HEADER, 16, 0), (BUFFER, 1024, WRITE), (STATUS, 1, WRITE)]);
    }
    rig.run(0);
    // A bucket of 512 bytes lets one request of 1024 through, and is 512 bytes in debt: a tenth of a second.
    assert_eq!(ring.used_idx(), 1);
    let alarm = clock.alarm.lock().unwrap().unwrap();
    assert_eq!(alarm.as_millis(), 100);
    rig.run(0);
    assert_eq!(ring.used_idx(), 1, "a kick does not help");
    *clock.now.lock().unwrap() = alarm;
    rig.run(0);
    assert_eq!(ring.used_idx(), 2);
}
