//! From wishes to a [`Spec`]: the one place where a machine is checked.

use std::path::PathBuf;

use crate::limits::{
    MAX_ALLOWED_PATHS, MAX_CMDLINE, MAX_CPUS, MAX_DISK_IOPS, MAX_MEMORY, MAX_MTU, MAX_NAME, MAX_NET_QUEUES,
    MAX_OVERLAYS, MAX_SCSI_DISKS, MAX_SHARE_TAG, MAX_SOCKET_PATH, MAX_VSOCK_PATH, MEMORY_GRANULE,
    MIN_DISK_BANDWIDTH, MIN_MEMORY, MIN_MTU, MIN_RNG_BANDWIDTH,
};
use crate::memory::{HugePages, MemoryBacking};
use crate::network::{MacAddress, NetWish, Network, TapName};
use crate::{
    AcceleratorChoice, Boot, Console, CpuModel, Disk, DiskBus, MemorySize, OnReset, OnStart, Rng, Sandbox,
    Share, Spec, Transport, Vsock, Watchdog, share,
};

/// RAM when none is asked for.
pub const DEFAULT_MEMORY: MemorySize = MemorySize::from_mib(256);

/// Collects what is wanted; [`SpecBuilder::build`] checks it as a whole.
#[derive(Debug, Clone)]
pub struct SpecBuilder {
    name: String,
    uid: Option<String>,
    cpus: u64,
    cpu: CpuModel,
    memory: MemorySize,
    memory_backing: MemoryBacking,
    boot: Boot,
    disks: Vec<Disk>,
    scsi: bool,
    nets: Vec<NetWish>,
    transport: Transport,
    console: Console,
    balloon: bool,
    rng: Rng,
    vsock: Option<Vsock>,
    watchdog: Option<Watchdog>,
    shares: Vec<Share>,
    accelerator: AcceleratorChoice,
    on_start: OnStart,
    on_reset: OnReset,
    sandbox: Sandbox,
}

