//! The disk against well-meaning and hostile drivers: checklist C.

use std::io;

use vm_memory::GuestMemoryMmap;

use super::*;
use crate::virtio::driver::{DATA, HOLE, NEEDS_RESET, Rig, Ring, VERSION_1, WRITE, peek, poke};
use crate::virtio::medium::platter::{Platter, SECTORS};

const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 0x100;
const BUFFER: u64 = DATA + 0x1000;

mod failing;
mod features;
mod model;
mod policies;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

fn rig(platter: &Platter) -> Rig {
    Rig::up(Block::new(Box::new(platter.clone()), &BlockOptions::default()))
}

fn put_header(memory: &GuestMemoryMmap, kind: u32, sector: u64) {
    poke(memory, HEADER, &kind.to_le_bytes());
    poke(memory, HEADER + 4, &[0; 4]);
    poke(memory, HEADER + 8, &sector.to_le_bytes());
    poke(memory, STATUS, &[0xee]);
}

/// Runs one chain, after the header and the status byte were put in place; returns status and used length.
fn run(rig: &mut Rig, kind: u32, sector: u64, chain: &[(u64, u32, u16)]) -> (u8, u32) {
    rig.set_ready(0, false);
    rig.start_queues();
    put_header(&rig.memory, kind, sector);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(chain);
    rig.run(0);
    let (_, written) = ring.take_used().unwrap();
    (peek(&memory, STATUS, 1)[0], written)
}

