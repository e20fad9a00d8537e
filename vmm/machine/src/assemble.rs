//! Spec → machine, in named steps: RAM, VM, boot files, devices, device tree, first registers.

use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use linux_loader::cmdline::Cmdline;
use rvmm_backends::Lasting;
use rvmm_backends::console::{GuestInput, Hub};
use rvmm_backends::disk::Timer;
use rvmm_backends::entropy::HostEntropy;
use rvmm_backends::pages::HostPages;
use rvmm_backends::vsock::Muxer;
use rvmm_boot::memory::{self, GuestRam};
use rvmm_boot::{First, Loaded};
use rvmm_devices::bus::{Bus, BusDevice, Range};
use rvmm_devices::rtc::Rtc;
use rvmm_devices::syscon::{Syscon, SysconAction};
use rvmm_devices::uart::Uart;
use rvmm_devices::virtio::balloon::{Balloon, BalloonHandle};
use rvmm_devices::virtio::console::Console as VirtioConsole;
use rvmm_devices::virtio::net::Link;
use rvmm_devices::virtio::rng::Rng;
use rvmm_devices::virtio::vsock::Vsock;
use rvmm_hypervisor::{Config, Created, Entry, Facts, Vcpu, Vm};
use rvmm_spec::limits::MAX_CMDLINE;
use rvmm_spec::{Console, DiskBus, Outcome, Payload, Spec, Transport};
use vm_memory::GuestMemoryMmap;

use crate::MachineError;
use crate::alarm::{self, Alarm};
use crate::balloon::BalloonControl;
use crate::bays::Bays;
use crate::console::{AgentPort, Screen, Typed, UartInput, VirtioInput};
use crate::disks;
use crate::fdt::{self, Tree, Virtio};
use crate::firmware::Firmware;
use crate::flash::Banks;
use crate::gate::Gate;
use crate::interrupts::Wiring;
use crate::layout::{APLIC, FLASH, IMSIC, RTC, RTC_IRQ, SOURCES, SYSCON, UART, UART_IRQ, Window};
use crate::meters::Meters;
use crate::network::{self, Fed};
use crate::scsi::{Controller, Units};
use crate::share;
use crate::slots::{Backend, Slot};
use crate::transport::Places;
use crate::vcpu_loop::Exits;
use crate::watchdog::{self, Leash};

/// A machine whose vCPUs are ready to run.
pub struct Assembled {
    /// Guest RAM.
    pub ram: GuestRam,
    /// The vCPUs, the first with its entry set.
    pub vcpus: Vec<Box<dyn Vcpu>>,
    /// What answers their exits.
    pub exits: Exits,
    /// The disks, each for an event loop of its own.
    pub disks: Vec<Slot>,
    /// The other virtio devices, for the caller's event loop.
    pub slots: Vec<Slot>,
    /// What waits for a time, for the event loop.
    pub alarms: Vec<Alarm>,
    /// What the hub types into.
    pub input: Box<dyn GuestInput + Send>,
    /// The device tree that the guest finds.
    pub device_tree: Vec<u8>,
    /// The watchdog, if there is one.
    pub watchdog: Option<Leash>,
    /// The balloon, if there is one.
    pub balloon: Option<BalloonControl>,
    /// What its disks do.
    pub meters: Meters,
    /// The SCSI controller, if there is one, for an event loop of its own.
    pub scsi: Option<Slot>,
    /// Where devices are plugged in.
    pub bays: Bays,
}

/// The devices at their places.
struct Plugged {
    slots: Vec<Slot>,
    scsi: Option<(Slot, Controller)>,
    console: VirtioInput,
    balloon: Option<BalloonControl>,
    meters: Meters,
    watchdog: Option<(Leash, Alarm)>,
    places: Places,
}

/// What is there when asked for, and where among the devices.
struct AskedFor {
    balloon: Option<(usize, BalloonHandle)>,
    scsi: Option<(usize, Units)>,
}

