//! The queue side of every virtio device: a driver that is up, and then writes descriptors, rings and registers as the
//! script says.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rvmm_devices::virtio::balloon::{Balloon, BalloonHandle, PageRelease};
use rvmm_devices::virtio::blk::{Block, BlockBackend, BlockOptions, Geometry};
use rvmm_devices::virtio::console::{Console, InputSource};
use rvmm_devices::virtio::medium::{Alarm, Limits};
use rvmm_devices::virtio::net::{HEADER_LEN, Net, NetBackend, NetOptions};
use rvmm_devices::virtio::rng::{EntropySource, Rng};
use rvmm_devices::virtio::scsi::{Scsi, ScsiHandle, Unit, UnitOptions};
use rvmm_devices::virtio::vsock::{Op, Packet, Vsock, VsockBackend};
use rvmm_devices::virtio::{MmioTransport, VirtioDevice};
use rvmm_devices::{BusDevice, ConsoleOutput, IrqLine};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};

use crate::script::Script;

/// RAM: two regions with a hole between them.
const RAM: u64 = 0x8000_0000;
const RAM_LEN: usize = 0x1_0000;
const HIGH: u64 = RAM + RAM_LEN as u64 + 0x1000;
/// Rings of a queue lie here, 0x1000 after those of the one before.
const RINGS: u64 = RAM;
const RING_SIZE: u16 = 16;
/// Bytes of a disk.
const DISK: u64 = 64 * 512;
/// The most that a script may do.
pub(crate) const MAX_STEPS: usize = 2000;

/// The far end of every device.
pub(crate) struct World;

fn total(buffers: &[VolatileSlice<'_>]) -> u64 {
    buffers.iter().map(|buffer| buffer.len() as u64).sum()
}

impl BlockBackend for World {
    fn size(&self) -> u64 {
        DISK
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            physical_block: 512,
            discard: 512,
        }
    }

    fn read_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        assert!(offset + total(buffers) <= DISK, "a read behind the disk's end");
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        assert!(offset + total(buffers) <= DISK, "a write behind the disk's end");
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= DISK),
            "a discard behind the disk's end"
        );
        Ok(())
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.discard(offset, len)
    }
}

/// A disk that must not be written.
struct ReadOnly;

impl BlockBackend for ReadOnly {
    fn size(&self) -> u64 {
        DISK
    }

    fn geometry(&self) -> Geometry {
        World.geometry()
    }

    fn read_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        World.read_at(offset, buffers)
    }

    fn write_at(&mut self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        unreachable!("a read-only disk is written")
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        unreachable!("blocks of a read-only disk are given back")
    }

    fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        unreachable!("zeroes are written to a read-only disk")
    }
}

/// A clock that stands still: what is ahead of its limits waits for ever.
impl Alarm for World {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn ring_at(&mut self, at: Duration) {
        assert!(at > self.now());
    }
}

impl NetBackend for World {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        buffer[..72].fill(0);
        Ok(Some(72))
    }

    fn send(&mut self, _: &[u8; HEADER_LEN], _: &[VolatileSlice<'_>]) -> io::Result<()> {
        Ok(())
    }
}

