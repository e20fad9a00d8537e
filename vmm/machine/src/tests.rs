//! A whole machine around a scripted guest.

mod pci;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use event_manager::{EventManager, SubscriberOps};
use rvmm_backends::plugged::PluggedKind;
use rvmm_backends::vhost_user::Servers;
use rvmm_backends::{Lasting, News};
use rvmm_hypervisor::fake::{self, Act, FakeVm};
use rvmm_hypervisor::{Facts, Interrupts, sbi};
use rvmm_spec::{
    Boot, Disk, DiskBus, MemorySize, NetWish, Network, OnDiskError, OnStart, Outcome, Spec, SpecBuilder,
    Transport,
};

use super::*;
use crate::layout::{
    PCI_ECAM, PCI_LOW, PLIC, RAM_BASE, RTC, RTC_IRQ, SYSCON, UART, UART_IRQ, pci_source, virtio_slot,
};

const PATIENCE: Duration = Duration::from_secs(10);

struct Run {
    vm: Arc<FakeVm>,
    hub: Hub,
    machine: Machine,
    feeds: Vec<Feed>,
    news: Receiver<News>,
    _kernel: tempfile::NamedTempFile,
}

impl Run {
    fn outcome(&self) -> Outcome {
        match self.news.recv_timeout(PATIENCE).unwrap() {
            News::Ended(outcome) => outcome,
            other => unreachable!("{other:?}"),
        }
    }
}