/// Builds everything in its order. `create` makes the VM: the hypervisor's own, or a scripted one.
///
/// # Errors
/// The step that could not be done.
pub fn assemble(
    spec: &Spec,
    lasting: &Lasting,
    gate: &Arc<Gate>,
    create: impl FnOnce(&Config) -> Result<Created, rvmm_hypervisor::HypervisorError>,
) -> Result<Assembled, MachineError> {
    let ram = memory::back(spec.memory(), spec.memory_backing()).map_err(MachineError::Memory)?;
    let memory = ram.memory().clone();
    let loaded = rvmm_boot::load(spec.boot(), &memory, spec.memory()).map_err(MachineError::Boot)?;
    let banks = match (&spec.boot().payload, loaded.first) {
        (Payload::Firmware(firmware), First::Flash) => Some(Banks::open(firmware)?),
        _ => None,
    };
    let config = config(spec, &memory, banks.as_ref());
    let Created { vm, mut vcpus, facts } = create(&config).map_err(MachineError::Hypervisor)?;
    let bus = Bus::new();
    let wiring = Wiring::new(&vm, facts.interrupts, spec.cpus(), &bus).map_err(MachineError::Bus)?;
    let (uart, alarm) = plug_platform(&bus, &wiring, &lasting.hub, gate)?;
    if let Some(banks) = banks {
        let flash = banks.plug(&vm)?;
        plug(&bus, FLASH.nth(1), Arc::new(Mutex::new(flash)))?;
    }
    let plugged = plug_virtio(spec, lasting, gate, &memory, &bus, &wiring, &vm)?;
    let tree = device_tree(spec, &facts, &loaded)?;
    // Disks come first.
    let mut disks = plugged.slots;
    let slots = disks.split_off(spec.disks_on(DiskBus::Virtio).count());
    rvmm_boot::write_device_tree(&loaded, &tree, &memory).map_err(MachineError::Boot)?;
    if let Some(first) = vcpus.first_mut() {
        first
            .set_entry(entry(&loaded))
            .map_err(MachineError::Hypervisor)?;
    }
    let (watchdog, guard) = plugged.watchdog.unzip();
    let (scsi, controller) = plugged.scsi.unzip();
    let exits = Exits {
        bus: Arc::new(bus),
        firmware: Firmware::new(memory, Arc::new(Screen(lasting.hub.clone()))),
        unknown: Arc::new(AtomicU64::new(0)),
        counters: Arc::default(),
    };
    Ok(Assembled {
        ram,
        vcpus,
        exits,
        disks,
        slots,
        alarms: [alarm].into_iter().chain(guard).collect(),
        watchdog,
        input: input(spec, UartInput(uart), plugged.console),
        device_tree: tree,
        balloon: plugged.balloon,
        meters: plugged.meters,
        scsi,
        bays: Bays::new(plugged.places.into_bus().map(|bus| (bus, wiring)), controller),
    })
}

/// The console that is typed into.
fn input(spec: &Spec, uart: UartInput, console: VirtioInput) -> Box<dyn GuestInput + Send> {
    match spec.console() {
        Console::Serial => Box::new(uart),
        Console::Virtio => Box::new(console),
    }
}

/// Where the first vCPU begins.
fn entry(loaded: &Loaded) -> Entry {
    Entry {
        pc: loaded.in_ram().map_or(FLASH.base, |kernel| kernel.entry),
        hart: 0,
        device_tree: loaded.device_tree,
    }
}

fn config(spec: &Spec, memory: &GuestMemoryMmap, banks: Option<&Banks>) -> Config {
    let switches = spec.cpu().switches().iter();
    Config {
        cpus: spec.cpus(),
        isa: switches.map(|one| (one.extension.clone(), one.on)).collect(),
        roms: banks.map(Banks::roms).unwrap_or_default(),
        memory: memory.clone(),
        aplic: APLIC.base,
        imsic: IMSIC.base,
        sources: SOURCES,
    }
}

