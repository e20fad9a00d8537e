//! The socket device against well-meaning and hostile drivers: checklist E.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use crate::BusDevice;
use crate::virtio::driver::{DATA, HOLE, NEEDS_RESET, Rig, Ring, WRITE, peek, poke};

const CID: u32 = 3;
const BODY: u64 = DATA + 0x1000;

/// A packet and its data.
type Said = (Packet, Vec<u8>);

/// A back end whose both ends are the test.
#[derive(Clone, Default)]
struct Host {
    came: Arc<Mutex<Vec<Said>>>,
    going: Arc<Mutex<VecDeque<Said>>>,
    resets: Arc<Mutex<u32>>,
}

impl VsockBackend for Host {
    fn send(&mut self, packet: &Packet, data: &[u8]) {
        self.came.lock().unwrap().push((*packet, data.to_vec()));
    }

    fn receive(&mut self, data: &mut [u8]) -> Option<(Packet, usize)> {
        let (packet, bytes) = self.going.lock().unwrap().pop_front()?;
        data[..bytes.len()].copy_from_slice(&bytes);
        Some((packet, bytes.len()))
    }

    fn reset(&mut self) {
        *self.resets.lock().unwrap() += 1;
    }
}

impl Host {
    fn came(&self) -> Vec<Said> {
        std::mem::take(&mut self.came.lock().unwrap())
    }

    fn say(&self, op: Op, data: &[u8]) {
        self.going.lock().unwrap().push_back((packet(op), data.to_vec()));
    }
}

fn packet(op: Op) -> Packet {
    Packet {
        guest_port: 1000,
        host_port: 52,
        op,
        buffer: 0x1_0000,
        forwarded: 7,
    }
}

fn up(host: &Host) -> Rig {
    Rig::up(Vsock::new(Box::new(host.clone()), CID))
}

/// A header as the guest writes it: ours, turned round.
fn header(op: u16, len: u32) -> [u8; 44] {
    let mut header = spec::header(&packet(Op::Data), len, u64::from(CID));
    header[0..8].copy_from_slice(&u64::from(CID).to_le_bytes());
    header[8..16].copy_from_slice(&2u64.to_le_bytes());
    header[16..20].copy_from_slice(&1000u32.to_le_bytes());
    header[20..24].copy_from_slice(&52u32.to_le_bytes());
    header[30..32].copy_from_slice(&op.to_le_bytes());
    header
}

/// Has the driver send one packet with so many bytes behind its header; returns what reached the back end.
fn send(rig: &mut Rig, host: &Host, header: &[u8], body: u32) -> Vec<Said> {
    rig.set_ready(1, false);
    rig.start_queues();
    poke(&rig.memory, DATA, header);
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, Vsock::TRANSMIT);
    ring.add(&[(DATA, u32::try_from(header.len()).unwrap(), 0), (BODY, body, 0)]);
    rig.run(Vsock::TRANSMIT);
    assert_eq!(ring.take_used(), Some((0, 0)), "a chain always comes back");
    host.came()
}

fn with(mut header: [u8; 44], at: usize, bytes: &[u8]) -> [u8; 44] {
    header[at..at + bytes.len()].copy_from_slice(bytes);
    header
}

