//! The command line: first as it was typed ([`Args`]), then resolved once into the machine that is run ([`Spec`]).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};
use rvmm_control::RunDir;
use rvmm_spec::limits::MAX_DOCUMENT;
use rvmm_spec::{
    AcceleratorChoice, Console, CpuModel, MemoryOption, OnReset, OnStart, Rng, Sandbox, SandboxMode, Spec,
    SpecBuilder, Transport, Vsock, Watchdog, wire,
};

use crate::boot_args::BootArgs;

use crate::ctl::Ctl;

pub mod disk;
pub mod net;
mod share;

const AFTER_HELP: &str = "\
Leave the console with Ctrl-]: that stops the guest.

Exit status: 0 the guest switched itself off, or you stopped it; 1 it could not be started or could not go on;
2 the command line is not valid; 3 the guest was reset, with --on-reset exit; 128+n ended by signal n.

Example: rvmm --kernel Image --initrd initrd.gz --memory 512M --cpus 2 --cmdline \"console=ttyS0 quiet\"
A disk with an EFI system: rvmm --firmware uboot --disk disk.img";

/// Run one riscv64 virtual machine with its console on this terminal: under KVM where the host has the H extension,
/// in QEMU-TCG elsewhere.
#[derive(Debug, Parser)]
#[command(name = "rvmm", version, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// Kernel to boot: a riscv64 Image, plain or gzip'd, EFI zboot or ELF
    #[arg(long, value_name = "FILE", required_unless_present_any = ["spec", "firmware", "awaited"])]
    kernel: Option<PathBuf>,
    #[command(flatten)]
    boot: BootArgs,
    /// The kernel's command line [default: "console=ttyS0", and "root=/dev/vda rw" where there is a disk and no initrd]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// Guest memory, such as 256M or 2G [default: 256M]; shared with other processes; of the host's pools of huge pages;
    /// taken at the start; with transparent huge pages where the host has them (always, the default) or never
    #[arg(
        long,
        value_name = "SIZE[,shared][,hugepages=2M|1G][,prefault][,thp=always|never]"
    )]
    memory: Option<MemoryOption>,
    /// Number of vCPUs [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<u64>,
    /// What the vCPUs are: host, with ISA extensions switched by name [default: host; 'help' lists them]
    #[arg(long, value_name = "host[,EXT=on|off]…")]
    cpu: Option<CpuModel>,
    #[arg(long = "disk", value_name = disk::VALUE, help = disk::HELP)]
    disks: Vec<String>,
    /// A SCSI controller, into which disks can be plugged while the guest runs ('rvmm ctl add-disk FILE,bus=scsi'); its guest is
    /// told of them, and needs no PCI
    #[arg(long)]
    scsi: bool,
    #[arg(long = "net", value_name = net::VALUE, help = net::HELP)]
    nets: Vec<String>,
    /// Which bus the virtio devices are on: mmio has room for 8 of them, pci for 31
    #[arg(long, value_enum, default_value_t)]
    transport: TransportArg,
    /// The device that carries the console: ttyS0 or hvc0
    #[arg(long, value_enum, default_value_t)]
    console: ConsoleArg,
    /// A memory balloon: the guest gives memory back when it is asked to, and reports what it does not use
    #[arg(long, value_enum, default_value_t)]
    balloon: Switch,
    /// Limit the random bytes that the guest gets each second, such as bps=64K [default: no limit]
    #[arg(long, value_name = "bps=SIZE", value_parser = parse_rng)]
    rng: Option<Rng>,
    /// Sockets between programs of the guest (AF_VSOCK) and of the host (the Unix socket PATH: say "CONNECT PORT"; the
    /// guest reaches PATH_PORT)
    #[arg(long, value_name = "cid=N,socket=PATH")]
    vsock: Option<String>,
    #[arg(long = "fs", value_name = "tag=NAME,socket=PATH", help = share::HELP)]
    shares: Vec<String>,
    /// A watchdog on PCI, and what is done to a guest that does not feed it [default: reset]; the guest's kernel needs the
    /// driver i6300esb, which Debian's for riscv64 lacks
    #[arg(long, value_name = "i6300esb[,action=reset|poweroff|pause]")]
    watchdog: Option<Watchdog>,
    /// What runs the guest: KVM where it is there and QEMU-TCG elsewhere, or one of them
    #[arg(long, value_enum, value_name = "WHAT")]
    accel: Option<AccelArg>,
    /// Start with the vCPUs standing still, until 'rvmm ctl resume' lets the guest begin; needs --run-dir
    #[arg(long)]
    paused: bool,
    /// What a reset of the guest does: boot it again, or end rvmm with status 3
    #[arg(long, value_enum, default_value_t)]
    on_reset: OnResetArg,
    /// Whether rvmm gives up all rights that the machine does not need, logs what it would be stopped for, or keeps them
    #[arg(long, value_enum, default_value_t)]
    sandbox: SandboxArg,
    /// A file or folder that stays open in the sandbox, for disks that are plugged in later; may be repeated
    #[arg(long = "sandbox-allow", value_name = "PATH")]
    sandbox_allow: Vec<PathBuf>,
    /// Name for logs and tools [default: vm]
    #[arg(long)]
    name: Option<String>,
    /// Read the machine from a JSON document instead of these options
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "cmdline", "memory", "cpus", "cpu", "firmware", "firmware_vars", "initrd", "overlays", "disks", "scsi", "nets", "name", "console", "transport", "balloon", "rng", "vsock", "shares", "watchdog", "paused", "on_reset", "sandbox", "sandbox_allow"])]
    spec: Option<PathBuf>,
    /// Keep control socket, console socket, console log and exit status in this folder
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Wait in this folder, on the socket launch.sock, for whoever brings the machine and opens its files, and then keep there what
    /// --run-dir keeps; what the guest prints goes to standard output, too
    #[arg(long = "await", value_name = "DIR", id = "awaited", conflicts_with_all = ["spec", "run_dir", "dump_dtb", "kernel", "cmdline", "memory", "cpus", "cpu", "accel", "firmware", "firmware_vars", "initrd", "overlays", "disks", "scsi", "nets", "name", "console", "transport", "balloon", "rng", "vsock", "shares", "watchdog", "paused", "on_reset", "sandbox", "sandbox_allow"])]
    awaited: Option<PathBuf>,
    /// With --await: at SIGTERM a guest whose agent listens is asked to switch itself off, and has this long for it
    #[arg(long, value_name = "SECONDS", requires = "awaited")]
    grace: Option<u32>,
    /// Write the device tree that the guest would find, to a file or, with '-', to standard output, and boot nothing
    #[arg(long, value_name = "FILE")]
    dump_dtb: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ctl(Ctl),
}

