//! The network interface against well-meaning and hostile drivers: checklist D.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use crate::BusDevice;
use crate::virtio::driver::{DATA, EVENT_IDX, HOLE, NEEDS_RESET, Rig, Ring, VERSION_1, WRITE, peek, poke};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CONTROL: usize = 2;
const HEADER: u64 = DATA;
const FRAME: u64 = DATA + 0x1000;

/// A network whose both ends are the test.
#[derive(Clone, Default)]
struct Cable {
    coming: Arc<Mutex<VecDeque<Vec<u8>>>>,
    gone: Arc<Mutex<Vec<Vec<u8>>>>,
    headers: Arc<Mutex<Vec<[u8; HEADER_LEN]>>>,
    told: Arc<Mutex<Vec<Told>>>,
    out_of_order: bool,
    plain: bool,
}

/// What the back end was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Offloads(Offloads),
    Used(bool),
}

impl Cable {
    fn send_in(&self, frame: &[u8]) {
        self.send_in_behind(&[0; HEADER_LEN], frame);
    }

    fn send_in_behind(&self, header: &[u8], frame: &[u8]) {
        self.coming.lock().unwrap().push_back([header, frame].concat());
    }

    fn headers(&self) -> Vec<[u8; HEADER_LEN]> {
        std::mem::take(&mut self.headers.lock().unwrap())
    }

    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    fn left(&self) -> usize {
        self.coming.lock().unwrap().len()
    }

    fn gone(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.gone.lock().unwrap())
    }
}

impl NetBackend for Cable {
    fn has_offloads(&self) -> bool {
        !self.plain
    }

    fn set_offloads(&mut self, offloads: Offloads) {
        self.told.lock().unwrap().push(Told::Offloads(offloads));
    }

    fn set_used(&mut self, used: bool) {
        self.told.lock().unwrap().push(Told::Used(used));
    }

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

    fn send(&mut self, header: &[u8; HEADER_LEN], frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.headers.lock().unwrap().push(*header);
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

fn options() -> NetOptions {
    NetOptions {
        mac: MAC,
        ..NetOptions::default()
    }
}

fn rig(cable: &Cable) -> Rig {
    Rig::up(Net::new(vec![Box::new(cable.clone())], options()))
}

/// Has the driver send one chain; returns what came out at the other end.
fn send(rig: &mut Rig, cable: &Cable, chain: &[(u64, u32, u16)]) -> Vec<Vec<u8>> {
    rig.set_ready(1, false);
    rig.start_queues();
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, TRANSMIT);
    ring.add(chain);
    rig.run(TRANSMIT);
    assert_eq!(ring.take_used(), Some((0, 0)), "a chain always comes back");
    cable.gone()
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
fn a_network_out_of_order_loses_frames_and_nothing_else() {
    let cable = Cable {
        out_of_order: true,
        ..Cable::default()
    };
    let mut rig = rig(&cable);
    send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 60, 0)]);
    rig.run(RECEIVE);
    assert_eq!(rig.status() & NEEDS_RESET, 0);
}

#[test]
fn a_frame_arrives_behind_a_plain_header() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    ring.add(&[(HEADER, 12, WRITE), (FRAME, 1600, WRITE)]);
    cable.send_in(&[7; 60]);
    rig.run(RECEIVE);
    assert_eq!((ring.take_used(), rig.irq.count()), (Some((0, 72)), 1));
    assert_eq!(peek(&memory, HEADER, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(peek(&memory, FRAME, 61), [&[7; 60][..], &[0]].concat());
}

#[test]
fn a_frame_waits_for_a_buffer_and_arrives_first() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    cable.send_in(&[1; 60]);
    cable.send_in(&[2; 60]);
    rig.run(RECEIVE);
    rig.run(RECEIVE);
    assert_eq!((ring.take_used(), cable.left(), rig.irq.count()), (None, 1, 0));
    ring.add(&[(FRAME, 1600, WRITE)]);
    ring.add(&[(FRAME + 0x1000, 1600, WRITE)]);
    rig.run(RECEIVE);
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
    rig.run(RECEIVE);
    rig.reset();
    let offered = rig.offered() & !EVENT_IDX;
    rig.bring_up(offered);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    ring.add(&[(FRAME, 1600, WRITE)]);
    rig.run(RECEIVE);
    assert_eq!((ring.take_used(), cable.left()), (None, 0));
}

