//! From wishes to a [`Spec`]: the one place where a machine is checked.

use crate::limits::{MAX_CPUS, MAX_MEMORY, MAX_NAME, MAX_SCSI_DISKS, MEMORY_GRANULE, MIN_MEMORY};
use crate::memory::MemoryBacking;
use crate::network::{MacAddress, NetWish, Network, TapName};
use crate::{
    AcceleratorChoice, Boot, Console, CpuModel, Disk, DiskBus, MemorySize, OnReset, OnStart, Rng, Sandbox,
    Share, Spec, SpecError, Transport, Vsock, Watchdog, share,
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
