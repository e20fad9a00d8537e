//! The other side, for tests: a driver that brings a device up through its registers and puts chains on its queues,
//! well-formed or not. It speaks to either transport through [`Registers`].

mod mmio;
pub mod pci;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Core, MmioTransport, VirtioDevice};
use crate::IrqLine;

/// Descriptor flags.
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// RAM of the tests: two regions with a hole between them.
pub const RAM: u64 = 0x8000_0000;
pub const RAM_LEN: usize = 0x20_0000;
pub const HOLE: u64 = RAM + RAM_LEN as u64;
pub const HIGH_RAM: u64 = HOLE + 0x1000;
pub const HIGH_RAM_LEN: usize = 0x1_0000;

/// Rings lie here, one queue's after the other's; what is behind [`DATA`] is free for buffers.
const RINGS: u64 = RAM + 0x1000;
const RINGS_LEN: usize = 0x3000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
pub const DATA: u64 = RAM + 0x10_0000;

pub const RING_SIZE: u16 = 16;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;

/// Bits of the status register that a driver sets on its way up.
pub const ACKNOWLEDGE: u32 = 1;
pub const DRIVER: u32 = 2;
pub const DRIVER_OK: u32 = 4;
pub const FEATURES_OK: u32 = 8;
pub const NEEDS_RESET: u32 = 64;

/// Counts pulses.
#[derive(Default)]
pub struct Pulses(AtomicU32);

/// A device behind its transport, and all that a test has to look at.
pub struct Rig<T = MmioTransport> {
    pub memory: GuestMemoryMmap,
    pub transport: T,
    pub core: Arc<Mutex<Core>>,
    pub irq: Arc<Pulses>,
    pub kicks: Arc<Mutex<Vec<usize>>>,
}

/// What a driver does to a transport, whichever it is.
pub trait Registers {
    fn offered(&mut self) -> u64;
    fn accept(&mut self, features: u64);
    fn status(&mut self) -> u32;
    fn set_status(&mut self, status: u32);
    fn place_queue(&mut self, index: u32, size: u32, desc: u64, avail: u64, used: u64);
    fn set_ready(&mut self, index: u32, ready: bool);
    fn is_ready(&mut self, index: u32) -> bool;
}

/// The driver's side of one queue: table, available and used ring at places that all tests know.
pub struct Ring<'a> {
    memory: &'a GuestMemoryMmap,
    base: u64,
    next_descriptor: u16,
    used_seen: u16,
}

// === impl Pulses ===

