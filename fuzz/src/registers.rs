//! Registers in any order, by any width.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rvmm_devices::bus::{Bus, Range};
use rvmm_devices::console::ConsoleOutput;
use rvmm_devices::interrupt::LevelLine;
use rvmm_devices::pci::Placed;
use rvmm_devices::pci::intx::{Intx, Wire};
use rvmm_devices::pci::msix::{Message, MessageLine};
use rvmm_devices::plic::Plic;
use rvmm_devices::rtc::Rtc;
use rvmm_devices::syscon::Syscon;
use rvmm_devices::uart::{InputRoom, Uart};
use rvmm_devices::virtio::MmioTransport;
use rvmm_devices::virtio::blk::{Block, BlockOptions};
use rvmm_devices::virtio::transport::pci::{PciWiring, function};
use rvmm_devices::{BusDevice, IrqLine};

use crate::queues::{World, ram};
use crate::script::Script;

/// Nobody is at the other end.
struct Nobody;

impl IrqLine for Nobody {
    fn trigger(&self) {}
}

impl LevelLine for Nobody {
    fn set(&self, _: bool) {}
}

impl ConsoleOutput for Nobody {
    fn write(&self, bytes: &[u8]) {
        assert!(!bytes.is_empty());
    }
}

impl InputRoom for Nobody {
    fn input_room(&self) {}
}

impl MessageLine for Nobody {
    fn route(&self, _: Message) {}

    fn trigger(&self) {}
}

impl Placed for Nobody {
    fn placed(&mut self, _: Option<u64>) {}
}

/// One access: its place, its width out of 1, 2, 4, 8 (and now and then something that no CPU does), read or write.
fn access(device: &mut dyn BusDevice, step: u8, offset: u64, script: &mut Script<'_>) {
    let width = [1, 2, 4, 8, 4, 4, 3, 0][usize::from(step >> 1 & 7)];
    let mut data = script.double().to_le_bytes();
    if step & 1 == 0 {
        device.write(offset, &data[..width]);
    } else {
        device.read(offset, &mut data[..width]);
    }
}

fn any_order(device: &mut dyn BusDevice, window: u64, script: &mut Script<'_>) {
    while let Some(step) = script.step() {
        let offset = u64::from(script.word()) % window;
        access(device, step, offset, script);
    }
}

/// The serial port, with input from outside between the accesses.
pub fn uart(script: &[u8]) {
    let mut uart = Uart::new(Arc::new(Nobody), Arc::new(Nobody), Arc::new(Nobody));
    let mut script = Script(script);
    while let Some(step) = script.step() {
        if step & 0xf0 == 0xf0 {
            let typed = [step; 80];
            assert!(uart.push_input(&typed) <= typed.len());
        }
        let offset = u64::from(script.byte());
        access(
            &mut uart,
            step,
            offset & if step & 0x80 == 0 { 7 } else { 0xff },
            &mut script,
        );
    }
}

/// The PLIC, with interrupts between the accesses.
pub fn plic(script: &[u8]) {
    let lines: Vec<Arc<dyn LevelLine>> = vec![Arc::new(Nobody), Arc::new(Nobody)];
    let mut plic = Plic::new(63, lines);
    let mut script = Script(script);
    while let Some(step) = script.step() {
        match step >> 5 {
            7 => plic.trigger(script.word()),
            6 => plic.set_level(script.word(), step & 1 == 0),
            5 => access(
                &mut plic,
                step,
                0x20_0000 + u64::from(script.half() & 0x3fff),
                &mut script,
            ),
            4 => access(
                &mut plic,
                step,
                0x2000 + u64::from(script.half() & 0x3fff),
                &mut script,
            ),
            _ => access(&mut plic, step, u64::from(script.word() % 0x60_0000), &mut script),
        }
    }
}

/// The clock.
pub fn rtc(script: &[u8]) {
    let mut rtc = Rtc::new(|| 1_000_000_007).with_alarm(Arc::new(Nobody), |rest: Option<Duration>| {
        assert!(rest.is_none_or(|rest| rest.as_nanos() <= u64::MAX.into()));
    });
    let mut script = Script(script);
    while let Some(step) = script.step() {
        let offset = u64::from(script.byte() & 0x3f);
        access(&mut rtc, step, offset, &mut script);
        rtc.alarm_reached();
    }
}

/// The power register.
pub fn syscon(script: &[u8]) {
    any_order(&mut Syscon::new(|_| ()), 0x1000, &mut Script(script));
}

fn disk() -> Box<Block> {
    Box::new(Block::new(Box::new(World), &BlockOptions::default()))
}

/// The registers of virtio-mmio.
pub fn virtio_mmio(script: &[u8]) {
    let mut transport = MmioTransport::new(disk(), ram(), Arc::new(Nobody), Arc::new(|_| ()));
    let core = Arc::clone(transport.core());
    let mut script = Script(script);
    while let Some(step) = script.step() {
        let offset = u64::from(script.half()) & if step & 0x80 == 0 { 0xfc } else { 0xfff };
        access(&mut transport, step, offset, &mut script);
        core.lock()
            .expect("a panic ends the test")
            .run_queue(usize::from(step >> 6));
    }
}

/// Config space and structures of a virtio device on PCI.
pub fn virtio_pci(script: &[u8]) {
    let wire = Arc::new(Wire::new(Arc::new(Nobody)));
    let wiring = PciWiring {
        intx: Arc::new(Intx::new(wire, 1)),
        messages: vec![Box::new(Nobody), Box::new(Nobody)],
        placed: Box::new(Nobody),
    };
    let (mut function, core) = function(disk(), ram(), Arc::new(|_| ()), wiring);
    let mut script = Script(script);
    while let Some(step) = script.step() {
        let mut data = script.word().to_le_bytes();
        let width = [1, 2, 4, 4][usize::from(step & 3)];
        let offset = script.half();
        match step >> 2 & 3 {
            0 => function.read(offset & 0xfff, &mut data[..width]),
            1 => function.write(offset & 0xfff, &data[..width]),
            _ => {
                let regions: Vec<_> = [0, 2]
                    .iter()
                    .flat_map(|&bar| function.regions(bar))
                    .cloned()
                    .collect();
                let region = &regions[usize::from(step >> 4) % regions.len()];
                let mut device = region.device.lock().expect("a panic ends the test");
                let offset = u64::from(offset) % region.range.len;
                access(&mut *device, step, offset, &mut script);
            }
        }
        core.lock().expect("a panic ends the test").run_queue(0);
    }
}

/// A bus: windows anywhere, accesses anywhere.
pub fn bus(script: &[u8]) {
    let mut script = Script(script);
    let bus = Bus::new();
    while let Some(step) = script.step() {
        let base = if step & 8 == 0 {
            u64::from(script.half())
        } else {
            script.double()
        };
        let mut data = [0; 8];
        match step & 3 {
            0 => {
                let len = if step & 16 == 0 {
                    u64::from(script.half())
                } else {
                    script.double()
                };
                // Two windows at one place are refused, and so is one that wraps around.
                bus.insert(Range { base, len }, Arc::new(Mutex::new(Syscon::new(|_| ()))))
                    .ok();
            }
            1 => bus.write(base, &data[..usize::from(step >> 4 & 7)]),
            _ => bus.read(base, &mut data[..usize::from(step >> 4 & 7)]),
        }
    }
}