#[test]
fn a_receive_buffer_outside_ram_stops_the_device() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    ring.add(&[(HOLE - 12, 1600, WRITE)]);
    cable.send_in(&[7; 60]);
    rig.run(RECEIVE);
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
    let mut ring = Ring::new(&memory, RECEIVE);
    for _ in 0..16 {
        ring.add(&[(FRAME, 1600, WRITE)]);
    }
    for _ in 0..100 {
        cable.send_in(&[7; 60]);
    }
    rig.run(RECEIVE);
    assert_eq!((ring.used_idx(), rig.kicked()), (16, vec![RECEIVE]));
    rig.run(RECEIVE);
    assert_eq!((ring.used_idx(), cable.left(), rig.kicked()), (16, 83, vec![]));
}

/// A rig whose driver has accepted these features only.
fn rig_with(cables: &[&Cable], features: u64) -> Rig {
    let backends = cables
        .iter()
        .map(|&cable| Box::new(cable.clone()) as Box<dyn NetBackend>);
    let mut rig = Rig::new(Net::new(backends.collect(), options()));
    rig.bring_up(features | VERSION_1);
    rig
}

#[test]
fn the_config_tells_address_link_pairs_and_mtu() {
    let link = Link::default();
    let options = NetOptions {
        mtu: Some(9000),
        link: link.clone(),
        ..options()
    };
    let backends: [Box<dyn NetBackend>; 2] = [Box::new(Cable::default()), Box::new(Cable::default())];
    let mut rig = Rig::new(Net::new(backends.into(), options));
    let mut config = [0xee; 14];
    rig.transport.read(0x100, &mut config);
    assert_eq!(config, [2, 0, 0, 0, 0, 7, 1, 0, 2, 0, 0x28, 0x23, 0, 0]);
    link.set_up(false);
    rig.transport.read(0x106, &mut config[..2]);
    assert_eq!(config[..2], [0, 0]);
}

#[test]
fn features_follow_what_the_interface_can_do() {
    let offered = |backends: Vec<Box<dyn NetBackend>>, mtu| {
        let options = NetOptions { mtu, ..options() };
        Rig::new(Net::new(backends, options)).offered() & 0xffff_ffff & !(3 << 28)
    };
    let plain = || -> Box<dyn NetBackend> {
        Box::new(Cable {
            plain: true,
            ..Cable::default()
        })
    };
    let always = 1 << 5 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18;
    assert_eq!(offered(vec![plain()], None), always);
    assert_eq!(
        offered(vec![plain(), plain()], Some(1500)),
        always | 1 << 22 | 1 << 3
    );
    let offloads = 7 | 7 << 7 | 7 << 11;
    assert_eq!(offered(vec![Box::new(Cable::default())], None), always | offloads);
    assert_eq!(
        offered(vec![Box::new(Cable::default()), plain()], None),
        always | 1 << 22
    );
}

#[test]
fn frames_beyond_the_longest_are_dropped() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let longest = u32::try_from(MAX_FRAME).unwrap();
    assert!(send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, longest + 1, 0)]).is_empty());
    assert!(send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 0x8_0000, 0)]).is_empty());
    assert_eq!(
        send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, longest, 0)])[0].len(),
        MAX_FRAME
    );
}

#[test]
fn headers_go_on_as_far_as_they_were_agreed_upon() {
    let cable = Cable::default();
    let chain = [(HEADER, 12, 0), (FRAME, 3000, 0)];
    let segment = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 9, 9];
    let mut all = rig(&cable);
    poke(&all.memory, HEADER, &segment);
    assert_eq!(send(&mut all, &cable, &chain).len(), 1);
    assert_eq!(cable.headers(), [[1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]]);
    let mut none = rig_with(&[&cable], 0);
    poke(&none.memory, HEADER, &segment);
    assert!(send(&mut none, &cable, &chain).is_empty());
    poke(&none.memory, HEADER, &[0; 12]);
    assert_eq!(send(&mut none, &cable, &chain).len(), 1);
}

#[test]
fn a_header_that_changes_after_the_check_changes_nothing() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    // The header's own bytes are the frame, too: what went on is what was checked.
    poke(&rig.memory, FRAME, &[0; 64]);
    send(&mut rig, &cable, &[(FRAME, 12, 0), (FRAME, 60, 0)]);
    assert_eq!(cable.headers(), [[0; 12]]);
}