#[test]
fn the_config_tells_the_guest_its_number() {
    let mut rig = up(&Host::default());
    let mut config = [0xee; 12];
    rig.transport.read(0x100, &mut config);
    assert_eq!(config, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn packets_reach_the_back_end_with_their_data() {
    let host = Host::default();
    let mut rig = up(&host);
    poke(&rig.memory, BODY, b"hello");
    assert_eq!(
        send(&mut rig, &host, &header(5, 5), 100),
        [(packet(Op::Data), b"hello".to_vec())]
    );
    for (op, wanted) in [
        (1, Op::Request),
        (2, Op::Response),
        (3, Op::Reset),
        (6, Op::CreditUpdate),
        (7, Op::CreditRequest),
    ] {
        assert_eq!(
            send(&mut rig, &host, &header(op, 0), 0),
            [(packet(wanted), vec![])]
        );
    }
    let shutdown = with(header(4, 0), 32, &[2]);
    let wanted = Op::Shutdown {
        receive: false,
        send: true,
    };
    assert_eq!(send(&mut rig, &host, &shutdown, 0), [(packet(wanted), vec![])]);
}

#[test]
fn only_data_packets_have_data() {
    let host = Host::default();
    let mut rig = up(&host);
    assert_eq!(
        send(&mut rig, &host, &header(1, 0xffff_ffff), 100),
        [(packet(Op::Request), vec![])]
    );
}

#[test]
fn what_is_not_this_guest_s_or_not_for_the_host_is_dropped() {
    let host = Host::default();
    let mut rig = up(&host);
    for forged in [
        with(header(1, 0), 0, &[2]),
        with(header(1, 0), 0, &[4]),
        with(header(1, 0), 4, &[1]),
        with(header(1, 0), 8, &[3]),
        with(header(1, 0), 8, &[0]),
        with(header(1, 0), 12, &[1]),
    ] {
        assert_eq!(send(&mut rig, &host, &forged, 0), [], "{forged:?}");
    }
}

#[test]
fn unknown_kinds_and_operations_are_dropped() {
    let host = Host::default();
    let mut rig = up(&host);
    for strange in [
        with(header(1, 0), 28, &[2]),
        with(header(1, 0), 28, &[0]),
        with(header(1, 0), 29, &[1]),
        header(0, 0),
        header(8, 0),
        header(0xffff, 0),
    ] {
        assert_eq!(send(&mut rig, &host, &strange, 0), [], "{strange:?}");
    }
    assert_eq!(send(&mut rig, &host, &header(1, 0)[..43], 0), []);
    assert_eq!(rig.status() & NEEDS_RESET, 0);
}

#[test]
fn data_that_is_not_there_or_too_long_ends_its_connection() {
    let host = Host::default();
    let mut rig = up(&host);
    for (len, body) in [(101, 100), (1, 0), (0x1_0001, 0x1_0001), (0xffff_ffff, 0x100)] {
        assert_eq!(
            send(&mut rig, &host, &header(5, len), body),
            [(packet(Op::Reset), vec![])],
            "{len} {body}"
        );
    }
    assert_eq!(
        send(&mut rig, &host, &header(5, 0x1_0000), 0x1_0000)[0].1.len(),
        MAX_DATA
    );
}

#[test]
fn a_buffer_outside_ram_stops_the_device() {
    let host = Host::default();
    let mut rig = up(&host);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Vsock::TRANSMIT);
    ring.add(&[(HOLE - 20, 44, 0)]);
    rig.run(Vsock::TRANSMIT);
    assert_eq!((host.came(), rig.status() & NEEDS_RESET), (vec![], NEEDS_RESET));
}

#[test]
fn a_packet_reaches_the_driver_with_its_data() {
    let host = Host::default();
    let mut rig = up(&host);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Vsock::RECEIVE);
    ring.add(&[(DATA, 44, WRITE), (BODY, 100, WRITE)]);
    host.say(Op::Data, b"hello");
    rig.run(Vsock::RECEIVE);
    assert_eq!((ring.take_used(), rig.irq.count()), (Some((0, 49)), 1));
    assert_eq!(peek(&memory, BODY, 6), b"hello\0");
    let wanted = [
        &[2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..],
        &[52, 0, 0, 0, 0xe8, 3, 0, 0, 5, 0, 0, 0, 1, 0, 5, 0],
        &[0, 0, 0, 0, 0, 0, 1, 0, 7, 0, 0, 0],
    ];
    assert_eq!(peek(&memory, DATA, 44), wanted.concat());
}

#[test]
fn data_larger_than_a_buffer_goes_on_in_the_next() {
    let host = Host::default();
    let mut rig = up(&host);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Vsock::RECEIVE);
    ring.add(&[(DATA, 47, WRITE)]);
    ring.add(&[(DATA + 0x100, 200, WRITE)]);
    host.say(Op::Data, b"hello");
    rig.run(Vsock::RECEIVE);
    assert_eq!(
        [ring.take_used(), ring.take_used()],
        [Some((0, 47)), Some((1, 46))]
    );
    assert_eq!(
        (peek(&memory, DATA + 44, 3), peek(&memory, DATA + 0x100 + 44, 2)),
        (b"hel".to_vec(), b"lo".to_vec())
    );
    assert_eq!(
        (peek(&memory, DATA + 24, 1), peek(&memory, DATA + 0x118, 1)),
        (vec![3], vec![2])
    );
}

#[test]
fn a_buffer_without_room_goes_back_empty_and_the_packet_waits() {
    let host = Host::default();
    let mut rig = up(&host);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Vsock::RECEIVE);
    poke(&memory, DATA, &[0xee; 100]);
    for chain in [
        (DATA, 43, WRITE),
        (DATA, 44, WRITE),
        (DATA, 100, 0),
        (BODY, 60, WRITE),
    ] {
        ring.add(&[chain]);
    }
    host.say(Op::Data, b"x");
    rig.run(Vsock::RECEIVE);
    assert_eq!([(); 4].map(|()| ring.take_used().unwrap().1), [0, 0, 0, 45]);
    assert_eq!(peek(&memory, DATA, 100), [0xee; 100]);
}

#[test]
fn a_reset_forgets_the_waiting_packet_and_tells_the_back_end() {
    let host = Host::default();
    let mut rig = up(&host);
    host.say(Op::Data, b"old");
    rig.run(Vsock::RECEIVE);
    rig.reset();
    let offered = rig.offered() & !crate::virtio::driver::EVENT_IDX;
    rig.bring_up(offered);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Vsock::RECEIVE);
    ring.add(&[(DATA, 100, WRITE)]);
    rig.run(Vsock::RECEIVE);
    assert_eq!((ring.take_used(), *host.resets.lock().unwrap()), (None, 1));
}

#[test]
fn a_flood_of_packets_is_taken_in_turns() {
    let host = Host::default();
    let mut rig = up(&host);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, Vsock::RECEIVE);
    for _ in 0..16 {
        ring.add(&[(DATA, 100, WRITE)]);
        host.say(Op::Reset, b"");
    }
    host.say(Op::Reset, b"");
    rig.run(Vsock::RECEIVE);
    assert_eq!((ring.used_idx(), rig.kicked()), (16, vec![Vsock::RECEIVE]));
}