/// Runs one request: header, these data buffers, status byte.
fn request(rig: &mut Rig, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> (u8, u32) {
    let mut chain = vec![(HEADER, 16, 0)];
    chain.extend_from_slice(data);
    chain.push((STATUS, 1, WRITE));
    run(rig, kind, sector, &chain)
}

#[test]
fn reads_fill_the_driver_s_buffers() {
    let mut rig = rig(&Platter::new());
    let data = [(BUFFER, 512, WRITE), (BUFFER + 0x1000, 1024, WRITE)];
    assert_eq!(request(&mut rig, 0, 2, &data), (OK, 1537));
    assert_eq!(peek(&rig.memory, BUFFER, 512), [3; 512]);
    assert_eq!(peek(&rig.memory, BUFFER + 0x1000, 1024)[511..513], [4, 5]);
}

#[test]
fn writes_reach_the_disk() {
    let platter = Platter::new();
    let mut rig = rig(&platter);
    poke(&rig.memory, BUFFER, &[0xaa; 1024]);
    assert_eq!(
        request(&mut rig, 1, 6, &[(BUFFER, 100, 0), (BUFFER + 100, 924, 0)]),
        (OK, 1)
    );
    let bytes = platter.bytes.lock().unwrap();
    assert_eq!((bytes[6 * 512 - 1], &bytes[6 * 512..]), (6, &[0xaa; 1024][..]));
}

#[test]
fn buffers_may_be_cut_anywhere() {
    let mut rig = rig(&Platter::new());
    let chain = [
        (HEADER, 3, 0),
        (HEADER + 3, 0, 0),
        (HEADER + 3, 13, 0),
        (BUFFER, 1, WRITE),
        (BUFFER + 1, 510, WRITE),
        (BUFFER + 511, 2, WRITE),
    ];
    assert_eq!(run(&mut rig, 0, 4, &chain), (0xee, 513));
    assert_eq!(peek(&rig.memory, BUFFER, 514), [&[5; 512][..], &[OK, 0]].concat());
}

#[test]
fn flush_reaches_the_disk_even_with_data() {
    let platter = Platter::new();
    let mut rig = rig(&platter);
    assert_eq!(request(&mut rig, 4, 0, &[]), (OK, 1));
    assert_eq!(request(&mut rig, 4, u64::MAX, &[(BUFFER, 7, 0)]), (OK, 1));
    assert_eq!(*platter.flushes.lock().unwrap(), 2);
}

#[test]
fn writes_are_flushed_only_for_a_driver_that_will_not_ask() {
    let platter = Platter::new();
    let mut rig = rig(&platter);
    request(&mut rig, 1, 0, &[(BUFFER, 512, 0)]);
    assert_eq!(*platter.flushes.lock().unwrap(), 0);

    let mut rig = Rig::new(Block::new(Box::new(platter.clone()), &BlockOptions::default()));
    rig.bring_up(VERSION_1);
    request(&mut rig, 1, 0, &[(BUFFER, 512, 0)]);
    assert_eq!(*platter.flushes.lock().unwrap(), 1);
}

#[test]
fn the_serial_is_read_in_20_bytes_or_cut_to_the_buffer() {
    let options = BlockOptions {
        serial: "root-disk".into(),
        ..BlockOptions::default()
    };
    let mut rig = Rig::up(Block::new(Box::new(Platter::new()), &options));
    poke(&rig.memory, BUFFER, &[0xee; 64]);
    assert_eq!(request(&mut rig, 8, 0, &[(BUFFER, 20, WRITE)]), (OK, 21));
    assert_eq!(
        peek(&rig.memory, BUFFER, 21),
        *b"root-disk\0\0\0\0\0\0\0\0\0\0\0\xee"
    );
    assert_eq!(request(&mut rig, 8, 0, &[(BUFFER + 32, 4, WRITE)]), (OK, 5));
    assert_eq!(peek(&rig.memory, BUFFER + 32, 5), *b"root\xee");
    assert_eq!(request(&mut rig, 8, 0, &[(BUFFER, 64, WRITE)]), (OK, 21));
    assert_eq!(request(&mut rig, 8, 0, &[]), (OK, 1));
}

#[test]
fn a_serial_that_is_too_long_is_cut() {
    let options = BlockOptions {
        serial: "0123456789012345678901".into(),
        ..BlockOptions::default()
    };
    let mut rig = Rig::up(Block::new(Box::new(Platter::new()), &options));
    request(&mut rig, 8, 0, &[(BUFFER, 20, WRITE)]);
    assert_eq!(peek(&rig.memory, BUFFER, 20), *b"01234567890123456789");
}

#[test]
fn the_config_tells_capacity_segments_and_block_size() {
    let mut rig = rig(&Platter::new());
    assert_eq!((rig.read(0x100), rig.read(0x104)), (8, 0));
    assert_eq!((rig.read(0x10c), rig.read(0x114)), (254, 512));
}

#[test]
fn half_a_sector_at_the_end_is_not_part_of_the_disk() {
    let platter = Platter::new();
    platter.bytes.lock().unwrap().extend_from_slice(&[0; 511]);
    let mut rig = rig(&platter);
    assert_eq!(rig.read(0x100), 8);
    assert_eq!(request(&mut rig, 0, 8, &[(BUFFER, 512, WRITE)]), (IOERR, 1));
}

#[test]
fn requests_beyond_the_end_fail_and_move_nothing() {
    let platter = Platter::new();
    let before = platter.bytes.lock().unwrap().clone();
    let mut rig = rig(&platter);
    for sector in [
        7,
        8,
        9,
        u64::MAX / 512,
        u64::MAX / 512 + 1,
        u64::MAX - 1,
        u64::MAX,
    ] {
        poke(&rig.memory, BUFFER, &[0xee; 1024]);
        assert_eq!(
            request(&mut rig, 1, sector, &[(BUFFER, 1024, 0)]),
            (IOERR, 1),
            "write at {sector}"
        );
        assert_eq!(
            request(&mut rig, 0, sector, &[(BUFFER, 1024, WRITE)]),
            (IOERR, 1),
            "read at {sector}"
        );
        assert_eq!(peek(&rig.memory, BUFFER, 1024), [0xee; 1024]);
    }
    assert_eq!(*platter.bytes.lock().unwrap(), before);
}

#[test]
fn lengths_that_are_not_whole_sectors_fail() {
    let platter = Platter::new();
    let before = platter.bytes.lock().unwrap().clone();
    let mut rig = rig(&platter);
    for len in [1, 511, 513, 1000] {
        assert_eq!(
            request(&mut rig, 0, 0, &[(BUFFER, len, WRITE)]),
            (IOERR, 1),
            "{len}"
        );
        assert_eq!(request(&mut rig, 1, 0, &[(BUFFER, len, 0)]), (IOERR, 1), "{len}");
    }
    assert_eq!(*platter.bytes.lock().unwrap(), before);
}

#[test]
fn a_header_that_is_too_short_fails() {
    let mut rig = rig(&Platter::new());
    assert_eq!(
        run(
            &mut rig,
            0,
            0,
            &[(HEADER, 15, 0), (BUFFER, 512, WRITE), (STATUS, 1, WRITE)]
        ),
        (IOERR, 1)
    );
    assert_eq!(run(&mut rig, 0, 0, &[(STATUS, 1, WRITE)]), (IOERR, 1));
}

#[test]
fn a_request_without_room_for_its_status_stops_the_device() {
    for chain in [&[(HEADER, 16, 0)][..], &[(HEADER, 16, 0), (STATUS, 0, WRITE)]] {
        let mut rig = rig(&Platter::new());
        put_header(&rig.memory, 4, 0);
        let memory = rig.memory.clone();
        let mut ring = Ring::new(&memory, 0);
        ring.add(chain);
        rig.run(0);
        assert_eq!(
            (ring.take_used(), rig.status() & NEEDS_RESET),
            (None, NEEDS_RESET)
        );
    }
}

#[test]
fn the_status_is_the_last_byte_of_a_larger_buffer() {
    let mut rig = rig(&Platter::new());
    poke(&rig.memory, BUFFER, &[0xee; 16]);
    let (_, written) = run(&mut rig, 4, 0, &[(HEADER, 16, 0), (BUFFER, 16, WRITE)]);
    assert_eq!(
        (written, peek(&rig.memory, BUFFER, 16)),
        (1, [&[0xee; 15][..], &[OK]].concat())
    );
}

#[test]
fn data_in_the_wrong_direction_is_not_touched() {
    let platter = Platter::new();
    let before = platter.bytes.lock().unwrap().clone();
    let mut rig = rig(&platter);
    poke(&rig.memory, BUFFER, &[0xee; 512]);
    assert_eq!(
        request(&mut rig, 0, 0, &[(BUFFER, 512, 0)]),
        (OK, 1),
        "a read of nothing"
    );
    assert_eq!(
        request(&mut rig, 1, 0, &[(BUFFER, 512, WRITE)]),
        (OK, 1),
        "a write of nothing"
    );
    assert_eq!(peek(&rig.memory, BUFFER, 512), [0xee; 512]);
    assert_eq!(*platter.bytes.lock().unwrap(), before);
}

#[test]
fn a_read_only_disk_says_so_and_refuses_writes() {
    let platter = Platter::new();
    let before = platter.bytes.lock().unwrap().clone();
    let options = BlockOptions {
        read_only: true,
        ..BlockOptions::default()
    };
    let mut rig = Rig::up(Block::new(Box::new(platter.clone()), &options));
    assert_eq!(rig.offered() & 1 << 5, 1 << 5);
    assert_eq!(request(&mut rig, 1, 0, &[(BUFFER, 512, 0)]), (IOERR, 1));
    assert_eq!(request(&mut rig, 0, 0, &[(BUFFER, 512, WRITE)]), (OK, 513));
    assert_eq!(*platter.bytes.lock().unwrap(), before);
}

#[test]
fn requests_that_were_not_offered_are_unsupported() {
    let mut rig = rig(&Platter::new());
    for kind in [2, 3, 5, 10, 12, 14, 15, 16, 18, 24, 26, 0x8000_0000, u32::MAX] {
        for flags in [0, WRITE] {
            assert_eq!(
                request(&mut rig, kind, 0, &[(BUFFER, 4096, flags)]),
                (UNSUPP, 1),
                "type {kind}"
            );
        }
    }
}

#[test]
fn a_broken_disk_is_an_io_error() {
    let mut rig = rig(&Platter {
        broken: true,
        ..Platter::new()
    });
    assert_eq!(request(&mut rig, 0, 0, &[(BUFFER, 512, WRITE)]), (IOERR, 1));
    assert_eq!(request(&mut rig, 1, 0, &[(BUFFER, 512, 0)]), (IOERR, 1));
    assert_eq!(request(&mut rig, 4, 0, &[]), (IOERR, 1));
}

#[test]
fn a_buffer_partly_outside_ram_stops_the_device_before_anything_is_moved() {
    let platter = Platter::new();
    let before = platter.bytes.lock().unwrap().clone();
    let mut rig = rig(&platter);
    put_header(&rig.memory, 1, 0);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[
        (HEADER, 16, 0),
        (BUFFER, 512, 0),
        (HOLE - 8, 512, 0),
        (STATUS, 1, WRITE),
    ]);
    rig.run(0);
    assert_eq!(
        (ring.take_used(), rig.status() & NEEDS_RESET),
        (None, NEEDS_RESET)
    );
    assert_eq!(*platter.bytes.lock().unwrap(), before);
}
