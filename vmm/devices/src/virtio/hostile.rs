//! Every virtio device against drivers that write anything anywhere. What must hold: no panic, an end, and not one
//! byte of RAM changed outside the rings and the buffers that a descriptor offers for writing.

use std::io;
use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, VolatileSlice};

use super::VirtioDevice;
use super::balloon::{Balloon, BalloonHandle, PageRelease};
use super::blk::{Block, BlockBackend, BlockOptions, Geometry};
use super::console::{Console, InputSource};
use super::driver::{
    DATA, DRIVER_OK, EVENT_IDX, INDIRECT, NEXT, RING_SIZE, Rig, Ring, VERSION_1, WRITE, descriptor,
};
use super::driver::{peek, poke};
use super::net::{HEADER_LEN, MAX_FRAME, Net, NetBackend, NetOptions};
use super::rng::{EntropySource, Rng};
use super::scsi::{Scsi, ScsiHandle, Unit, UnitOptions};
use super::vsock::{MAX_DATA, Op, Packet, Vsock, VsockBackend};
use crate::{BusDevice, ConsoleOutput};

/// Buffers lie in this much from [`DATA`] on, indirect tables behind it.
const BUFFERS_LEN: u32 = 0x4000;
const TABLES: u64 = DATA + 0x1_0000;
const TABLE_ENTRIES: u64 = 64;
/// RAM that is compared, from [`DATA`] on: buffers, tables and what lies behind them.
const WATCHED: usize = 0x1_2000;

/// The far end of every device: a small disk, a network and a keyboard that always have something, random bytes.
struct World;

impl BlockBackend for World {
    fn size(&self) -> u64 {
        64 * 512
    }

    fn read_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        assert!(offset + total(buffers) <= self.size());
        buffers
            .iter()
            .for_each(|buffer| buffer.copy_from(&vec![b'd'; buffer.len()]));
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        assert!(offset + total(buffers) <= self.size());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            physical_block: 512,
            discard: 512,
        }
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        assert!(len > 0 && offset + len <= self.size());
        Ok(())
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        self.discard(offset, len)
    }
}

impl NetBackend for World {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        buffer[..300].fill(b'n');
        Ok(Some(300))
    }

    fn has_offloads(&self) -> bool {
        true
    }

    fn send(&mut self, header: &[u8; HEADER_LEN], frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        let end = u64::from(u16::from_le_bytes([header[6], header[7]])) + u64::from(header[8]) + 2;
        assert!(total(frame) <= MAX_FRAME as u64 && (header[0] == 0 || end <= total(frame)));
        Ok(())
    }
}

impl ConsoleOutput for World {
    fn write(&self, bytes: &[u8]) {
        assert!(!bytes.is_empty() && bytes.len() <= super::console::MAX_CHAIN_BYTES);
    }
}

impl InputSource for World {
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        buffer[..100].fill(b'c');
        100
    }
}

impl EntropySource for World {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(b'r');
        Ok(())
    }
}

impl PageRelease for World {
    fn release(&mut self, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        Ok(())
    }
}

impl VsockBackend for World {
    fn send(&mut self, packet: &Packet, data: &[u8]) {
        assert!(data.is_empty() || packet.op == Op::Data && data.len() <= MAX_DATA);
    }

    fn receive(&mut self, data: &mut [u8]) -> Option<(Packet, usize)> {
        data.fill(b'v');
        let packet = Packet {
            guest_port: 1,
            host_port: 2,
            op: Op::Data,
            buffer: 0,
            forwarded: 0,
        };
        Some((packet, 100))
    }

    fn reset(&mut self) {}
}