/// The smallest file that is an Image.
fn kernel() -> tempfile::NamedTempFile {
    let mut bytes = [0; 4096];
    bytes[16..24].copy_from_slice(&4096u64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"RSC\x05");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

fn start(facts: Facts, scripts: Vec<Vec<Act>>) -> Run {
    start_with(facts, scripts, |wish| wish)
}

fn start_with(facts: Facts, scripts: Vec<Vec<Act>>, wish: impl FnOnce(SpecBuilder) -> SpecBuilder) -> Run {
    rvmm_hypervisor::install_kick().unwrap();
    let kernel = kernel();
    let cpus = scripts.len() as u64;
    let spec = Spec::builder(Boot::new(kernel.path()))
        .cpus(cpus)
        .memory(MemorySize::from_mib(32));
    let spec = wish(spec).build().unwrap();
    let hub = Hub::new().unwrap();
    let agent = Agent::new(Box::new(|_| {})).unwrap();
    let lasting = Lasting {
        hub: hub.clone(),
        agent,
        servers: Servers::default(),
    };
    let (sender, news) = mpsc::channel();
    let on_news: OnNews = Arc::new(move |said| sender.send(said).unwrap());
    let mut seen = None;
    let create = |_: &Config| {
        let (vm, created) = fake::create(facts, scripts);
        seen = Some(vm);
        Ok(created)
    };
    let sandbox = Sandbox::none();
    let (machine, feeds) = Machine::start_on(create, &spec, &lasting, Vec::new(), &sandbox, on_news).unwrap();
    Run {
        vm: seen.unwrap(),
        hub,
        machine,
        feeds,
        news,
        _kernel: kernel,
    }
}

fn outcome_of(script: Vec<Act>) -> Outcome {
    let run = start(fake::facts(), vec![script]);
    let outcome = run.outcome();
    run.machine.stop();
    outcome
}

#[test]
fn each_way_to_end_is_reported_as_what_it_is() {
    assert_eq!(outcome_of(vec![Act::Shutdown]), Outcome::Poweroff);
    assert_eq!(outcome_of(vec![Act::Reset]), Outcome::Reset);
    assert_eq!(
        outcome_of(vec![Act::Write(SYSCON.base, 0x5555u32.to_le_bytes().to_vec())]),
        Outcome::Poweroff
    );
    assert_eq!(
        outcome_of(vec![Act::Write(SYSCON.base, 0x7777u32.to_le_bytes().to_vec())]),
        Outcome::Reset
    );
    assert!(matches!(outcome_of(vec![Act::Fault]), Outcome::Failed(why) if why.contains("cannot emulate")));
}

#[test]
fn what_the_guest_prints_reaches_the_console() {
    let hello = |byte| Act::Write(UART.base, vec![byte]);
    let call = sbi::Call {
        extension: sbi::LEGACY_PUTCHAR,
        function: 0,
        args: [u64::from(b'!'), 0, 0, 0, 0, 0],
    };
    let run = start(
        fake::facts(),
        vec![vec![hello(b'h'), hello(b'i'), Act::Sbi(call), Act::Shutdown]],
    );
    run.outcome();
    assert_eq!(run.hub.end(), 3);
    run.machine.stop();
}

#[test]
fn the_first_vcpu_starts_at_the_kernel_with_the_device_tree() {
    let run = start(fake::facts(), vec![vec![Act::Shutdown], vec![]]);
    run.outcome();
    let [entry] = run.vm.entries()[..] else {
        unreachable!("only vCPU 0 is started by us")
    };
    assert_eq!((entry.pc, entry.hart), (RAM_BASE + 0x20_0000, 0));
    assert_eq!(entry.device_tree, RAM_BASE + (30 << 20));
    run.machine.stop();
}

#[test]
fn every_virtio_slot_answers_and_the_next_one_is_empty() {
    let magic = |index| Act::Read(virtio_slot(index).0.base, 4);
    let run = start(
        fake::facts(),
        vec![vec![magic(0), magic(1), magic(2), Act::Shutdown]],
    );
    run.outcome();
    assert_eq!(
        run.vm.reads(),
        [b"virt".to_vec(), b"virt".to_vec(), vec![0xff; 4]]
    );
    run.machine.stop();
}

#[test]
fn a_uart_interrupt_is_a_pulse_with_aia_and_an_external_interrupt_without() {
    // Enable the "transmitter empty" interrupt.
    let enable = Act::Write(UART.base + 1, vec![2]);
    let print = Act::Write(UART.base, vec![b'x']);
    let with_aia = start(
        fake::facts(),
        vec![vec![enable.clone(), print.clone(), Act::Shutdown]],
    );
    with_aia.outcome();
    assert!(with_aia.vm.pulses().contains(&UART_IRQ));
    with_aia.machine.stop();

    let word = |offset: u64, value: u32| Act::Write(PLIC.base + offset, value.to_le_bytes().to_vec());
    let plic = vec![
        word(u64::from(UART_IRQ) * 4, 1),
        word(0x2000, 1 << UART_IRQ),
        enable,
        print,
        Act::Shutdown,
    ];
    let facts = Facts {
        interrupts: Interrupts::Plic,
        ..fake::facts()
    };
    let without = start(facts, vec![plic]);
    without.outcome();
    assert_eq!(without.vm.externals().first(), Some(&(0, true)));
    without.machine.stop();
}

fn write_long(address: u64, value: u32) -> Act {
    Act::Write(address, value.to_le_bytes().to_vec())
}

#[test]
fn calls_and_exits_that_nobody_knows_do_not_stop_the_guest() {
    let call = sbi::Call {
        extension: 0x0a00_0000,
        function: 9,
        args: [u64::MAX; 6],
    };
    let run = start(
        fake::facts(),
        vec![vec![
            Act::Sbi(call),
            Act::Unknown(99),
            Act::Read(0, 8),
            Act::Shutdown,
        ]],
    );
    assert_eq!(run.outcome(), Outcome::Poweroff);
    assert_eq!(run.vm.answers(), [None]);
    run.machine.stop();
}

#[test]
fn the_seed_register_gives_the_host_s_randomness() {
    let script = [vec![Act::Seed; 16], vec![Act::Shutdown]].concat();
    let run = start(fake::facts(), vec![script]);
    assert_eq!(run.outcome(), Outcome::Poweroff);
    let seeds = run.vm.seeds();
    assert!(
        seeds.len() == 16 && seeds.iter().any(|seed| *seed != seeds[0]),
        "{seeds:?}"
    );
    run.machine.stop();
}

#[test]
fn system_suspend_is_not_supported_and_the_guest_goes_on() {
    let suspend = sbi::Call {
        extension: 0x5355_5350,
        function: 0,
        args: [0, RAM_BASE, 0, 0, 0, 0],
    };
    let run = start(fake::facts(), vec![vec![Act::Sbi(suspend), Act::Shutdown]]);
    assert_eq!(run.outcome(), Outcome::Poweroff);
    assert_eq!(run.vm.answers(), [None]);
    run.machine.stop();
}

#[test]
fn the_clock_s_alarm_is_an_interrupt_of_the_guest() {
    let word = |offset: u64, value: u32| Act::Write(RTC.base + offset, value.to_le_bytes().to_vec());
    // Enabled, and due since 1970.
    let run = start(
        fake::facts(),
        vec![vec![word(0x10, 1), word(0x0c, 0), word(0x08, 1), Act::Shutdown]],
    );
    run.outcome();
    assert!(run.vm.pulses().contains(&RTC_IRQ));
    run.machine.stop();
}

/// Switches on the watchdog in slot 1, with stages as short as there are.
fn arm_watchdog() -> Vec<Act> {
    const BAR: u64 = 0x4000_0000;
    let config = PCI_ECAM.base + 0x8000;
    let word = |value: u16| Act::Write(BAR + 0xc, value.to_le_bytes().to_vec());
    let preload = |register| [word(0x80), word(0x86), write_long(BAR + register, 1)];
    let mut script = vec![
        Act::Read(config, 4),
        write_long(config + 0x10, 0x4000_0000),
        write_long(config + 0x04, 2),
    ];
    script.extend(preload(0).into_iter().chain(preload(4)));
    script.push(Act::Write(config + 0x68, vec![2]));
    script
}

#[test]
fn a_watchdog_has_a_pci_bus_beside_virtio_mmio_and_bites_who_does_not_feed_it() {
    let script = [arm_watchdog(), vec![Act::Read(virtio_slot(0).0.base, 4)]].concat();
    let mut run = start_with(fake::facts(), vec![script], |wish| {
        wish.watchdog(rvmm_spec::Watchdog::default())
    });
    let mut events = EventManager::<Subscriber>::new().unwrap();
    for (_, feed) in run.feeds.drain(..) {
        events.add_subscriber(feed);
    }
    let bitten = std::iter::repeat_with(|| {
        events.run_with_timeout(100).unwrap();
        run.news.try_recv().ok()
    });
    assert_eq!(bitten.take(1000).flatten().next(), Some(News::Watchdog));
    assert_eq!(run.vm.reads().first(), Some(&vec![0x86, 0x80, 0xab, 0x25]));
    run.machine.stop();
}

#[test]
fn a_guest_that_never_ends_is_stopped_with_all_its_vcpus() {
    let run = start(fake::facts(), vec![vec![], vec![], vec![], vec![]]);
    run.machine.stop();
    assert!(run.news.try_recv().is_err());
}

fn counters(run: &Run) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    run.machine.add_counters(&mut sums);
    sums
}