/// The devices that every machine has: UART, RTC, syscon.
fn plug_platform(
    bus: &Bus,
    wiring: &Wiring,
    hub: &Hub,
    gate: &Arc<Gate>,
) -> Result<(Arc<Mutex<Uart>>, Alarm), MachineError> {
    let screen = Arc::new(Screen(hub.clone()));
    let uart = Arc::new(Mutex::new(Uart::new(
        wiring.line(UART_IRQ),
        Arc::<Screen>::clone(&screen),
        screen,
    )));
    plug(bus, UART, Arc::<Mutex<Uart>>::clone(&uart))?;
    let timer = alarm::timer().map_err(|errno| MachineError::Alarm(errno.into()))?;
    let wake = Arc::clone(&timer);
    let rtc = Rtc::new(wall_clock).with_alarm(wiring.line(RTC_IRQ), move |wait| alarm::set(&wake, wait));
    let rtc = Arc::new(Mutex::new(rtc));
    plug(bus, RTC, Arc::<Mutex<Rtc>>::clone(&rtc))?;
    let end = Arc::clone(gate);
    let act = move |action| {
        end.report(match action {
            SysconAction::Poweroff => Outcome::Poweroff,
            SysconAction::Reset => Outcome::Reset,
            SysconAction::Fail(code) => {
                Outcome::Failed(format!("the guest switched itself off with failure code {code}"))
            }
        });
    };
    plug(bus, SYSCON, Arc::new(Mutex::new(Syscon::new(act))))?;
    Ok((uart, Alarm::new(rtc, timer)))
}

/// The virtio devices, in the order in which both backends put them: disks, nets, console, rng, then those that
/// are there when asked for, and behind them the watchdog.
fn plug_virtio(
    spec: &Spec,
    lasting: &Lasting,
    gate: &Arc<Gate>,
    memory: &GuestMemoryMmap,
    bus: &Bus,
    wiring: &Wiring,
    vm: &Arc<dyn Vm>,
) -> Result<Plugged, MachineError> {
    let Lasting { hub, agent, servers } = lasting;
    let meters = Meters::default();
    let mut devices = open_disks(spec, gate, &meters)?;
    for net in spec.nets() {
        devices.push(network::interface(net, &Link::default(), memory)?);
    }
    let typed = Typed::new(hub.clone());
    let console = VirtioConsole::new(Arc::new(Screen(hub.clone())), Box::new(typed.clone()))
        .with_port(Box::new(AgentPort(agent.clone())));
    let console_slot = devices.len();
    let words = Backend::new(
        agent.output_fd().as_raw_fd(),
        VirtioConsole::PORT_RECEIVE..VirtioConsole::PORT_RECEIVE + 1,
    );
    devices.push((Box::new(console), Some(words)));
    devices.push(entropy(spec)?);
    let asked_for = add_those_asked_for(spec, gate, &meters, &mut devices)?;
    for share in spec.shares() {
        devices.push(share::folder(share, servers, memory)?);
    }

    let mut places = Places::new(spec, bus, wiring, vm, memory)?;
    let mut slots = devices
        .into_iter()
        .map(|(device, backend)| places.plug(bus, wiring, device, backend))
        .collect::<Result<Vec<_>, _>>()?;
    let watchdog = plug_watchdog(spec, gate, &places, bus, wiring)?;
    let core = |index: usize| slots.get(index).map(|slot| Arc::clone(slot.core()));
    let console = VirtioInput {
        typed,
        core: core(console_slot).ok_or(MachineError::Console)?,
    };
    let balloon = asked_for.balloon;
    let balloon = balloon.and_then(|(slot, handle)| Some(BalloonControl::new(handle, core(slot)?)));
    let scsi = asked_for.scsi.map(|(at, units)| {
        let slot = slots.remove(at);
        let controller = Controller::new(units, slot.kick());
        (slot, controller)
    });
    Ok(Plugged {
        slots,
        scsi,
        console,
        balloon,
        meters,
        watchdog,
        places,
    })
}