fn total(buffers: &[VolatileSlice<'_>]) -> u64 {
    buffers.iter().map(|buffer| buffer.len() as u64).sum()
}

fn devices() -> [Box<dyn VirtioDevice>; 7] {
    let two_queues = BlockOptions {
        queues: 2,
        ..BlockOptions::default()
    };
    [
        Box::new(Block::new(Box::new(World), &two_queues)),
        Box::new(Net::new(
            vec![Box::new(World), Box::new(World)],
            NetOptions::default(),
        )),
        Box::new(Console::new(Arc::new(World), Box::new(World))),
        Box::new(Rng::new(Box::new(World))),
        Box::new(Balloon::new(Box::new(World), BalloonHandle::default())),
        Box::new(Vsock::new(Box::new(World), 3)),
        Box::new(Scsi::new(units())),
    ]
}

/// Two disks, of which one can only be read.
fn units() -> ScsiHandle {
    let handle = ScsiHandle::default();
    for (lun, read_only) in [(0, false), (1, true)] {
        let options = UnitOptions {
            read_only,
            ..UnitOptions::default()
        };
        handle.insert(lun, Unit::new(Box::new(World), &options)).unwrap();
    }
    handle
}

/// A descriptor as a test wants it: address, length, flags, next.
type Entry = (u64, u32, u16, u16);

/// The descriptor at this index: mostly sensible (what is read before what is written, chains that go forward), now
/// and then absurd.
fn entry(index: u16) -> impl Strategy<Value = Entry> {
    let place = prop_oneof![
        30 => (0..BUFFERS_LEN).prop_map(|offset| DATA + u64::from(offset)),
        1 => any::<u64>(),
    ];
    let len = prop_oneof![
        8 => Just(16u32),
        4 => 0u32..64,
        4 => Just(512u32),
        1 => 0..BUFFERS_LEN,
        1 => any::<u32>(),
    ];
    let write = if index % RING_SIZE < 6 { 0 } else { WRITE };
    let flags = prop_oneof![10 => Just(write | NEXT), 10 => Just(write), 1 => 0u16..4];
    let next = prop_oneof![30 => index + 1..index + 5, 1 => any::<u16>()];
    let table = (0..TABLE_ENTRIES / 16, 1u32..16, 0u16..4)
        .prop_map(|(table, len, flags)| (TABLES + 0x100 * table, len * 16, INDIRECT | flags));
    prop_oneof![15 => (place, len, flags), 1 => table]
        .prop_flat_map(move |(addr, len, flags)| (Just(addr), Just(len), Just(flags), next.clone()))
}

/// A descriptor for each index of `tables` tables.
fn entries(tables: u16) -> Vec<impl Strategy<Value = Entry>> {
    (0..tables * RING_SIZE)
        .map(|index| entry(index % RING_SIZE))
        .collect()
}

/// The ranges in which a device may write, given these descriptors.
fn offered<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<(u64, u64)> {
    entries
        .filter(|(_, _, flags, _)| flags & WRITE != 0)
        .map(|&(addr, len, ..)| (addr, addr.saturating_add(u64::from(len))))
        .collect()
}

/// The first byte of RAM that differs and that nobody offered.
fn stray(before: &[u8], after: &[u8], offered: &[(u64, u64)]) -> Option<u64> {
    (DATA..)
        .zip(before.iter().zip(after))
        .filter(|(_, (before, after))| before != after)
        .map(|(addr, _)| addr)
        .find(|addr| !offered.iter().any(|(start, end)| (start..end).contains(&addr)))
}

/// Requests of all kinds in the buffers' place, so that devices get beyond the first check.
fn fill_buffers(rig: &Rig, seed: &[u8]) {
    let requests: Vec<u8> = (0..BUFFERS_LEN / 16)
        .zip(seed.iter().cycle())
        .flat_map(|(_, &seed)| [seed % 14, 0, 0, 0, 0, 0, 0, 0, seed % 80, 0, 0, 0, 0, 0, 0, 0])
        .collect();
    poke(&rig.memory, DATA, &requests);
}

fn run_all(rig: &mut Rig) {
    for queue in [0, 1, 2, 0, 1, 2] {
        rig.run(queue);
    }
}

proptest! {
    #[test]
    fn arbitrary_descriptors_change_nothing_but_what_they_offer(
        table in entries(1),
        indirect in entries(4),
        heads in proptest::collection::vec(prop_oneof![15 => 0..RING_SIZE, 1 => any::<u16>()], 1..12),
        seed in proptest::collection::vec(any::<u8>(), 64),
        features in prop_oneof![Just(VERSION_1), Just(VERSION_1 | EVENT_IDX)],
        all in any::<bool>(),
    ) {
        for device in devices() {
            let mut rig = Rig::boxed(device);
            fill_buffers(&rig, &seed);
            let memory = rig.memory.clone();
            for (at, &(addr, len, flags, next)) in (TABLES..).step_by(16).zip(&indirect) {
                memory.write_obj(descriptor(addr, len, flags, next), GuestAddress(at)).unwrap();
            }
            let more = if all { rig.offered() & !EVENT_IDX } else { 0 };
            rig.bring_up(features | more);
            for queue in 0..rig.queue_count() {
                let ring = Ring::new(&memory, queue);
                for (index, &(addr, len, flags, next)) in (0..).zip(&table) {
                    ring.store(index, descriptor(addr, len, flags, next));
                }
                heads.iter().for_each(|&head| ring.offer(head));
            }
            let before = peek(&memory, DATA, WATCHED);
            run_all(&mut rig);
            let after = peek(&memory, DATA, WATCHED);
            let offered = offered(table.iter().chain(&indirect));
            prop_assert_eq!(stray(&before, &after, &offered), None);
        }
    }

    #[test]
    fn arbitrary_register_accesses_neither_panic_nor_touch_ram(
        accesses in proptest::collection::vec(
            (
                prop_oneof![4 => (0u64..0x48).prop_map(|word| word * 4), 1 => 0u64..0x1200, 1 => any::<u64>()],
                prop_oneof![6 => Just(4usize), 1 => 0usize..9],
                prop_oneof![4 => 0u64..16, 1 => any::<u64>()],
                any::<bool>(),
            ),
            0..200,
        ),
        started: bool,
    ) {
        for device in devices() {
            let mut rig = Rig::boxed(device);
            if started {
                rig.bring_up(VERSION_1);
            }
            let before = peek(&rig.memory, DATA, BUFFERS_LEN as usize);
            for &(offset, width, value, write) in &accesses {
                let mut data = value.to_le_bytes()[..width.min(8)].to_vec();
                if write {
                    rig.transport.write(offset, &data);
                } else {
                    rig.transport.read(offset, &mut data);
                }
                rig.advance(DRIVER_OK);
                run_all(&mut rig);
            }
            prop_assert_eq!(peek(&rig.memory, DATA, BUFFERS_LEN as usize), before);
        }
    }
}
