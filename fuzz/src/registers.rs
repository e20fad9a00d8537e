//! Registers in any order, by any width.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rvmm_devices::bus::{Bus, Range};
use rvmm_devices::console::ConsoleOutput;
use rvmm_devices::flash::{BLOCK, Flash, FlashArray};
use rvmm_devices::interrupt::LevelLine;
use rvmm_devices::pci::intx::{Intx, Wire};
use rvmm_devices::pci::msix::{Message, MessageLine};
use rvmm_devices::pci::{Function, Host, Placed};
use rvmm_devices::plic::Plic;
use rvmm_devices::rtc::Rtc;
use rvmm_devices::syscon::Syscon;
use rvmm_devices::uart::{InputRoom, Uart};
use rvmm_devices::virtio::blk::{Block, BlockOptions};
use rvmm_devices::virtio::transport::pci::{PciWiring, function};
use rvmm_devices::virtio::{Core, MmioTransport};
use rvmm_devices::watchdog::{self, Watchdog};
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
    let (mut function, core) = on_pci(1, &Arc::new(Wire::new(Arc::new(Nobody))));
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

fn on_pci(slot: usize, wire: &Arc<Wire>) -> (Function, Arc<Mutex<Core>>) {
    let wiring = PciWiring {
        intx: Arc::new(Intx::new(Arc::clone(wire), slot)),
        messages: vec![Box::new(Nobody), Box::new(Nobody)],
        placed: Box::new(Nobody),
    };
    function(disk(), ram(), Arc::new(|_| ()), wiring)
}

/// A bridge with functions that come and go: their configuration space through its window, and their BARs wherever a
/// script has put them. None is decoded outside the bridge's windows.
pub fn pci_host(script: &[u8]) {
    let windows =
        [(0x4000_0000, 0x10_0000), (0x4_0000_0000, 0x1000_0000)].map(|(base, len)| Range { base, len });
    let behind = Arc::new(Bus::new());
    let mut host = Host::new(Arc::clone(&behind), windows.to_vec());
    let wire = Arc::new(Wire::new(Arc::new(Nobody)));
    let mut cores = [1, 2, 3].map(|slot| {
        let (function, core) = on_pci(slot, &wire);
        host.plug(slot, function).expect("the slot is free");
        core
    });
    let mut script = Script(script);
    while let Some(step) = script.step() {
        let slot = 1 + usize::from(step >> 3 & 3) % 3;
        let window = windows[usize::from(step >> 5 & 1)].base;
        match step & 7 {
            0 => access(&mut host, step >> 4, u64::from(script.word()), &mut script),
            // A BAR into a window, and the switch that has it decoded.
            1 => {
                let register = (slot as u64) << 15 | 0x10 | u64::from(step >> 6) << 2;
                let place = if step & 0x20 == 0 { window } else { 0x20 } | u64::from(script.half()) << 12;
                host.write(register, &place.to_le_bytes()[..4]);
            }
            2 => host.write((slot as u64) << 15 | 4, &[script.byte() & 7, step >> 4]),
            3 => access(
                &mut host,
                step >> 4,
                (slot as u64) << 15 | u64::from(script.half() & 0xff),
                &mut script,
            ),
            4 => drop(host.unplug(slot)),
            5 => {
                let (function, core) = on_pci(slot, &wire);
                if host.plug(slot, function).is_ok() {
                    cores[slot - 1] = core;
                }
            }
            _ => {
                let mut data = script.double().to_le_bytes();
                let place = window + u64::from(script.word() & 0xf_ffff);
                behind.write(place, &data[..4]);
                behind.read(place, &mut data);
            }
        }
        let mut core = cores[slot - 1].lock().expect("a panic ends the test");
        core.run_queue(0);
    }
}

/// A bank of flash that asserts that it is kept inside.
struct Bank(Vec<u8>);

impl FlashArray for Bank {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let at = usize::try_from(offset).expect("the bank is small");
        data.copy_from_slice(&self.0[at..at + data.len()]);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let at = usize::try_from(offset).expect("the bank is small");
        self.0[at..at + data.len()].copy_from_slice(data);
        offset & 0x1000 == 0
    }

    fn show(&mut self, _: bool) {}
}

/// Flash, with the commands that it knows among others.
pub fn flash(script: &[u8]) {
    let blocks = usize::try_from(2 * BLOCK).expect("two blocks fit");
    let mut flash = Flash::new(Box::new(Bank(vec![0xff; blocks])));
    let mut script = Script(script);
    while let Some(step) = script.step() {
        let offset = u64::from(script.word()) % (2 * BLOCK);
        if step & 0x80 == 0 {
            const COMMANDS: [u8; 12] = [
                0xff, 0x90, 0x98, 0x70, 0x50, 0x40, 0x10, 0x20, 0xd0, 0xe8, 0x60, 0x01,
            ];
            let command = COMMANDS[usize::from(step) % COMMANDS.len()];
            flash.write(offset & !3, &[command, 0, command, 0]);
        } else {
            access(&mut flash, step, offset, &mut script);
        }
    }
}

/// The watchdog, by its registers in configuration space and in memory, while time goes by and stands still. It bites only
/// when its time is up.
pub fn watchdog(script: &[u8]) {
    let (now, bites) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (clock, bitten) = (Arc::clone(&now), Arc::clone(&bites));
    let device = Watchdog::new(
        move || Duration::from_millis(clock.load(Ordering::Relaxed)),
        |_| (),
        move || {
            bitten.fetch_add(1, Ordering::Relaxed);
        },
    );
    let device = Arc::new(Mutex::new(device));
    let mut function = watchdog::function(&device);
    let memory: Vec<_> = function.regions(0).cloned().collect();
    let locked = || device.lock().expect("a panic ends the test");
    let mut script = Script(script);
    while let Some(step) = script.step() {
        let before = bites.load(Ordering::Relaxed);
        match step & 7 {
            0 => {
                now.fetch_add(u64::from(script.word()), Ordering::Relaxed);
                locked().time_is_up();
                continue;
            }
            1 => locked().stand_still(),
            2 => locked().go_on(),
            3 => function.write(
                0x60 | u16::from(step >> 3 & 0xc),
                &script.word().to_le_bytes()[..2],
            ),
            4 => {
                let mut region = memory[0].device.lock().expect("a panic ends the test");
                [0x80_u32, 0x86]
                    .iter()
                    .for_each(|magic| region.write(0xc, &magic.to_le_bytes()));
                region.write(u64::from(step >> 3 & 0xc), &script.word().to_le_bytes());
            }
            _ => {
                let mut region = memory[0].device.lock().expect("a panic ends the test");
                access(
                    &mut *region,
                    step >> 3,
                    u64::from(script.byte() & 15),
                    &mut script,
                );
            }
        }
        let mut data = [0; 4];
        function.read(0x60 | u16::from(step & 0xc), &mut data);
        assert_eq!(before, bites.load(Ordering::Relaxed), "it bites before its time");
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