fn open_disks(spec: &Spec, gate: &Arc<Gate>, meters: &Meters) -> Result<Vec<Fed>, MachineError> {
    let open = |(number, disk)| -> Result<Fed, MachineError> {
        let (block, alarm) = disks::open(disk, format!("disk{number}"), gate, meters)?;
        Ok((Box::new(block), alarm))
    };
    spec.disks_on(DiskBus::Virtio).map(open).collect()
}

/// The watchdog, which is no virtio device.
fn plug_watchdog(
    spec: &Spec,
    gate: &Arc<Gate>,
    places: &Places,
    bus: &Bus,
    wiring: &Wiring,
) -> Result<Option<(Leash, Alarm)>, MachineError> {
    if spec.watchdog().is_none() {
        return Ok(None);
    }
    let (leash, alarm, function) = watchdog::create(gate)?;
    places.plug_function(bus, wiring, spec.memory().bytes(), function)?;
    Ok(Some((leash, alarm)))
}

/// The entropy device; one with a limit has an alarm.
fn entropy(spec: &Spec) -> Result<Fed, MachineError> {
    let rng = Rng::new(Box::new(HostEntropy));
    let Some(bandwidth) = spec.rng().bandwidth else {
        return Ok((Box::new(rng), None));
    };
    let timer = Timer::new().map_err(MachineError::Timer)?;
    let alarm = Backend::new(timer.as_raw_fd(), 0..1);
    let rng = rng.limited(bandwidth.bytes(), Box::new(timer));
    Ok((Box::new(rng), Some(alarm)))
}

/// The devices that are there when asked for.
fn add_those_asked_for(
    spec: &Spec,
    gate: &Arc<Gate>,
    meters: &Meters,
    devices: &mut Vec<Fed>,
) -> Result<AskedFor, MachineError> {
    let balloon = spec.balloon().then(|| (devices.len(), BalloonHandle::default()));
    if let Some((_, handle)) = &balloon {
        let device = Balloon::new(Box::new(HostPages::default()), handle.clone());
        devices.push((Box::new(device), None));
    }
    if let Some(vsock) = spec.vsock() {
        let muxer = Muxer::listen(vsock.socket()).map_err(MachineError::Vsock)?;
        let backend = Backend::new(muxer.as_raw_fd(), Vsock::RECEIVE..Vsock::RECEIVE + 1);
        devices.push((Box::new(Vsock::new(Box::new(muxer), vsock.cid())), Some(backend)));
    }
    let mut scsi = None;
    if spec.scsi() {
        let (units, device) = Units::create(spec, gate, meters)?;
        scsi = Some((devices.len(), units));
        devices.push(device);
    }
    Ok(AskedFor { balloon, scsi })
}

fn plug(bus: &Bus, window: Window, device: Arc<Mutex<dyn BusDevice>>) -> Result<(), MachineError> {
    bus.insert(
        Range {
            base: window.base,
            len: window.len,
        },
        device,
    )
    .map_err(MachineError::Bus)
}

fn device_tree(spec: &Spec, facts: &Facts, loaded: &Loaded) -> Result<Vec<u8>, MachineError> {
    let mut cmdline = Cmdline::new(MAX_CMDLINE + 1).map_err(MachineError::Cmdline)?;
    cmdline
        .insert_str(&spec.boot().cmdline)
        .map_err(MachineError::Cmdline)?;
    let text = cmdline.as_cstring().map_err(MachineError::Cmdline)?;
    let mut seed = [0; 64];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| MachineError::Seed(errno.into()))?;
    let tree = Tree {
        facts,
        cpus: spec.cpus(),
        memory: spec.memory().bytes(),
        cmdline: &text.to_string_lossy(),
        loaded,
        virtio: match spec.transport() {
            Transport::Mmio => Virtio::Mmio(u32::try_from(spec.virtio_devices()).unwrap_or(0)),
            Transport::Pci => Virtio::Pci,
        },
        watchdog: spec.watchdog().is_some(),
        seed: &seed,
    };
    let blob = fdt::build(&tree).map_err(MachineError::DeviceTree)?;
    rvmm_boot::apply_overlays(blob, &spec.boot().overlays).map_err(MachineError::Boot)
}

fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
