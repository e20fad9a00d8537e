use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::*;
use crate::virtio::driver::{DATA, Rig, Ring, WRITE, peek, poke};

const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 0x100;
const BUFFER: u64 = DATA + 0x1000;
const SECTORS: usize = 8;

/// A disk in memory that counts flushes.
#[derive(Clone, Default)]
struct Platter {
    bytes: Arc<Mutex<Vec<u8>>>,
    flushes: Arc<Mutex<u32>>,
    broken: bool,
}

impl Platter {
    fn new() -> Self {
        let bytes = (0..SECTORS * 512).map(|at| (at / 512) as u8 + 1).collect();
        Self {
            bytes: Arc::new(Mutex::new(bytes)),
            ..Self::default()
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.broken {
            Err(io::Error::other("broken"))
        } else {
            Ok(())
        }
    }
}

impl BlockBackend for Platter {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.check()?;
        let bytes = self.bytes.lock().unwrap();
        let mut at = usize::try_from(offset).unwrap();
        for buffer in buffers {
            buffer.copy_from(&bytes[at..at + buffer.len()]);
            at += buffer.len();
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.check()?;
        let mut bytes = self.bytes.lock().unwrap();
        let mut at = usize::try_from(offset).unwrap();
        for buffer in buffers {
            buffer.copy_to(&mut bytes[at..at + buffer.len()]);
            at += buffer.len();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        *self.flushes.lock().unwrap() += 1;
        self.check()
    }
}

fn rig(platter: &Platter) -> Rig {
    Rig::up(Block::new(Box::new(platter.clone()), &BlockOptions::default()))
}

fn put_header(memory: &GuestMemoryMmap, kind: u32, sector: u64) {
    poke(memory, HEADER, &kind.to_le_bytes());
    poke(memory, HEADER + 4, &[0; 4]);
    poke(memory, HEADER + 8, &sector.to_le_bytes());
    poke(memory, STATUS, &[0xee]);
}

/// Runs one request of header, these data buffers and a status byte; returns the status and the used length.
fn request(rig: &mut Rig, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> (u8, u32) {
    put_header(&rig.memory, kind, sector);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    let mut chain = vec![(HEADER, 16, 0)];
    chain.extend_from_slice(data);
    chain.push((STATUS, 1, WRITE));
    restart(rig);
    ring.add(&chain);
    rig.run(0);
    let (_, written) = ring.take_used().unwrap();
    (peek(&memory, STATUS, 1)[0], written)
}

/// Stops and starts the queue, so that both sides begin with empty rings.
fn restart(rig: &mut Rig) {
    rig.set_ready(0, false);
    rig.start_queues();
}

#[test]
fn reads_fill_the_driver_s_buffers() {
    let mut rig = rig(&Platter::new());
    let data = [(BUFFER, 512, WRITE), (BUFFER + 0x1000, 1024, WRITE)];
    assert_eq!(request(&mut rig, 0, 2, &data), (0, 1537));
    assert_eq!(peek(&rig.memory, BUFFER, 512), [3; 512]);
    assert_eq!(peek(&rig.memory, BUFFER + 0x1000, 1024)[511..513], [4, 5]);
}