/// What is to be run.
#[derive(Debug)]
pub struct Order {
    /// The machine.
    pub spec: Spec,
    /// Where the device tree goes instead of a boot.
    pub dump_dtb: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum TransportArg {
    #[default]
    Mmio,
    Pci,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum ConsoleArg {
    #[default]
    Serial,
    Virtio,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AccelArg {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    #[default]
    Off,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum SandboxArg {
    #[default]
    On,
    Log,
    Off,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum OnResetArg {
    #[default]
    Restart,
    Exit,
}

// === impl Args ===

impl Args {
    /// Resolves what was typed into what is run.
    ///
    /// # Errors
    /// What cannot be, in one line.
    pub fn resolve(self) -> anyhow::Result<Order> {
        let (dump_dtb, run_dir) = (self.dump_dtb.clone(), self.run_dir());
        let spec = match &self.spec {
            Some(path) => read_document(path)?,
            None => self.build()?,
        };
        if spec.on_start() == OnStart::Pause && run_dir.is_none() && dump_dtb.is_none() {
            bail!("a machine that starts paused needs --run-dir: without, nobody can let it go on");
        }
        Ok(Order { spec, dump_dtb })
    }

    /// The run directory, if there is to be one.
    pub fn run_dir(&self) -> Option<RunDir> {
        self.run_dir.clone().map(RunDir::new)
    }

    /// Where a machine is waited for, if that is what is wanted, and how long its guest has when we are to end.
    pub fn awaited(&self) -> Option<(&Path, Option<u32>)> {
        self.awaited.as_deref().map(|folder| (folder, self.grace))
    }

    /// What a running machine is asked, if that is what is wanted.
    pub fn take_ctl(&mut self) -> Option<Ctl> {
        self.command.take().map(|Command::Ctl(ctl)| ctl)
    }

    fn build(self) -> anyhow::Result<Spec> {
        let disks = disk::parse_all(&self.disks)?;
        let root = disks.first().map(|disk| disk.bus);
        let boot = self.boot.resolve(self.kernel, self.cmdline, root)?;
        let mut wish = Spec::builder(boot)
            .transport(match self.transport {
                TransportArg::Mmio => Transport::Mmio,
                TransportArg::Pci => Transport::Pci,
            })
            .console(match self.console {
                ConsoleArg::Serial => Console::Serial,
                ConsoleArg::Virtio => Console::Virtio,
            })
            .balloon(self.balloon == Switch::On)
            .scsi(self.scsi)
            .rng(self.rng.unwrap_or_default())
            .cpu(self.cpu.unwrap_or_default())
            .accelerator(match self.accel {
                None | Some(AccelArg::Auto) => AcceleratorChoice::Auto,
                Some(AccelArg::Kvm) => AcceleratorChoice::Kvm,
                Some(AccelArg::Tcg) => AcceleratorChoice::Tcg,
            })
            .on_start(if self.paused { OnStart::Pause } else { OnStart::Run })
            .on_reset(match self.on_reset {
                OnResetArg::Restart => OnReset::Restart,
                OnResetArg::Exit => OnReset::Exit,
            })
            .sandbox(Sandbox {
                mode: match self.sandbox {
                    SandboxArg::On => SandboxMode::On,
                    SandboxArg::Log => SandboxMode::Log,
                    SandboxArg::Off => SandboxMode::Off,
                },
                allowed: self.sandbox_allow,
            });
        if let Some(memory) = self.memory {
            wish = wish.memory(memory.size).memory_backing(memory.backing);
        }
        if let Some(cpus) = self.cpus {
            wish = wish.cpus(cpus);
        }
        if let Some(watchdog) = self.watchdog {
            wish = wish.watchdog(watchdog);
        }
        if let Some(name) = self.name {
            wish = wish.name(name);
        }
        for text in &self.nets {
            wish = wish.interface(net::parse(text).with_context(|| format!("--net '{text}'"))?);
        }
        if let Some(text) = &self.vsock {
            wish = wish.vsock(parse_vsock(text).with_context(|| format!("--vsock '{text}'"))?);
        }
        for text in &self.shares {
            wish = wish.share(share::parse(text).with_context(|| format!("--fs '{text}'"))?);
        }
        Ok(disks.into_iter().fold(wish, SpecBuilder::disk).build()?)
    }
}

fn read_document(path: &Path) -> anyhow::Result<Spec> {
    let mut json = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut json));
    read.with_context(|| format!("--spec '{}' cannot be read", path.display()))?;
    if json.len() as u64 > MAX_DOCUMENT {
        bail!("--spec '{}' has more than {MAX_DOCUMENT} bytes", path.display());
    }
    wire::Document::parse(&json).with_context(|| format!("--spec '{}'", path.display()))
}

fn parse_rng(text: &str) -> anyhow::Result<Rng> {
    let size = text.strip_prefix("bps=");
    let size = size.with_context(|| format!("'{text}' is not known; 'bps=SIZE' is"))?;
    Ok(Rng {
        bandwidth: Some(size.parse()?),
    })
}

fn parse_vsock(text: &str) -> anyhow::Result<Vsock> {
    let (mut cid, mut socket) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("cid", number)) => cid = Some(number.parse().context("cid is not a number")?),
            Some(("socket", path)) => socket = Some(path),
            _ => bail!("'{part}' is not known; 'cid=N' and 'socket=PATH' are"),
        }
    }
    let socket = socket.context("needs socket=PATH")?;
    Ok(Vsock::new(cid.context("needs cid=N")?, socket)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvmm_spec::MemorySize;

    fn resolve(line: &str) -> anyhow::Result<Spec> {
        let order = Args::try_parse_from(line.split_whitespace())?.resolve()?;
        Ok(order.spec)
    }

    #[test]
    fn a_kernel_alone_boots_with_the_documented_defaults() {
        let spec = resolve("rvmm --kernel Image").unwrap();
        assert_eq!(spec.boot().cmdline, "console=ttyS0");
        assert_eq!(spec.memory(), MemorySize::from_mib(256));
    }

    #[test]
    fn a_disk_without_initrd_is_the_root() {
        let spec = resolve("rvmm --kernel Image --disk a.img,readonly,serial=s1").unwrap();
        assert_eq!(spec.boot().cmdline, "console=ttyS0 root=/dev/vda rw");
        let disk = &spec.disks()[0];
        assert_eq!((disk.read_only, disk.serial.as_deref()), (true, Some("s1")));
    }

    #[test]
    fn a_scsi_controller_is_there_when_asked_for_or_needed() {
        let spec = resolve("rvmm --kernel Image --disk a.img,bus=scsi").unwrap();
        assert_eq!(spec.boot().cmdline, "console=ttyS0 root=/dev/sda rw");
        assert!(spec.scsi());
        assert!(resolve("rvmm --kernel Image --scsi").unwrap().scsi());
        assert!(!resolve("rvmm --kernel Image --disk a.img").unwrap().scsi());
    }

    #[test]
    fn a_net_keeps_the_address_that_was_given() {
        let spec = resolve("rvmm --kernel Image --net tap=t0,mac=52:54:00:00:00:07").unwrap();
        assert_eq!(spec.nets()[0].mac.to_string(), "52:54:00:00:00:07");
    }

    #[test]
    fn an_interface_is_what_was_asked_for() {
        let order = resolve("rvmm --kernel Image --net tap=t0,queues=2,mtu=9000 --net passt=/p").unwrap();
        let [tap, passt] = order.nets() else {
            unreachable!("two were asked for")
        };
        assert_eq!((tap.queues, tap.mtu), (2, Some(9000)));
        assert_eq!(passt.network, rvmm_spec::Network::Passt("/p".into()));
    }

    #[test]
    fn a_share_is_what_was_asked_for() {
        let spec = resolve("rvmm --kernel Image --memory 64M,shared --fs tag=data,socket=/s").unwrap();
        assert_eq!(spec.shares(), [rvmm_spec::Share::new("data", "/s").unwrap()]);
    }

    #[test]
    fn a_balloon_is_there_when_asked_for() {
        let balloon = |line| resolve(line).unwrap().balloon();
        assert!(!balloon("rvmm --kernel Image"));
        assert!(balloon("rvmm --kernel Image --balloon on"));
    }

    #[test]
    fn a_watchdog_is_there_when_asked_for() {
        let spec = resolve("rvmm --kernel Image --watchdog i6300esb,action=poweroff").unwrap();
        let action = rvmm_spec::WatchdogAction::Poweroff;
        assert_eq!(spec.watchdog(), Some(Watchdog { action }));
        assert_eq!(resolve("rvmm --kernel Image").unwrap().watchdog(), None);
    }

    #[test]
    fn a_machine_starts_paused_where_someone_can_let_it_go_on() {
        let spec = resolve("rvmm --kernel Image --paused --run-dir vm").unwrap();
        assert_eq!(spec.on_start(), OnStart::Pause);
        let refused = resolve("rvmm --kernel Image --paused").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a machine that starts paused needs --run-dir: without, nobody can let it go on"
        );
    }