#[test]
fn paused_vcpus_stand_still_until_they_are_resumed_or_the_machine_ends() {
    let run = start(fake::facts(), vec![vec![], vec![], vec![]]);
    run.machine.pause();
    assert_eq!(run.news.recv_timeout(PATIENCE).unwrap(), News::Paused);
    let count = || counters(&run)["exits.interrupted"];
    let before = count();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(count(), before);
    run.machine.resume();
    assert_eq!(run.news.recv_timeout(PATIENCE).unwrap(), News::Running);
    run.machine.pause();
    assert_eq!(run.news.recv_timeout(PATIENCE).unwrap(), News::Paused);
    run.machine.stop();
    assert!(run.news.try_recv().is_err());
}

#[test]
fn a_machine_that_starts_paused_runs_nothing_before_it_is_resumed() {
    let scripts = vec![vec![Act::Write(UART.base, vec![b'!']), Act::Shutdown], vec![]];
    let run = start_with(fake::facts(), scripts, |wish| wish.on_start(OnStart::Pause));
    assert_eq!(run.news.recv_timeout(PATIENCE).unwrap(), News::Paused);
    assert_eq!((counters(&run)["exits.mmio-write"], run.hub.end()), (0, 0));
    run.machine.resume();
    assert_eq!(run.news.recv_timeout(PATIENCE).unwrap(), News::Running);
    assert_eq!(run.outcome(), Outcome::Poweroff);
    assert_eq!(run.hub.end(), 1);
    run.machine.stop();
}

#[test]
fn a_machine_that_never_went_on_is_stopped_with_all_its_vcpus() {
    let run = start_with(fake::facts(), vec![vec![], vec![]], |wish| {
        wish.on_start(OnStart::Pause)
    });
    assert_eq!(run.news.recv_timeout(PATIENCE).unwrap(), News::Paused);
    run.machine.stop();
    assert!(run.news.try_recv().is_err());
}