impl Pulses {
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl IrqLine for Pulses {
    fn trigger(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub fn ram() -> GuestMemoryMmap {
    let regions = [
        (GuestAddress(RAM), RAM_LEN),
        (GuestAddress(HIGH_RAM), HIGH_RAM_LEN),
    ];
    GuestMemoryMmap::from_ranges(&regions).unwrap()
}

/// A descriptor as the driver writes it.
pub fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> RawDescriptor {
    RawDescriptor::from(Descriptor::new(addr, len, flags, next))
}

// === impl Rig ===

impl Rig {
    /// A device that has just been reset, behind virtio-mmio.
    pub fn new(device: impl VirtioDevice + 'static) -> Self {
        Self::boxed(Box::new(device))
    }

    /// [`Rig::new`] for a device of any kind.
    pub fn boxed(device: Box<dyn VirtioDevice>) -> Self {
        let memory = ram();
        let irq = Arc::new(Pulses::default());
        let kicks = Arc::new(Mutex::new(Vec::new()));
        let note = kicks.clone();
        let kick = Arc::new(move |queue| note.lock().unwrap().push(queue));
        let transport = MmioTransport::new(device, memory.clone(), irq.clone(), kick);
        Self {
            memory,
            core: transport.core().clone(),
            transport,
            irq,
            kicks,
        }
    }

    /// A device that a driver has brought up, with all features but event indices.
    pub fn up(device: impl VirtioDevice + 'static) -> Self {
        let mut rig = Self::new(device);
        rig.come_up();
        rig
    }
}

impl<T: Registers> Rig<T> {
    pub fn offered(&mut self) -> u64 {
        self.transport.offered()
    }

    pub fn accept(&mut self, features: u64) {
        self.transport.accept(features);
    }

    pub fn status(&mut self) -> u32 {
        self.transport.status()
    }

    pub fn place_queue(&mut self, index: u32, size: u32, desc: u64, avail: u64, used: u64) {
        self.transport.place_queue(index, size, desc, avail, used);
    }

    pub fn set_ready(&mut self, index: u32, ready: bool) {
        self.transport.set_ready(index, ready);
    }

    pub fn is_ready(&mut self, index: u32) -> bool {
        self.transport.is_ready(index)
    }

    /// Adds bits to the status, as drivers do.
    pub fn advance(&mut self, bits: u32) {
        let status = self.status();
        self.transport.set_status(status | bits);
    }

    /// Brings the device up, with all features but event indices.
    pub fn come_up(&mut self) {
        let features = self.offered() & !EVENT_IDX;
        self.bring_up(features);
    }

    /// From reset to FEATURES_OK.
    pub fn negotiate(&mut self, features: u64) {
        self.advance(ACKNOWLEDGE);
        self.advance(DRIVER);
        self.accept(features);
        self.advance(FEATURES_OK);
    }

    /// All queues where a [`Ring`] has them, empty.
    pub fn start_queues(&mut self) {
        let memory = self.memory.clone();
        for index in 0..self.queue_count() {
            let ring = Ring::new(&memory, index);
            let index = u32::try_from(index).unwrap();
            self.place_queue(
                index,
                u32::from(RING_SIZE),
                ring.table(),
                ring.avail(),
                ring.used(),
            );
            self.set_ready(index, true);
        }
    }

    /// From reset to DRIVER_OK.
    pub fn bring_up(&mut self, features: u64) {
        self.negotiate(features);
        self.start_queues();
        self.advance(DRIVER_OK);
        assert_eq!(self.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        self.kicks.lock().unwrap().clear();
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap()
    }

    pub fn queue_count(&self) -> usize {
        self.core().queue_count()
    }

    /// Lets the device work on a queue, as the event loop does.
    pub fn run(&mut self, queue: usize) {
        self.core().run_queue(queue);
    }

    /// The driver resets the device.
    pub fn reset(&mut self) {
        self.transport.set_status(0);
    }

    pub fn kicked(&self) -> Vec<usize> {
        std::mem::take(&mut self.kicks.lock().unwrap())
    }
}

// === impl Ring ===

impl<'a> Ring<'a> {
    /// The ring of this queue, made empty.
    pub fn new(memory: &'a GuestMemoryMmap, queue: usize) -> Self {
        let ring = Self::watch(memory, queue);
        poke(memory, ring.base, &[0; RINGS_LEN]);
        ring
    }

    /// The ring of this queue as it is.
    pub fn watch(memory: &'a GuestMemoryMmap, queue: usize) -> Self {
        Self {
            memory,
            base: RINGS + (queue * RINGS_LEN) as u64,
            next_descriptor: 0,
            used_seen: 0,
        }
    }

    pub fn table(&self) -> u64 {
        self.base
    }

    pub fn avail(&self) -> u64 {
        self.base + AVAIL
    }

    pub fn used(&self) -> u64 {
        self.base + USED
    }

    /// The device's side, without a device.
    pub fn queue(&self) -> Queue {
        let mut queue = Queue::new(RING_SIZE).unwrap();
        queue
            .try_set_desc_table_address(GuestAddress(self.table()))
            .unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(self.avail()))
            .unwrap();
        queue
            .try_set_used_ring_address(GuestAddress(self.used()))
            .unwrap();
        queue.set_ready(true);
        queue
    }

    /// Makes a chain of (address, length, flags) available; returns its head. NEXT and the indices are filled in.
    pub fn add(&mut self, buffers: &[(u64, u32, u16)]) -> u16 {
        let head = self.next_descriptor;
        for (position, &(addr, len, flags)) in buffers.iter().enumerate() {
            let next = (self.next_descriptor + 1) % RING_SIZE;
            let more = if position + 1 < buffers.len() { NEXT } else { 0 };
            self.store(self.next_descriptor, descriptor(addr, len, flags | more, next));
            self.next_descriptor = next;
        }
        self.offer(head);
        head
    }

    /// Writes one descriptor as it is.
    pub fn store(&self, index: u16, descriptor: RawDescriptor) {
        let at = self.table() + 16 * u64::from(index);
        self.memory.write_obj(descriptor, GuestAddress(at)).unwrap();
    }

    /// Makes a head available, whatever it is.
    pub fn offer(&self, head: u16) {
        let idx = self.avail_idx();
        self.store_u16(self.avail() + 4 + 2 * u64::from(idx % RING_SIZE), head);
        self.set_avail_idx(idx.wrapping_add(1));
    }

    pub fn avail_idx(&self) -> u16 {
        self.load_u16(self.avail() + 2)
    }

    pub fn set_avail_idx(&self, idx: u16) {
        self.store_u16(self.avail() + 2, idx);
    }

    pub fn set_avail_flags(&self, flags: u16) {
        self.store_u16(self.avail(), flags);
    }

    pub fn set_used_event(&self, event: u16) {
        self.store_u16(self.avail() + 4 + 2 * u64::from(RING_SIZE), event);
    }

    pub fn avail_event(&self) -> u16 {
        self.load_u16(self.used() + 4 + 8 * u64::from(RING_SIZE))
    }

    pub fn used_flags(&self) -> u16 {
        self.load_u16(self.used())
    }

    /// How many chains the device has used in all.
    pub fn used_idx(&self) -> u16 {
        self.load_u16(self.used() + 2)
    }

    /// The next used chain: its head and how many bytes were written.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used_seen == self.used_idx() {
            return None;
        }
        let at = self.used() + 4 + 8 * u64::from(self.used_seen % RING_SIZE);
        self.used_seen = self.used_seen.wrapping_add(1);
        let [id, len] = self.memory.read_obj::<[u32; 2]>(GuestAddress(at)).unwrap();
        Some((id, len))
    }

    fn load_u16(&self, addr: u64) -> u16 {
        self.memory.read_obj(GuestAddress(addr)).unwrap()
    }

    fn store_u16(&self, addr: u64, value: u16) {
        self.memory.write_obj(value, GuestAddress(addr)).unwrap();
    }
}

/// Puts bytes into RAM.
pub fn poke(memory: &GuestMemoryMmap, addr: u64, bytes: &[u8]) {
    memory.write_slice(bytes, GuestAddress(addr)).unwrap();
}

/// Takes bytes out of RAM.
pub fn peek(memory: &GuestMemoryMmap, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
    bytes
}