#[test]
fn a_frame_takes_as_many_buffers_as_it_needs() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    for buffer in 0..4 {
        ring.add(&[(FRAME + 0x1000 * buffer, 100, WRITE)]);
    }
    let frame: Vec<u8> = (0..250).collect();
    cable.send_in(&frame);
    rig.run(RECEIVE);
    assert_eq!(
        [(); 4].map(|()| ring.take_used()),
        [Some((0, 100)), Some((1, 100)), Some((2, 62)), None]
    );
    assert_eq!(peek(&memory, FRAME, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    let arrived = [(12, 88), (0x1000, 100), (0x2000, 62)].map(|(at, len)| peek(&memory, FRAME + at, len));
    assert_eq!((arrived.concat(), rig.irq.count()), (frame, 1));
}

#[test]
fn a_frame_waits_until_there_are_enough_buffers() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    ring.add(&[(FRAME, 100, WRITE)]);
    cable.send_in(&[7; 250]);
    rig.run(RECEIVE);
    ring.add(&[(FRAME + 0x1000, 100, WRITE)]);
    rig.run(RECEIVE);
    assert_eq!((ring.used_idx(), rig.irq.count(), rig.kicked()), (0, 0, vec![]));
    ring.add(&[(FRAME + 0x2000, 100, WRITE)]);
    rig.run(RECEIVE);
    assert_eq!((ring.used_idx(), rig.irq.count()), (3, 1));
}

#[test]
fn an_interrupt_comes_whichever_of_a_frame_s_buffers_the_driver_waits_for() {
    for event in 0..3 {
        let cable = Cable::default();
        let mut rig = rig_with(&[&cable], EVENT_IDX | 1 << 15);
        let memory = rig.memory.clone();
        let mut ring = Ring::new(&memory, RECEIVE);
        ring.set_used_event(event);
        for _ in 0..3 {
            ring.add(&[(FRAME, 100, WRITE)]);
        }
        cable.send_in(&[7; 250]);
        rig.run(RECEIVE);
        assert_eq!((ring.used_idx(), rig.irq.count()), (3, 1), "{event}");
    }
}

#[test]
fn buffers_without_room_do_not_pile_up() {
    let cable = Cable::default();
    let mut rig = rig(&cable);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    cable.send_in(&[7; 250]);
    // One chain, offered again and again without its coming back.
    ring.add(&[(FRAME, 0, WRITE)]);
    rig.run(RECEIVE);
    for _ in 0..40 {
        ring.offer(0);
        rig.run(RECEIVE);
    }
    assert_eq!((ring.used_idx(), rig.status() & NEEDS_RESET), (0, NEEDS_RESET));
}

#[test]
fn without_mergeable_buffers_one_that_is_too_small_comes_back_empty_and_untouched() {
    let cable = Cable::default();
    let mut rig = rig_with(&[&cable], 0);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    poke(&memory, FRAME, &[0xee; 100]);
    for chain in [(FRAME, 71, WRITE), (FRAME, 0, WRITE), (FRAME, 1600, 0)] {
        ring.add(&[chain]);
        cable.send_in(&[7; 60]);
    }
    rig.run(RECEIVE);
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
    let mut ring = Ring::new(&memory, RECEIVE);
    let len = u32::try_from(HEADER_LEN + MAX_FRAME).unwrap();
    ring.add(&[(FRAME, len, WRITE)]);
    cable.send_in(&[7; MAX_FRAME]);
    rig.run(RECEIVE);
    assert_eq!(ring.take_used(), Some((0, len)));
}

#[test]
fn nothing_passes_a_link_that_is_down() {
    let cable = Cable::default();
    let link = Link::default();
    let options = NetOptions {
        link: link.clone(),
        ..options()
    };
    let mut rig = Rig::up(Net::new(vec![Box::new(cable.clone())], options));
    link.set_up(false);
    assert!(send(&mut rig, &cable, &[(HEADER, 12, 0), (FRAME, 60, 0)]).is_empty());
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    ring.add(&[(FRAME, 1600, WRITE)]);
    cable.send_in(&[1; 60]);
    rig.run(RECEIVE);
    assert_eq!((ring.take_used(), cable.left()), (None, 0));
    link.set_up(true);
    cable.send_in(&[2; 60]);
    rig.run(RECEIVE);
    assert_eq!(ring.take_used(), Some((0, 72)));
}

/// Has the driver give one command; returns the answer, if it came.
fn command(rig: &mut Rig, queue: usize, bytes: &[u8]) -> Option<u8> {
    poke(&rig.memory, DATA, &[0xee; 32]);
    poke(&rig.memory, DATA, bytes);
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, queue);
    let before = ring.used_idx();
    let len = u32::try_from(bytes.len()).unwrap();
    ring.add(&[(DATA, len, 0), (DATA + 0x20, 1, WRITE)]);
    poke(&memory, DATA + 0x20, &[0xee]);
    rig.run(queue);
    (ring.used_idx() != before).then(|| peek(&memory, DATA + 0x20, 1)[0])
}

