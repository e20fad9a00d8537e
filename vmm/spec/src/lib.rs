//! A virtual machine as data: parsed, defaulted, checked; no I/O.
//!
//! ```text
//!   rvmm's arguments ──┐
//!   a VMI (handler)  ──┼─► SpecBuilder ──check──► Spec ──► machine (KVM) | qemu (TCG)
//!   spec.json (wire) ──┘                            └────► wire::Document ──► spec.json
//! ```
//!
//! Invariants: a [`Spec`] can only be had from [`SpecBuilder::build`], so whoever holds one need not check it
//! again; it is never serialised itself, its versioned JSON form is [`wire::Document`]. What depends on the host
//! (does the file exist, does KVM answer) is not checked here.

pub mod boot;
pub mod builder;
pub mod cpu;
pub mod disk;
pub mod error;
pub mod limits;
pub mod memory;
pub mod network;
pub mod plug;
pub mod rng;
pub mod sandbox;
pub mod share;
pub mod size;
pub mod start;
pub mod transport;
pub mod vsock;
pub mod watchdog;
pub mod wire;

pub use boot::{Boot, Firmware, Payload, Vars};
pub use builder::SpecBuilder;
pub use cpu::{CpuModel, ParseCpuError, Switch};
pub use disk::{Base, CacheMode, Disk, DiskBus, DiskFormat, OnDiskError};
pub use error::SpecError;
pub use memory::{HugePages, MemoryBacking, MemoryOption, ParseMemoryError, Thp};
pub use network::{MacAddress, Net, NetWish, Network, ParseNetError, TapName};
pub use plug::{DeviceId, ParseDeviceIdError};
pub use rng::Rng;
pub use sandbox::{HostFile, Sandbox, SandboxMode};
pub use share::Share;
pub use size::{MemorySize, ParseSizeError};
pub use start::OnStart;
pub use transport::Transport;
pub use vsock::Vsock;
pub use watchdog::{ParseWatchdogError, Watchdog, WatchdogAction};

/// A checked machine. Fields are read through methods, so that nothing can be changed after the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub(crate) name: String,
    pub(crate) uid: Option<String>,
    pub(crate) cpus: u8,
    pub(crate) cpu: CpuModel,
    pub(crate) memory: MemorySize,
    pub(crate) memory_backing: MemoryBacking,
    pub(crate) boot: Boot,
    pub(crate) disks: Vec<Disk>,
    pub(crate) scsi: bool,
    pub(crate) nets: Vec<Net>,
    pub(crate) transport: Transport,
    pub(crate) console: Console,
    pub(crate) balloon: bool,
    pub(crate) rng: Rng,
    pub(crate) vsock: Option<Vsock>,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) shares: Vec<Share>,
    pub(crate) accelerator: AcceleratorChoice,
    pub(crate) on_start: OnStart,
    pub(crate) on_reset: OnReset,
    pub(crate) sandbox: Sandbox,
}

/// Which device carries the guest's console. The UART exists in either case, for early output and firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Console {
    /// The 16550 UART: `ttyS0`.
    #[default]
    Serial,
    /// The virtio console: `hvc0`. What the UART prints is still shown.
    Virtio,
}

/// Which backend may run the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcceleratorChoice {
    /// KVM where this host can create a riscv64 VM, QEMU-TCG elsewhere.
    #[default]
    Auto,
    /// KVM, or refuse.
    Kvm,
    /// QEMU-TCG, without looking at KVM.
    Tcg,
}

/// What a guest's reset does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReset {
    /// Boot the machine again.
    #[default]
    Restart,
    /// End rvmm with status 3.
    Exit,
}

/// How one run of a guest ended, as the backend that ran it saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched itself off.
    Poweroff,
    /// The guest asked for a reset.
    Reset,
    /// The guest could not go on, and why.
    Failed(String),
}

// === impl Spec ===

impl Spec {
    /// Starts a builder with the documented defaults and this kernel.
    pub fn builder(boot: Boot) -> SpecBuilder {
        SpecBuilder::new(boot)
    }

    /// The name that logs and tools show.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The UID of the object that this machine belongs to, if one does.
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// Number of vCPUs, 1 to [`limits::MAX_CPUS`].
    pub fn cpus(&self) -> u8 {
        self.cpus
    }

    /// What the vCPUs are.
    pub fn cpu(&self) -> &CpuModel {
        &self.cpu
    }

    /// Guest RAM.
    pub fn memory(&self) -> MemorySize {
        self.memory
    }

    /// What the host makes guest RAM of.
    pub fn memory_backing(&self) -> MemoryBacking {
        self.memory_backing
    }

    /// What is booted.
    pub fn boot(&self) -> &Boot {
        &self.boot
    }

    /// Disks, in the order in which the guest finds them.
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// Whether it has a SCSI controller, on which disks come and go: one was asked for, or there is a disk for it.
    pub fn scsi(&self) -> bool {
        self.scsi
    }

    /// The disks that begin on this bus, in the order in which the guest finds them, each with its number among all disks.
    pub fn disks_on(&self, bus: DiskBus) -> impl Iterator<Item = (usize, &Disk)> {
        self.disks
            .iter()
            .enumerate()
            .filter(move |(_, disk)| disk.bus == bus)
    }

    /// Network interfaces, in the order in which the guest finds them.
    pub fn nets(&self) -> &[Net] {
        &self.nets
    }

    /// Which bus the virtio devices are on.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The device that carries the console.
    pub fn console(&self) -> Console {
        self.console
    }

    /// Whether the guest can be asked to give memory back, and reports what it does not use.
    pub fn balloon(&self) -> bool {
        self.balloon
    }

    /// Its entropy device.
    pub fn rng(&self) -> Rng {
        self.rng
    }

    /// Its sockets to programs of the host, if it has any.
    pub fn vsock(&self) -> Option<&Vsock> {
        self.vsock.as_ref()
    }

    /// Its watchdog, if it has one. It is a PCI device: with it there is a PCI bus, whatever [`Spec::transport`] says.
    pub fn watchdog(&self) -> Option<Watchdog> {
        self.watchdog
    }

    /// Folders of the host that the guest can mount, in the order in which it finds them.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// How many virtio devices there are; console and rng are always there.
    pub fn virtio_devices(&self) -> usize {
        let asked_for = usize::from(self.balloon)
            + usize::from(self.vsock.is_some())
            + usize::from(self.scsi)
            + self.shares.len();
        self.disks_on(DiskBus::Virtio).count() + self.nets.len() + 2 + asked_for
    }

    /// How many places its devices take where the virtio devices are.
    pub fn places(&self) -> usize {
        let on_the_bus = self.watchdog.is_some() && self.transport == Transport::Pci;
        self.virtio_devices() + usize::from(on_the_bus)
    }

    /// Which backend may run this.
    pub fn accelerator(&self) -> AcceleratorChoice {
        self.accelerator
    }

    /// The walls around rvmm.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// What the vCPUs do once they are there.
    pub fn on_start(&self) -> OnStart {
        self.on_start
    }

    /// The same machine for every boot after its guest has begun: it runs at once.
    #[must_use]
    pub fn begun(&self) -> Self {
        Self {
            on_start: OnStart::Run,
            ..self.clone()
        }
    }

    /// What a guest's reset does.
    pub fn on_reset(&self) -> OnReset {
        self.on_reset
    }
}