impl ConsoleOutput for World {
    fn write(&self, bytes: &[u8]) {
        assert!(!bytes.is_empty());
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
    fn release(&mut self, pages: &[VolatileSlice<'_>]) -> io::Result<()> {
        assert!(!pages.is_empty());
        Ok(())
    }
}

impl VsockBackend for World {
    fn send(&mut self, _packet: &Packet, data: &[u8]) {
        assert!(data.len() <= rvmm_devices::virtio::vsock::MAX_DATA);
    }

    fn receive(&mut self, data: &mut [u8]) -> Option<(Packet, usize)> {
        let packet = Packet {
            guest_port: 1,
            host_port: 2,
            op: Op::Data,
            buffer: 4096,
            forwarded: 0,
        };
        data[..50].fill(b'v');
        Some((packet, 50))
    }

    fn reset(&mut self) {}
}

impl IrqLine for World {
    fn trigger(&self) {}
}

/// The disk.
pub fn blk(script: &[u8]) {
    drive(
        Box::new(Block::new(Box::new(World), &BlockOptions::default())),
        script,
    );
}

/// A disk that can only be read.
pub fn blk_read_only(script: &[u8]) {
    let options = BlockOptions {
        read_only: true,
        ..BlockOptions::default()
    };
    drive(Box::new(Block::new(Box::new(ReadOnly), &options)), script);
}

/// The SCSI host with three disks: one that can only be read, one that lets a single command through.
pub fn scsi(script: &[u8]) {
    let handle = ScsiHandle::default();
    let only_read = UnitOptions {
        read_only: true,
        serial: "read-only".to_owned(),
        ..UnitOptions::default()
    };
    let limits = Limits {
        requests: Some(1),
        bytes: None,
    };
    let plain = UnitOptions::default();
    let units = [
        Unit::new(Box::new(World), &plain),
        Unit::new(Box::new(ReadOnly), &only_read),
        Unit::new(Box::new(World), &plain).limited(limits, Box::new(World)),
    ];
    for (lun, unit) in (0..).zip(units) {
        handle.insert(lun, unit).expect("its number is free");
    }
    drive(Box::new(Scsi::new(handle)), script);
}

/// The network interface.
pub fn net(script: &[u8]) {
    let backends: Vec<Box<dyn NetBackend>> = vec![Box::new(World), Box::new(World)];
    drive(Box::new(Net::new(backends, NetOptions::default())), script);
}

/// The console.
pub fn console(script: &[u8]) {
    drive(Box::new(Console::new(Arc::new(World), Box::new(World))), script);
}

/// The entropy device.
pub fn rng(script: &[u8]) {
    drive(Box::new(Rng::new(Box::new(World))), script);
}

/// The balloon.
pub fn balloon(script: &[u8]) {
    let handle = BalloonHandle::default();
    handle.set_target(1 << 20);
    handle.refresh_stats();
    drive(Box::new(Balloon::new(Box::new(World), handle)), script);
}

/// The sockets.
pub fn vsock(script: &[u8]) {
    drive(Box::new(Vsock::new(Box::new(World), 3)), script);
}

/// RAM as all targets have it.
pub(crate) fn ram() -> GuestMemoryMmap {
    let regions = [(GuestAddress(RAM), RAM_LEN), (GuestAddress(HIGH), 0x1000)];
    GuestMemoryMmap::from_ranges(&regions).expect("two small regions can be mapped")
}

/// A driver's view of one device.
struct Driver {
    memory: GuestMemoryMmap,
    transport: MmioTransport,
    kicks: Arc<Mutex<Vec<usize>>>,
}

pub(crate) fn drive(device: Box<dyn VirtioDevice>, script: &[u8]) {
    let memory = ram();
    let kicks = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&kicks);
    let kick = move |queue| {
        let mut noted = noted.lock().expect("nobody panics with it");
        if noted.len() < MAX_STEPS {
            noted.push(queue);
        }
    };
    let transport = MmioTransport::new(device, memory.clone(), Arc::new(World), Arc::new(kick));
    let mut driver = Driver {
        memory,
        transport,
        kicks,
    };
    driver.bring_up();
    let mut script = Script(script);
    for _ in 0..MAX_STEPS {
        let Some(step) = script.step() else { break };
        driver.act(step, &mut script);
    }
}

/// The place of a queue's table, available and used ring.
fn rings(queue: u64) -> [u64; 3] {
    [0, 0x400, 0x800].map(|offset| RINGS + 0x1000 * (queue & 7) + offset)
}

// === impl Driver ===

impl Driver {
    fn write(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    fn read(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    /// From reset to DRIVER_OK with all that is offered.
    fn bring_up(&mut self) {
        [0, 1, 3].iter().for_each(|&status| self.write(0x70, status));
        for half in [0, 1] {
            self.write(0x14, half);
            let offered = self.read(0x10);
            self.write(0x24, half);
            self.write(0x20, offered);
        }
        self.write(0x70, 11);
        for queue in 0..8u32 {
            self.write(0x30, queue);
            self.write(0x38, u32::from(RING_SIZE));
            for (register, address) in [0x80, 0x90, 0xa0].into_iter().zip(rings(queue.into())) {
                self.write(register, u32::try_from(address).unwrap_or(0));
                self.write(register + 4, 0);
            }
            self.write(0x44, 1);
        }
        self.write(0x70, 15);
    }

    fn poke(&self, address: u64, bytes: &[u8]) {
        // Outside RAM nothing is written.
        self.memory.write_slice(bytes, GuestAddress(address)).ok();
    }

    fn offer(&self, queue: u64, head: u16) {
        let [_, avail, _] = rings(queue);
        let idx: u16 = self.memory.read_obj(GuestAddress(avail + 2)).unwrap_or(0);
        self.poke(avail + 4 + 2 * u64::from(idx % RING_SIZE), &head.to_le_bytes());
        self.poke(avail + 2, &idx.wrapping_add(1).to_le_bytes());
    }

    fn act(&mut self, step: u8, script: &mut Script<'_>) {
        let queue = u64::from(step >> 4);
        match step & 15 {
            // Descriptors in RAM, and anywhere.
            0..=3 => {
                let index = u64::from(script.byte() % 16);
                let (place, len) = (RAM + u64::from(script.half()), u32::from(script.half()));
                self.descriptor(queue, index, place, len, script.byte());
            }
            4 => {
                let (index, place, len) = (u64::from(script.byte()), script.double(), script.word());
                self.descriptor(queue, index, place, len, script.byte());
            }
            5 | 6 => self.offer(queue, u16::from(script.byte() % 16)),
            7 => self.offer(queue, script.half()),
            8 | 9 => self.run(queue),
            10 => self.poke(RAM + u64::from(script.half()), &script.double().to_le_bytes()),
            11 => {
                let [_, avail, _] = rings(queue);
                self.poke(avail + 2, &script.half().to_le_bytes());
            }
            12 => {
                let register = u64::from(script.half() & 0x1ff);
                self.write(register, script.word());
            }
            13 => {
                let register = u64::from(script.half() & 0xfff);
                self.read(register);
            }
            14 => self.bring_up(),
            _ => self.run_kicked(),
        }
    }

    fn descriptor(&self, queue: u64, index: u64, place: u64, len: u32, flags: u8) {
        let [table, ..] = rings(queue);
        let at = table + 16 * index;
        self.poke(at, &place.to_le_bytes());
        self.poke(at + 8, &len.to_le_bytes());
        self.poke(at + 12, &u16::from(flags & 7).to_le_bytes());
        self.poke(at + 14, &u16::from(flags >> 3).to_le_bytes());
    }

    fn run(&self, queue: u64) {
        let mut core = self.transport.core().lock().expect("a panic ends the test");
        core.run_queue(usize::try_from(queue).unwrap_or(0));
    }

    fn run_kicked(&self) {
        let kicked = std::mem::take(&mut *self.kicks.lock().expect("nobody panics with it"));
        kicked
            .into_iter()
            .take(16)
            .for_each(|queue| self.run(queue as u64));
    }
}