#[test]
fn exits_are_counted_by_kind() {
    let call = sbi::Call {
        extension: 0x0a00_0000,
        function: 9,
        args: [0; 6],
    };
    let one = vec![
        Act::Read(0, 4),
        Act::Write(0, vec![0]),
        Act::Sbi(call),
        Act::Unknown(99),
    ];
    let run = start(fake::facts(), vec![one, vec![Act::Read(0, 4)]]);
    let wanted = [
        ("exits.mmio-read", 2),
        ("exits.mmio-write", 1),
        ("exits.sbi-unknown", 1),
        ("exits.unknown", 1),
    ];
    let counted = || wanted.map(|(name, _)| (name, counters(&run)[name]));
    let end = std::time::Instant::now() + PATIENCE;
    while counted() != wanted && std::time::Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(counted(), wanted);
    run.machine.stop();
}

#[test]
fn a_machine_holds_its_disks_until_it_has_stopped() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let disk = Disk {
        iops: Some(100),
        ..Disk::new(image.path())
    };
    let magic = Act::Read(virtio_slot(0).0.base + 8, 4);
    let run = start_with(fake::facts(), vec![vec![magic, Act::Shutdown]], |wish| {
        wish.disk(disk.clone())
    });
    run.outcome();
    assert_eq!(
        run.vm.reads(),
        [2u32.to_le_bytes()],
        "a disk is in the first slot"
    );
    assert!(matches!(
        rvmm_backends::disk::open(&disk),
        Err(DiskError::InUse(..))
    ));
    run.machine.stop();
    assert!(rvmm_backends::disk::open(&disk).is_ok());
}

#[test]
fn a_disk_on_scsi_is_plugged_in_on_any_transport_and_lets_go_of_its_image() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let disk = Disk {
        bus: DiskBus::Scsi,
        iops: Some(10),
        on_error: OnDiskError::Stop,
        ..Disk::new(image.path())
    };
    let id: DeviceId = "data".parse().unwrap();
    let plug = |machine: &mut Machine| {
        let file = rvmm_backends::disk::hand_over(&disk).unwrap();
        machine.plug(Plugged {
            id: id.clone(),
            kind: PluggedKind::Lun(disk.clone(), file, 1),
        })
    };
    let is_free = || rvmm_backends::disk::open(&disk).is_ok();

    let mut none = start_with(fake::facts(), vec![vec![]], |wish| wish);
    assert!(matches!(plug(&mut none.machine), Err(MachineError::NoController)));
    none.machine.stop();

    for transport in [Transport::Mmio, Transport::Pci] {
        let first = tempfile::NamedTempFile::new().unwrap();
        first.as_file().set_len(1 << 20).unwrap();
        let begins = Disk {
            bus: DiskBus::Scsi,
            ..Disk::new(first.path())
        };
        let wish = |wish: SpecBuilder| wish.transport(transport).disk(begins.clone());
        let mut run = start_with(fake::facts(), vec![vec![]], wish);
        assert!(rvmm_backends::disk::open(&begins).is_err(), "it is in use");
        assert!(is_free());
        plug(&mut run.machine).unwrap();
        assert!(!is_free());
        assert!(matches!(
            plug(&mut run.machine),
            Err(MachineError::Unit(_) | MachineError::Disk(_))
        ));
        assert!(run.machine.unplug(&id));
        assert!(is_free() && !run.machine.unplug(&id));
        plug(&mut run.machine).unwrap();
        run.machine.stop();
        assert!(is_free() && rvmm_backends::disk::open(&begins).is_ok());
    }
}

#[test]
fn an_interface_on_a_passt_is_plugged_in_by_its_socket_and_lets_go_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passt");
    let mut run = start_with(fake::facts(), vec![vec![]], |wish| wish.transport(Transport::Pci));
    let wish = NetWish::new(Network::Passt(path.clone()));
    let net = || {
        let spec = Spec::builder(Boot::new("Image")).build().unwrap();
        PluggedKind::Net(spec.check_net(wish.clone(), 0).unwrap(), Vec::new())
    };
    let id: DeviceId = "net0".parse().unwrap();
    let plug = |machine: &mut Machine| {
        machine.plug(Plugged {
            id: id.clone(),
            kind: net(),
        })
    };
    assert!(matches!(plug(&mut run.machine), Err(MachineError::Passt(_))));
    let passt = UnixListener::bind(&path).unwrap();
    let feed = plug(&mut run.machine).unwrap().unwrap();
    let (mut guest, _) = passt.accept().unwrap();
    assert!(run.machine.unplug(&id));
    drop(feed);
    assert_eq!(guest.read(&mut [0; 1]).unwrap(), 0);
    run.machine.stop();
}