#[test]
fn offloads_are_what_the_driver_took_and_may_become_less() {
    let cable = Cable::default();
    let all = Offloads {
        checksum: true,
        tso4: true,
        tso6: true,
        ecn: true,
    };
    let mut rig = rig(&cable);
    assert_eq!(cable.told(), [Told::Offloads(all), Told::Used(true)]);
    let set = |bits: u64| [&[5, 0][..], &bits.to_le_bytes()].concat();
    assert_eq!(command(&mut rig, CONTROL, &set(1 << 1 | 1 << 7)), Some(0));
    let less = Offloads {
        checksum: true,
        tso4: true,
        ..Offloads::default()
    };
    assert_eq!(cable.told(), [Told::Offloads(less)]);
    assert_eq!(command(&mut rig, CONTROL, &set(1 << 10)), Some(1));
    assert_eq!(command(&mut rig, CONTROL, &set(u64::MAX)), Some(1));
    assert_eq!(cable.told(), []);
}

#[test]
fn a_driver_uses_as_many_pairs_as_there_are_and_not_none() {
    let (first, second) = (Cable::default(), Cable::default());
    let mut rig = rig_with(&[&first, &second], spec::FEATURE_MQ | spec::FEATURE_COMMANDS);
    let pairs = |count: u16| [&[4, 0][..], &count.to_le_bytes()].concat();
    assert_eq!((first.told().len(), second.told().len()), (2, 2));
    assert_eq!(command(&mut rig, 4, &pairs(2)), Some(0));
    assert_eq!(
        (first.told(), second.told()),
        (vec![Told::Used(true)], vec![Told::Used(true)])
    );
    assert_eq!(command(&mut rig, 4, &pairs(1)), Some(0));
    assert_eq!(second.told(), [Told::Used(false)]);
    for wrong in [0, 3, 0x8000, 0xffff] {
        assert_eq!(command(&mut rig, 4, &pairs(wrong)), Some(1), "{wrong}");
    }
    assert_eq!((first.told(), second.told()), (vec![Told::Used(true)], vec![]));
}

#[test]
fn each_pair_has_its_own_network() {
    let (first, second) = (Cable::default(), Cable::default());
    let mut rig = rig_with(&[&first, &second], spec::FEATURE_MQ | spec::FEATURE_COMMANDS);
    let memory = rig.memory.clone();
    Ring::watch(&memory, 3).add(&[(HEADER, 12, 0), (FRAME, 60, 0)]);
    rig.run(3);
    assert_eq!((first.gone().len(), second.gone().len()), (0, 1));
    Ring::watch(&memory, 2).add(&[(FRAME, 1600, WRITE)]);
    second.send_in(&[7; 60]);
    rig.run(Net::receive_queue(1));
    assert_eq!(Ring::watch(&memory, 2).used_idx(), 1);
}

#[test]
fn a_driver_without_many_queues_finds_the_commands_behind_the_first_pair() {
    let (first, second) = (Cable::default(), Cable::default());
    let mut rig = rig_with(&[&first, &second], spec::FEATURE_COMMANDS);
    assert_eq!(command(&mut rig, CONTROL, &[0, 0, 1]), Some(0));
    assert_eq!(command(&mut rig, CONTROL, &[4, 0, 2, 0]), Some(1));
    assert_eq!(command(&mut rig, 4, &[0, 0, 1]), None);
}

#[test]
fn a_driver_that_has_not_agreed_to_commands_has_no_queue_for_them() {
    let (first, second) = (Cable::default(), Cable::default());
    let mut rig = rig_with(&[&first, &second], 0);
    assert_eq!(command(&mut rig, CONTROL, &[0, 0, 1]), None);
    let mut rig = rig_with(&[&first, &second], spec::FEATURE_MQ);
    assert_eq!(command(&mut rig, 4, &[4, 0, 2, 0]), None);
    assert_eq!(second.told().last(), Some(&Told::Used(false)));
    assert_eq!(rig.status() & NEEDS_RESET, 0);
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let mut rig = rig(&Cable::default());
    for bytes in [
        &[][..],
        &[0],
        &[0, 0],
        &[0, 6, 1],
        &[1, 0, 0xff, 0xff, 0xff, 0xff],
        &[1, 1, 1, 2, 3, 4, 5, 6],
        &[2, 0, 1, 0],
        &[3, 0],
        &[4, 0, 1],
        &[4, 1, 1, 0],
        &[5, 0, 1],
        &[0xff, 0xff, 0xff],
    ] {
        assert_eq!(command(&mut rig, CONTROL, bytes), Some(1), "{bytes:?}");
    }
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, RECEIVE);
    ring.add(&[(DATA, 3, 0)]);
    assert_eq!(rig.status() & NEEDS_RESET, 0);
}
