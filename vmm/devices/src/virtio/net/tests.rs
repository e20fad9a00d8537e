//! The network interface against well-meaning and hostile drivers: checklist D.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use crate::BusDevice;
use crate::virtio::driver::{DATA, HOLE, NEEDS_RESET, Rig, Ring, WRITE, peek, poke};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const HEADER: u64 = DATA;
const FRAME: u64 = DATA + 0x1000;

/// A network whose both ends are the test.
#[derive(Clone, Default)]
struct Cable {
    coming: Arc<Mutex<VecDeque<Vec<u8>>>>,
    gone: Arc<Mutex<Vec<Vec<u8>>>>,
    out_of_order: bool,
}

impl Cable {
    fn send_in(&self, frame: &[u8]) {
        self.coming.lock().unwrap().push_back(frame.to_vec());
    }

    fn left(&self) -> usize {
        self.coming.lock().unwrap().len()
    }

    fn gone(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.gone.lock().unwrap())
    }
}

impl NetBackend for Cable {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.out_of_order {
            return Err(io::Error::other("out of order"));
        }
        let Some(frame) = self.coming.lock().unwrap().pop_front() else {
            return Ok(None);
        };
        buffer[..frame.len()].copy_from_slice(&frame);
        Ok(Some(frame.len()))
    }

    fn send(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for part in frame {
            let start = bytes.len();
            bytes.resize(start + part.len(), 0);
            part.copy_to(&mut bytes[start..]);
        }
        self.gone.lock().unwrap().push(bytes);
        if self.out_of_order {
            Err(io::Error::other("out of order"))
        } else {
            Ok(())
        }
    }
}

fn rig(cable: &Cable) -> Rig {
    Rig::up(Net::new(Box::new(cable.clone()), MAC))
}

/// Has the driver send one chain; returns what came out at the other end.
fn send(rig: &mut Rig, cable: &Cable, chain: &[(u64, u32, u16)]) -> Vec<Vec<u8>> {
    rig.set_ready(1, false);
    rig.start_queues();
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Net::TRANSMIT);
    ring.add(chain);
    rig.run(Net::TRANSMIT);
    assert_eq!(ring.take_used(), Some((0, 0)), "a chain always comes back");
    cable.gone()
}

#[test]
fn the_config_tells_the_address() {
    let mut rig = rig(&Cable::default());
    let mut config = [0xee; 8];
    rig.transport.read(0x100, &mut config);
    assert_eq!(config, [2, 0, 0, 0, 0, 7, 0, 0]);
    assert_eq!(
        rig.offered() & 0xffff_ffff & !(3 << 28),
        1 << 5,
        "MAC and nothing else"
    );
}

#[test]
fn a_frame_leaves_without_its_header_however_it_is_cut() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let frame: Vec<u8> = (0..60).collect();
    poke(&rig.memory, FRAME, &frame);
    assert_eq!(
        send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 60, 0)]),
        [&frame[..]]
    );
    poke(&rig.memory, FRAME - 12, &[0; 12]);
    assert_eq!(send(&mut rig, &cable, &[(FRAME - 12, 72, 0)]), [&frame[..]]);
    let pieces = [
        (HEADER, 5, 0),
        (HEADER, 0, 0),
        (FRAME - 7, 8, 0),
        (FRAME + 1, 59, 0),
    ];
    assert_eq!(send(&mut rig, &cable, &pieces), [&frame[..]]);
}

#[test]
fn frames_that_are_too_short_are_dropped() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    for chain in [
        &[(HEADER, 0, 0)][..],
        &[(HEADER, 11, 0)],
        &[(HEADER, 12, 0)],
        &[(HEADER, 12, 0), (FRAME, 13, 0)],
        &[(HEADER, 100, WRITE)],
    ] {
        assert_eq!(send(&mut rig, &cable, chain), [[0u8; 0]; 0], "{chain:?}");
    }
    assert_eq!(
        send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 14, 0)]),
        [[0; 14]]
    );
}

#[test]
fn frames_over_64_kib_are_dropped() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    assert!(send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 0x1_0001, 0)]).is_empty());
    assert!(send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 0x8_0000, 0)]).is_empty());
    assert_eq!(
        send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 0x1_0000, 0)])[0].len(),
        MAX_FRAME
    );
}

