//! A driver's words over virtio-pci: a bus with one function in slot 1, brought up as firmware would.

use std::sync::{Arc, Mutex};

use super::{Pulses, Registers, Rig, ram};
use crate::bus::{Bus, BusDevice, Range};
use crate::pci::host::ECAM;
use crate::pci::{Host, Intx, Message, MessageLine, Placed, Wire};
use crate::virtio::VirtioDevice;
use crate::virtio::transport::pci::{PciWiring, function};
use crate::{IrqLine, LevelLine};

/// Where the bridge's windows are.
pub const LOW: Range = Range {
    base: 0x4000_0000,
    len: 0x1000_0000,
};
pub const HIGH: Range = Range {
    base: 0x4_0000_0000,
    len: 0x1_0000_0000,
};
/// Where this driver puts the BARs.
pub const BAR0: u64 = HIGH.base + 0x10_0000;
pub const BAR2: u64 = LOW.base + 0x2000;
const SLOT: u64 = 1;

/// What a function did to the outside.
#[derive(Default)]
pub struct Outside {
    pub placed: Mutex<Vec<Option<u64>>>,
    pub levels: Mutex<Vec<bool>>,
    pub routed: Mutex<Vec<(usize, Message)>>,
    pub sent: Mutex<Vec<usize>>,
}

/// The bus as a vCPU sees it.
pub struct PciDriver {
    pub bus: Bus,
    pub host: Arc<Mutex<Host>>,
    pub outside: Arc<Outside>,
}

struct Line(usize, Arc<Outside>, Arc<Pulses>);
struct Follower(Arc<Outside>);
struct Level(Arc<Outside>);

impl MessageLine for Line {
    fn route(&self, message: Message) {
        self.1.routed.lock().unwrap().push((self.0, message));
    }

    fn trigger(&self) {
        self.2.trigger();
        self.1.sent.lock().unwrap().push(self.0);
    }
}

impl Placed for Follower {
    fn placed(&mut self, base: Option<u64>) {
        self.0.placed.lock().unwrap().push(base);
    }
}

impl LevelLine for Level {
    fn set(&self, high: bool) {
        self.0.levels.lock().unwrap().push(high);
    }
}

impl Rig<PciDriver> {
    /// A device that has just been reset, behind virtio-pci with so many MSI-X vectors; its BARs are placed.
    pub fn on_pci(device: Box<dyn VirtioDevice>, vectors: usize) -> Self {
        let memory = ram();
        let (irq, outside) = (Arc::new(Pulses::default()), Arc::new(Outside::default()));
        let kicks = Arc::new(Mutex::new(Vec::new()));
        let note = kicks.clone();
        let kick = Arc::new(move |queue| note.lock().unwrap().push(queue));
        let line = |number| -> Box<dyn MessageLine> { Box::new(Line(number, outside.clone(), irq.clone())) };
        let wire = Arc::new(Wire::new(Arc::new(Level(outside.clone()))));
        let wiring = PciWiring {
            intx: Arc::new(Intx::new(wire, 1)),
            messages: (0..vectors).map(line).collect(),
            placed: Box::new(Follower(outside.clone())),
        };
        let (function, core) = function(device, memory.clone(), kick, wiring);
        let behind = Arc::new(Bus::new());
        let mut host = Host::new(behind.clone(), vec![LOW, HIGH]);
        host.plug(1, function).unwrap();
        let host = Arc::new(Mutex::new(host));
        let bus = Bus::new();
        let ecam = Range {
            base: 0x3000_0000,
            len: ECAM,
        };
        bus.insert(ecam, host.clone()).unwrap();
        bus.bridge(LOW, behind.clone()).unwrap();
        bus.bridge(HIGH, behind).unwrap();
        let transport = PciDriver { bus, host, outside };
        transport.place();
        Self {
            memory,
            transport,
            core,
            irq,
            kicks,
        }
    }
}

// === impl PciDriver ===

impl PciDriver {
    pub fn place(&self) {
        self.set_config(0x10, (BAR0 & 0xffff_ffff) as u32);
        self.set_config(0x14, (BAR0 >> 32) as u32);
        self.set_config(0x18, (BAR2 & 0xffff_ffff) as u32);
        self.set_config(0x04, 0x6);
    }

    /// A register of the function's configuration space.
    pub fn config(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.host.lock().unwrap().read(SLOT << 15 | register, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn set_config(&self, register: u64, value: u32) {
        let mut host = self.host.lock().unwrap();
        host.write(SLOT << 15 | register, &value.to_le_bytes());
    }

    /// So many bytes of the machine.
    pub fn load(&self, address: u64, width: usize) -> u64 {
        let mut data = [0; 8];
        self.bus.read(address, &mut data[..width]);
        u64::from_le_bytes(data)
    }

    pub fn store(&self, address: u64, width: usize, value: u64) {
        self.bus.write(address, &value.to_le_bytes()[..width]);
    }

    /// The offsets of the capabilities and their ids, along the list.
    pub fn capabilities(&self) -> Vec<(u64, u8)> {
        let id = |at: u64| self.config(at).to_le_bytes();
        let first = u64::from(self.config(0x34) & 0xff);
        std::iter::successors(Some(first), |&at| Some(u64::from(id(at)[1])))
            .take_while(|&at| at != 0)
            .map(|at| (at, id(at)[0]))
            .collect()
    }

    /// Tells the function which vectors to use: 0 for the configuration, n + 1 for queue n.
    pub fn use_messages(&self, queues: u64) {
        let msix = self.capabilities().iter().find(|(_, id)| *id == 0x11).unwrap().0;
        self.set_config(msix, 0x8000_0000);
        for vector in 0..=queues {
            let entry = BAR2 + 16 * vector;
            self.store(entry, 4, 0x2800_0000);
            self.store(entry + 8, 4, 40 + vector);
            self.store(entry + 12, 4, 0);
        }
        self.store(BAR0 + 16, 2, 0);
        for queue in 0..queues {
            self.store(BAR0 + 22, 2, queue);
            self.store(BAR0 + 26, 2, queue + 1);
        }
    }
}

impl Registers for PciDriver {
    fn offered(&mut self) -> u64 {
        self.store(BAR0, 4, 0);
        let low = self.load(BAR0 + 4, 4);
        self.store(BAR0, 4, 1);
        low | self.load(BAR0 + 4, 4) << 32
    }

    fn accept(&mut self, features: u64) {
        for half in 0..2 {
            self.store(BAR0 + 8, 4, half);
            self.store(BAR0 + 12, 4, features >> (32 * half) & 0xffff_ffff);
        }
    }

    fn status(&mut self) -> u32 {
        (self.load(BAR0 + 20, 1) & 0xff) as u32
    }

    fn set_status(&mut self, status: u32) {
        self.store(BAR0 + 20, 1, status.into());
    }

    fn place_queue(&mut self, index: u32, size: u32, desc: u64, avail: u64, used: u64) {
        self.store(BAR0 + 22, 2, index.into());
        self.store(BAR0 + 24, 2, size.into());
        for (offset, address) in [(32, desc), (40, avail), (48, used)] {
            self.store(BAR0 + offset, 4, address & 0xffff_ffff);
            self.store(BAR0 + offset + 4, 4, address >> 32);
        }
    }

    fn set_ready(&mut self, index: u32, ready: bool) {
        self.store(BAR0 + 22, 2, index.into());
        self.store(BAR0 + 28, 2, ready.into());
    }

    fn is_ready(&mut self, index: u32) -> bool {
        self.store(BAR0 + 22, 2, index.into());
        self.load(BAR0 + 28, 2) == 1
    }
}