/// The machine that was asked for cannot exist. Each text names the field, the value and what is possible.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// A name is needed for logs and files.
    #[error("name '{0}' must be 1 to {MAX_NAME} printable characters without '/'")]
    Name(String),
    /// Too few or too many vCPUs.
    #[error("{0} vCPUs are not possible: 1 to {MAX_CPUS}")]
    Cpus(u64),
    /// Too little or too much RAM.
    #[error("{0} of memory is not possible: {min} to {max}", min = MemorySize::from_bytes(MIN_MEMORY), max = MemorySize::from_bytes(MAX_MEMORY))]
    Memory(MemorySize),
    /// RAM that is no multiple of the granule.
    #[error("{0} of memory is not possible: it must be a multiple of {granule}", granule = MemorySize::from_bytes(MEMORY_GRANULE))]
    MemoryGranule(MemorySize),
    /// RAM that is no whole number of huge pages.
    #[error("{0} of memory is not possible in huge pages of {1}: it must be a multiple")]
    HugePages(MemorySize, HugePages),
    /// More paths than a machine can have use for.
    #[error("the sandbox cannot leave {0} paths open: at most {MAX_ALLOWED_PATHS}")]
    AllowedPaths(usize),
    /// The kernel would cut it off.
    #[error("the kernel command line has {0} bytes; at most {MAX_CMDLINE} are possible")]
    CmdlineLength(usize),
    /// A device tree string cannot hold it.
    #[error("the kernel command line holds a NUL or a line break")]
    CmdlineCharacter,
    /// Nothing to start, or two things.
    #[error("a machine boots either a kernel or a firmware")]
    Payload,
    /// A firmware finds them on its disk.
    #[error("{0} needs a kernel; a firmware takes them from its disk")]
    NeedsKernel(&'static str),
    /// More overlays than anybody needs.
    #[error("{0} device-tree overlays are not possible: at most {MAX_OVERLAYS}")]
    Overlays(usize),
    /// The guest could not read it whole.
    #[error("disk serial '{0}' must be 1 to {1} printable ASCII characters")]
    Serial(String, usize),
    /// What is a hole and what a zero, a raw image does not tell.
    #[error("a disk on a base has to be qcow2: a raw image does not know what was written into it")]
    RawOnBase,
    /// One descriptor comes along.
    #[error("a disk on a base is one that the machine starts with")]
    BasePlugged,
    /// A queue for a vCPU that is not there does nothing.
    #[error("a disk with {0} queues is not possible: 1 to {1}, a queue for each vCPU")]
    DiskQueues(u16, u16),
    /// They are the controller's.
    #[error("a disk on bus scsi with {0} queues is not possible: the controller has one, for all its disks")]
    ScsiQueues(u16),
    /// There is nothing that a disk could be plugged into.
    #[error("disks are plugged in on bus scsi where the machine has a controller: start it with --scsi")]
    NoScsi,
    /// Each has a number.
    #[error("{0} disks on bus scsi are not possible: at most {MAX_SCSI_DISKS}")]
    ScsiDisks(usize),
    /// A limit that is none, or that lets nothing through.
    #[error("a disk with {0} requests a second is not possible: 1 to {MAX_DISK_IOPS}")]
    DiskIops(u64),
    /// A request would take hours.
    #[error("a disk with {0} a second is not possible: at least {min}", min = MemorySize::from_bytes(MIN_DISK_BANDWIDTH))]
    DiskBandwidth(MemorySize),
    /// A request would take long, and a boot that waits for it.
    #[error("an entropy device with {0} a second is not possible: at least {min}", min = MemorySize::from_bytes(MIN_RNG_BANDWIDTH))]
    RngBandwidth(MemorySize),
    /// None, or more than anyone has vCPUs for.
    #[error("a network interface with {0} queues is not possible: 1 to {MAX_NET_QUEUES}")]
    NetQueues(u8),
    /// The host's kernel moves frames between rings and a tap, and serves no commands.
    #[error("vhost=on is for a network interface on a tap, with one pair of queues")]
    Vhost,
    /// It is opened at the start.
    #[error("vhost=on is for a network interface that the machine starts with")]
    VhostPlugged,
    /// Its socket is one stream.
    #[error("a network interface on passt has one queue")]
    PasstQueues,
    /// No address can hold it.
    #[error("passt socket '{}' is not possible: a path has 1 to {MAX_SOCKET_PATH} bytes", .0.display())]
    PasstPath(PathBuf),
    /// No network has it.
    #[error("an MTU of {0} is not possible: {MIN_MTU} to {MAX_MTU}")]
    Mtu(u16),
    /// The host's own numbers, or everyone's.
    #[error("vsock cid {0} is not possible: 3 to 4294967294")]
    Cid(u32),
    /// The name of a port follows it, and both are one address.
    #[error("vsock socket '{}' is not possible: a path has 1 to {MAX_VSOCK_PATH} bytes", .0.display())]
    VsockPath(PathBuf),
    /// The guest could not name it.
    #[error("share tag '{0}' must be 1 to {MAX_SHARE_TAG} bytes without control characters")]
    ShareTag(String),
    /// No address can hold it.
    #[error("share socket '{}' is not possible: a path has 1 to {MAX_SOCKET_PATH} bytes", .0.display())]
    SharePath(PathBuf),
    /// The guest could mount only one of them.
    #[error("two shares have the tag '{0}'")]
    ShareTwice(String),
    /// A server takes one guest, and one device of it.
    #[error("two shares have the socket '{}'", .0.display())]
    ShareSocketTwice(PathBuf),
    /// Its server is another process, and reads and writes guest RAM.
    #[error("share '{0}' needs memory that its server can see: --memory SIZE,shared")]
    ShareMemory(String),
    /// Windows are where they are.
    #[error(
        "devices are plugged in over PCI only: start the machine with --transport pci, or disks on bus scsi with --scsi"
    )]
    NoHotPlug,
    /// The machine has a fixed number of places for devices.
    #[error(
        "{0} devices (disks but those on scsi, networks, console, rng and those asked for) are not possible: at most {max}{more}",
        max = .1.max_devices(),
        more = more_devices(*.1)
    )]
    Devices(usize, Transport),
}

// === impl SpecBuilder ===