#[test]
fn offloads_that_were_not_offered_are_not_performed() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    for (flags, gso) in [(1, 0), (0, 1), (0, 3), (0, 4), (0, 0x81), (0xff, 0xff)] {
        poke(
            &rig.memory,
            HEADER,
            &[flags, gso, 9, 9, 9, 9, 0xff, 0xff, 0xff, 0xff, 0, 0],
        );
        assert!(
            send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 60, 0)]).is_empty(),
            "{flags} {gso}"
        );
    }
    // Without those two the other fields mean nothing.
    poke(
        &rig.memory,
        HEADER,
        &[0, 0, 9, 9, 9, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    );
    assert_eq!(
        send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 60, 0)]).len(),
        1
    );
}

#[test]
fn a_network_out_of_order_loses_frames_and_nothing_else() {
    let cable = Cable {
        out_of_order: true,
        ..Cable::default()
    };
    let mut rig = rig(&cable);
    send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 60, 0)]);
    rig.run(Net::RECEIVE);
    assert_eq!(rig.status() & NEEDS_RESET, 0);
}

#[test]
fn a_frame_arrives_behind_a_plain_header() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Net::RECEIVE);
    ring.add(&[(HEADER, 12, WRITE), (FRAME, 1600, WRITE)]);
    cable.send_in(&[7; 60]);
    rig.run(Net::RECEIVE);
    assert_eq!((ring.take_used(), rig.irq.count()), (Some((0, 72)), 1));
    assert_eq!(peek(&memory, HEADER, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(peek(&memory, FRAME, 61), [&[7; 60][..], &[0]].concat());
}

#[test]
fn a_frame_waits_for_a_buffer_and_arrives_first() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Net::RECEIVE);
    cable.send_in(&[1; 60]);
    cable.send_in(&[2; 60]);
    rig.run(Net::RECEIVE);
    rig.run(Net::RECEIVE);
    assert_eq!((ring.take_used(), cable.left(), rig.irq.count()), (None, 1, 0));
    ring.add(&[(FRAME, 1600, WRITE)]);
    ring.add(&[(FRAME + 0x1000, 1600, WRITE)]);
    rig.run(Net::RECEIVE);
    assert_eq!((ring.used_idx(), cable.left(), rig.irq.count()), (2, 0, 1));
    assert_eq!(
        (peek(&memory, FRAME + 12, 1), peek(&memory, FRAME + 0x100c, 1)),
        (vec![1], vec![2])
    );
}

#[test]
fn a_frame_that_waited_is_forgotten_at_reset() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    cable.send_in(&[1; 60]);
    rig.run(Net::RECEIVE);
    rig.reset();
    let offered = rig.offered() & !crate::virtio::driver::EVENT_IDX;
    rig.bring_up(offered);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Net::RECEIVE);
    ring.add(&[(FRAME, 1600, WRITE)]);
    rig.run(Net::RECEIVE);
    assert_eq!((ring.take_used(), cable.left()), (None, 0));
}

#[test]
fn a_buffer_that_is_too_small_comes_back_empty_and_untouched() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Net::RECEIVE);
    poke(&memory, FRAME, &[0xee; 100]);
    for chain in [(FRAME, 71, WRITE), (FRAME, 0, WRITE), (FRAME, 1600, 0)] {
        ring.add(&[chain]);
        cable.send_in(&[7; 60]);
    }
    rig.run(Net::RECEIVE);
    assert_eq!(
        [ring.take_used(), ring.take_used(), ring.take_used()],
        [Some((0, 0)), Some((1, 0)), Some((2, 0))]
    );
    assert_eq!(peek(&memory, FRAME, 100), [0xee; 100]);
}

#[test]
fn the_largest_frame_fits() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Net::RECEIVE);
    ring.add(&[(FRAME, 0x1_000c, WRITE)]);
    cable.send_in(&[7; MAX_FRAME]);
    rig.run(Net::RECEIVE);
    assert_eq!(ring.take_used(), Some((0, 0x1_000c)));
}

#[test]
fn a_receive_buffer_outside_ram_stops_the_device() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Net::RECEIVE);
    ring.add(&[(HOLE - 12, 1600, WRITE)]);
    cable.send_in(&[7; 60]);
    rig.run(Net::RECEIVE);
    assert_eq!(
        (ring.take_used(), rig.status() & NEEDS_RESET),
        (None, NEEDS_RESET)
    );
}

#[test]
fn a_flood_of_frames_is_taken_in_turns() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Net::RECEIVE);
    for _ in 0..16 {
        ring.add(&[(FRAME, 1600, WRITE)]);
    }
    for _ in 0..100 {
        cable.send_in(&[7; 60]);
    }
    rig.run(Net::RECEIVE);
    assert_eq!((ring.used_idx(), rig.kicked()), (16, vec![Net::RECEIVE]));
    rig.run(Net::RECEIVE);
    assert_eq!((ring.used_idx(), cable.left(), rig.kicked()), (16, 83, vec![]));
}