    #[test]
    fn every_wrong_word_is_named() {
        for (line, text) in [
            (
                "rvmm --kernel Image --disk a.img,cache=none",
                "--disk 'a.img,cache=none': 'cache=none' is not known; 'writeback', 'writethrough' and 'unsafe' are",
            ),
            (
                "rvmm --kernel Image --net mac=52:54:00:00:00:07",
                "needs tap=NAME or passt=SOCKET",
            ),
            ("rvmm --kernel Image --net tap=a,passt=/p", "has two networks"),
            (
                "rvmm --kernel Image --net passt=/p,vhost",
                "vhost=on is for a network interface on a tap, with one pair of queues",
            ),
            (
                "rvmm --kernel Image --net tap=a,vhost=on,queues=2",
                "vhost=on is for a network interface on a tap, with one pair of queues",
            ),
            (
                "rvmm --kernel Image --net tap=a,queues=17",
                "a network interface with 17 queues is not possible: 1 to 16",
            ),
            (
                "rvmm --kernel Image --net tap=a/b",
                "'a/b' is not an interface name",
            ),
            (
                "rvmm --kernel Image --vsock cid=2,socket=/s",
                "--vsock 'cid=2,socket=/s': vsock cid 2 is not possible: 3 to 4294967294",
            ),
            ("rvmm --kernel Image --vsock cid=3", "needs socket=PATH"),
            (
                "rvmm --kernel Image --rng 64K",
                "'64K' is not known; 'bps=SIZE' is",
            ),
            (
                "rvmm --kernel Image --rng bps=100",
                "an entropy device with 100 bytes a second is not possible: at least 1 KiB",
            ),
            (
                "rvmm --kernel Image --fs tag=data",
                "--fs 'tag=data': needs socket=PATH",
            ),
            (
                "rvmm --kernel Image --fs tag=data,socket=/s",
                "share 'data' needs memory that its server can see: --memory SIZE,shared",
            ),
            (
                "rvmm --kernel Image --fs tag=a,socket=/s,cache=on",
                "'cache=on' is not known; 'tag=NAME' and 'socket=PATH' are",
            ),
            (
                "rvmm --kernel Image --watchdog",
                "a value is required for '--watchdog",
            ),
            (
                "rvmm --kernel Image --watchdog ib700",
                "the watchdog is 'i6300esb', not 'ib700'",
            ),
            (
                "rvmm --kernel Image --cpus 0",
                "0 vCPUs are not possible: 1 to 64",
            ),
            (
                "rvmm --kernel Image --memory 4M",
                "4 MiB of memory is not possible",
            ),
            ("rvmm --spec /nonexistent", "--spec '/nonexistent' cannot be read"),
        ] {
            let error = format!("{:#}", resolve(line).unwrap_err());
            assert!(error.contains(text), "{error}");
        }
    }
}