impl SpecBuilder {
    pub(crate) fn new(boot: Boot) -> Self {
        Self {
            name: "vm".to_owned(),
            uid: None,
            cpus: 1,
            cpu: CpuModel::default(),
            memory: DEFAULT_MEMORY,
            memory_backing: MemoryBacking::default(),
            boot,
            disks: Vec::new(),
            scsi: false,
            nets: Vec::new(),
            transport: Transport::default(),
            console: Console::default(),
            balloon: false,
            rng: Rng::default(),
            vsock: None,
            watchdog: None,
            shares: Vec::new(),
            accelerator: AcceleratorChoice::default(),
            on_start: OnStart::default(),
            on_reset: OnReset::default(),
            sandbox: Sandbox::default(),
        }
    }

    /// Name for logs and tools; `vm` if not set.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// UID of the object that the machine belongs to.
    #[must_use]
    pub fn uid(mut self, uid: impl Into<String>) -> Self {
        self.uid = Some(uid.into());
        self
    }

    /// Number of vCPUs; 1 if not set.
    #[must_use]
    pub fn cpus(mut self, cpus: u64) -> Self {
        self.cpus = cpus;
        self
    }

    /// What the vCPUs are; the host's if not set.
    #[must_use]
    pub fn cpu(mut self, cpu: CpuModel) -> Self {
        self.cpu = cpu;
        self
    }

    /// Guest RAM; [`DEFAULT_MEMORY`] if not set.
    #[must_use]
    pub fn memory(mut self, memory: MemorySize) -> Self {
        self.memory = memory;
        self
    }

    /// What the host makes guest RAM of.
    #[must_use]
    pub fn memory_backing(mut self, backing: MemoryBacking) -> Self {
        self.memory_backing = backing;
        self
    }

    /// Adds a disk behind those already there.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Whether there is a SCSI controller, into which disks can be plugged. With a disk on it there is one in any case.
    #[must_use]
    pub fn scsi(mut self, scsi: bool) -> Self {
        self.scsi = scsi;
        self
    }

    /// Adds a network interface on a tap; without an address it gets a stable one.
    #[must_use]
    pub fn net(self, tap: TapName, mac: Option<MacAddress>) -> Self {
        self.interface(NetWish {
            mac,
            ..NetWish::new(Network::Tap(tap))
        })
    }

    /// Adds a network interface of any kind.
    #[must_use]
    pub fn interface(mut self, wish: NetWish) -> Self {
        self.nets.push(wish);
        self
    }

    /// Which bus the virtio devices are on.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// The device that carries the console.
    #[must_use]
    pub fn console(mut self, console: Console) -> Self {
        self.console = console;
        self
    }

    /// Whether the guest has a memory balloon; it has none if not set.
    #[must_use]
    pub fn balloon(mut self, balloon: bool) -> Self {
        self.balloon = balloon;
        self
    }

    /// The entropy device, which has no limit if not set.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Sockets to programs of the host; none if not set.
    #[must_use]
    pub fn vsock(mut self, vsock: Vsock) -> Self {
        self.vsock = Some(vsock);
        self
    }

    /// A watchdog; none if not set.
    #[must_use]
    pub fn watchdog(mut self, watchdog: Watchdog) -> Self {
        self.watchdog = Some(watchdog);
        self
    }

    /// Adds a folder of the host behind those already there.
    #[must_use]
    pub fn share(mut self, share: Share) -> Self {
        self.shares.push(share);
        self
    }

    /// Which backend may run this.
    #[must_use]
    pub fn accelerator(mut self, accelerator: AcceleratorChoice) -> Self {
        self.accelerator = accelerator;
        self
    }

    /// What the vCPUs do once they are there; they run if not set.
    #[must_use]
    pub fn on_start(mut self, on_start: OnStart) -> Self {
        self.on_start = on_start;
        self
    }

    /// What a guest's reset does.
    #[must_use]
    pub fn on_reset(mut self, on_reset: OnReset) -> Self {
        self.on_reset = on_reset;
        self
    }

    /// The walls around rvmm.
    #[must_use]
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Checks everything and gives the machine.
    ///
    /// # Errors
    /// The first wish that cannot be met, as a [`SpecError`].
    pub fn build(self) -> Result<Spec, SpecError> {
        let name_ok = |name: &str| {
            (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(|c| c.is_control() || c == '/')
        };
        if !name_ok(&self.name) {
            return Err(SpecError::Name(self.name));
        }
        let cpus = u8::try_from(self.cpus)
            .ok()
            .filter(|n| (1..=MAX_CPUS).contains(n));
        let cpus = cpus.ok_or(SpecError::Cpus(self.cpus))?;
        check_memory(self.memory)?;
        self.memory_backing.check(self.memory)?;
        self.boot.check()?;
        self.disks.iter().try_for_each(|disk| disk.check(cpus))?;
        self.rng.check()?;
        self.sandbox.check()?;
        share::check(&self.shares, self.memory_backing.shared)?;
        let identity = self.uid.as_deref().unwrap_or(&self.name);
        self.nets.iter().try_for_each(NetWish::check)?;
        let nets = self.nets.into_iter().enumerate();
        let nets = nets.map(|(index, wish)| wish.met(identity, index)).collect();
        let on_scsi = self.disks.iter().filter(|disk| disk.bus == DiskBus::Scsi).count();
        if on_scsi > MAX_SCSI_DISKS {
            return Err(SpecError::ScsiDisks(on_scsi));
        }
        let spec = Spec {
            nets,
            scsi: self.scsi || on_scsi > 0,
            cpus,
            cpu: self.cpu,
            name: self.name,
            uid: self.uid,
            memory: self.memory,
            memory_backing: self.memory_backing,
            boot: self.boot,
            disks: self.disks,
            transport: self.transport,
            console: self.console,
            balloon: self.balloon,
            rng: self.rng,
            vsock: self.vsock,
            watchdog: self.watchdog,
            shares: self.shares,
            accelerator: self.accelerator,
            on_start: self.on_start,
            on_reset: self.on_reset,
            sandbox: self.sandbox,
        };
        match spec.places() {
            devices if devices > spec.transport.max_devices() => {
                Err(SpecError::Devices(devices, spec.transport))
            }
            _ => Ok(spec),
        }
    }
}

fn more_devices(transport: Transport) -> String {
    match transport {
        Transport::Mmio => format!(" (with transport pci {})", Transport::Pci.max_devices()),
        Transport::Pci => String::new(),
    }
}

fn check_memory(memory: MemorySize) -> Result<(), SpecError> {
    if !(MIN_MEMORY..=MAX_MEMORY).contains(&memory.bytes()) {
        return Err(SpecError::Memory(memory));
    }
    if !memory.bytes().is_multiple_of(MEMORY_GRANULE) {
        return Err(SpecError::MemoryGranule(memory));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> SpecBuilder {
        Spec::builder(Boot::new("Image"))
    }

    #[test]
    fn a_kernel_alone_gives_the_documented_defaults() {
        let spec = wish().build().unwrap();
        assert_eq!(
            (spec.cpus(), spec.memory(), spec.name()),
            (1, DEFAULT_MEMORY, "vm")
        );
        assert_eq!(spec.boot().cmdline, "console=ttyS0");
        assert_eq!(spec.on_reset(), OnReset::Restart);
    }

    #[test]
    fn impossible_machines_are_refused_by_name() {
        assert_eq!(wish().cpus(0).build(), Err(SpecError::Cpus(0)));
        assert_eq!(wish().cpus(257).build(), Err(SpecError::Cpus(257)));
        let tiny = MemorySize::from_mib(4);
        assert_eq!(wish().memory(tiny).build(), Err(SpecError::Memory(tiny)));
        let odd = MemorySize::from_bytes((64 << 20) + 4096);
        assert_eq!(wish().memory(odd).build(), Err(SpecError::MemoryGranule(odd)));
        assert_eq!(wish().name("a/b").build(), Err(SpecError::Name("a/b".to_owned())));
    }

    #[test]
    fn disks_and_nets_share_the_virtio_slots() {
        let many = |n: usize| (0..n).fold(wish(), |spec, _| spec.disk(Disk::new("d")));
        assert!(many(6).build().is_ok());
        assert_eq!(many(7).build(), Err(SpecError::Devices(9, Transport::Mmio)));
        assert!(many(29).transport(Transport::Pci).build().is_ok());
        let text = many(30)
            .transport(Transport::Pci)
            .build()
            .unwrap_err()
            .to_string();
        assert!(text.ends_with("are not possible: at most 31"), "{text}");
    }

    #[test]
    fn error_texts_say_what_is_possible() {
        let text = wish()
            .memory(MemorySize::from_mib(4))
            .build()
            .unwrap_err()
            .to_string();
        assert_eq!(text, "4 MiB of memory is not possible: 32 MiB to 256 GiB");
    }
}
