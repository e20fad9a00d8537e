//! Spec → QEMU's arguments. Pure, and so the one place to read what machine QEMU is told to be.
//!
//! - `virt,aia=aplic-imsic`: the interrupt controllers that a KVM guest sees. Booting Debian's kernel to its init took
//!   the same CPU time with and without (1.6 s); `-cpu max` took twice that of `rv64`, whose extensions suffice for
//!   distributions of the RVA20 and RVA22 profiles.
//! - virtio-mmio slots are filled from the last to the first: QEMU lists them in this order in its device tree, and
//!   guests number their disks and networks as they find them there.
//! - PCI slots are filled from the first one behind the bridge, as ours are.
//! - On PCI there is a bridge behind which devices are plugged in; see `bays.rs`.
//! - `-S`, so that the guest's first instruction comes after we listen to events; `-no-reboot`, so that a reset ends
//!   QEMU and rvmm decides what follows.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rvmm_backends::agent;
use rvmm_backends::disk::Devices;
use rvmm_spec::limits::MAX_VIRTIO_DEVICES;
use rvmm_spec::{DiskBus, MemorySize, Payload, Spec, Transport};

pub(crate) mod disk;
mod net;
mod share;
#[cfg(test)]
mod tests;

use crate::bays::{BRIDGE, SCSI};
use crate::qmp::AGENT;
use crate::statistics::BALLOON;

/// The system calls that QEMU needs none of: those of old, of other users, of other programs, of other's CPU time.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// MiB of translated code that QEMU keeps. By itself it would keep up to a GiB, which nobody who shares out memory counts on. A whole
/// distribution boots as fast with 64 as with 128, and with 32 not (`tests/outer/FINDINGS.md`, "Memory of pods").
const TRANSLATED_MIB: u32 = 64;

/// What was found out about the host before the command is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The kernel or firmware for RAM, as QEMU can load it.
    pub kernel: Option<PathBuf>,
    /// The banks of flash: firmware and its variables.
    pub flash: Option<[PathBuf; 2]>,
    /// A device tree in place of QEMU's own.
    pub device_tree: Option<PathBuf>,
    /// The SBI firmware; QEMU's own if none.
    pub firmware: Option<PathBuf>,
    /// For each disk, which of its images are block devices.
    pub block_devices: Vec<Devices>,
    /// Whether this QEMU can give up system calls.
    pub sandbox: bool,
}

/// The descriptors that QEMU inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    /// A socket for QMP.
    pub qmp: RawFd,
    /// A socket for the UART.
    pub uart: RawFd,
    /// A socket for the virtio console.
    pub console: RawFd,
    /// A socket for the guest agent's port of the virtio console.
    pub agent: RawFd,
    /// For each network, the queues of its tap, if it has one.
    pub taps: Vec<Vec<RawFd>>,
}

/// Arguments under construction.
#[derive(Default)]
struct Arguments {
    words: Vec<OsString>,
    transport: Transport,
    devices: usize,
}

/// All arguments of QEMU for this machine.
pub fn arguments(spec: &Spec, findings: &Findings, descriptors: &Descriptors) -> Vec<OsString> {
    let mut arguments = Arguments {
        transport: spec.transport(),
        ..Arguments::default()
    };
    arguments.machine(spec, findings, "");
    arguments.boot(spec, findings);
    arguments.consoles(descriptors);
    let block_devices = |index: usize| findings.block_devices.get(index).copied().unwrap_or_default();
    for (index, disk) in spec.disks_on(DiskBus::Virtio) {
        arguments.disk(index, disk, block_devices(index));
    }
    let nets = spec.nets().iter().zip(&descriptors.taps).enumerate();
    nets.for_each(|(index, (net, taps))| arguments.net(index, net, taps));
    arguments.device("virtio-serial", ",max_ports=2");
    arguments.option("-device", "virtconsole,nr=0,chardev=console");
    let agent = format!(
        "virtserialport,nr=1,chardev=agent,id={AGENT},name={}",
        agent::NAME
    );
    arguments.option("-device", agent);
    arguments.option("-object", "rng-random,id=rng,filename=/dev/urandom");
    let limit = spec.rng().bandwidth.map(MemorySize::bytes);
    let limit = limit.map(|bytes| format!(",max-bytes={bytes},period=1000"));
    arguments.device("virtio-rng", format!(",rng=rng{}", limit.unwrap_or_default()));
    if spec.balloon() {
        arguments.device(
            "virtio-balloon",
            format!(",id={BALLOON},deflate-on-oom=on,free-page-reporting=on"),
        );
    }
    if spec.scsi() {
        arguments.device("virtio-scsi", format!(",id={SCSI},num_queues=1"));
    }
    for (lun, (index, disk)) in spec.disks_on(DiskBus::Scsi).enumerate() {
        arguments.unit(lun, index, disk, block_devices(index));
    }
    let shares = spec.shares().iter().enumerate();
    shares.for_each(|(index, share)| arguments.share(index, share));
    if spec.watchdog().is_some() {
        arguments.watchdog();
    }
    // A machine without a free place can have nothing plugged in either.
    if spec.has_room(0).is_ok() {
        arguments.option("-device", BRIDGE);
    }
    arguments.words
}

/// All arguments of a QEMU that writes this machine's device tree to a file and ends.
pub fn tree_arguments(spec: &Spec, findings: &Findings, file: &Path) -> Vec<OsString> {
    let mut arguments = Arguments::default();
    let mut dump = OsString::from(",dumpdtb=");
    dump.push(escaped(file.as_os_str()));
    arguments.machine(spec, findings, dump);
    arguments.boot(spec, findings);
    arguments.words
}

// === impl Arguments ===

impl Arguments {
    fn machine(&mut self, spec: &Spec, findings: &Findings, more: impl AsRef<OsStr>) {
        let mut name = OsString::from("guest=");
        name.push(escaped(OsStr::new(spec.name())));
        // Threads of vCPUs are known by their names.
        name.push(",debug-threads=on");
        self.option("-name", name);
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot", "-S"] {
            self.words.push(flag.into());
        }
        self.option("-display", "none");
        if findings.sandbox {
            self.option("-sandbox", SANDBOX);
        }
        let mut machine = OsString::from("virt,aia=aplic-imsic");
        let memory = memory_backend(spec);
        if memory.is_some() {
            machine.push(",memory-backend=ram");
        }
        if let Some(banks) = &findings.flash {
            // Without, EDK2 would hand its guest tables of ACPI, which a KVM guest does not have.
            machine.push(",acpi=off,pflash0=flash0,pflash1=flash1");
            for ((bank, read_only), index) in banks.iter().zip(["on", "off"]).zip(0..) {
                let mut node = OsString::from(format!(
                    "driver=file,node-name=flash{index},read-only={read_only},filename="
                ));
                node.push(escaped(bank.as_os_str()));
                self.option("-blockdev", node);
            }
        }
        machine.push(more);
        self.option("-machine", machine);
        self.option("-accel", format!("tcg,thread=multi,tb-size={TRANSLATED_MIB}"));
        let switches = spec.cpu().switches().iter();
        let switches =
            switches.map(|one| format!(",{}={}", one.extension, if one.on { "on" } else { "off" }));
        self.option("-cpu", format!("rv64{}", switches.collect::<String>()));
        self.option("-smp", spec.cpus().to_string());
        self.option("-m", format!("{}M", spec.memory().bytes() >> 20));
        memory
            .into_iter()
            .for_each(|memory| self.option("-object", memory));
        // virtio 1, as our own devices; QEMU's default is the register layout of before.
        self.option("-global", "virtio-mmio.force-legacy=false");
    }

    fn boot(&mut self, spec: &Spec, findings: &Findings) {
        let firmware = findings.firmware.as_ref();
        self.option(
            "-bios",
            firmware.map_or("default".into(), |path| path.clone().into_os_string()),
        );
        if let Some(device_tree) = &findings.device_tree {
            self.option("-dtb", device_tree);
        }
        if let Some(kernel) = &findings.kernel {
            self.option("-kernel", kernel);
        }
        if let Some(initrd) = &spec.boot().initrd {
            self.option("-initrd", initrd);
        }
        if let Payload::Kernel(_) = spec.boot().payload {
            self.option("-append", &spec.boot().cmdline);
        }
    }

    fn consoles(&mut self, descriptors: &Descriptors) {
        self.option("-chardev", format!("socket,id=qmp,fd={}", descriptors.qmp));
        self.option("-mon", "chardev=qmp,mode=control");
        self.option("-chardev", format!("socket,id=uart,fd={}", descriptors.uart));
        self.option("-serial", "chardev:uart");
        self.option(
            "-chardev",
            format!("socket,id=console,fd={}", descriptors.console),
        );
        self.option("-chardev", format!("socket,id=agent,fd={}", descriptors.agent));
    }

    /// A virtio device with these options, in the next slot.
    fn device(&mut self, name: &str, options: impl Into<OsString>) {
        let (kind, slot) = match self.transport {
            Transport::Mmio => {
                let slot = MAX_VIRTIO_DEVICES.saturating_sub(1 + self.devices);
                ("device", format!(",bus=virtio-mmio-bus.{slot}"))
            }
            Transport::Pci => {
                // What came with version 1 has one form only.
                let kind = if name == share::DEVICE {
                    "pci"
                } else {
                    "pci-non-transitional"
                };
                (kind, format!(",bus=pcie.0,addr={:#x}", 1 + self.devices))
            }
        };
        self.devices += 1;
        let mut device = OsString::from(format!("{name}-{kind}"));
        device.push(options.into());
        device.push(slot);
        self.option("-device", device);
    }

    /// In the slot behind those of the virtio devices. rvmm is told, and acts.
    fn watchdog(&mut self) {
        let behind = match self.transport {
            Transport::Mmio => 0,
            Transport::Pci => self.devices,
        };
        self.option("-device", format!("i6300esb,bus=pcie.0,addr={:#x}", 1 + behind));
        self.option("-action", "watchdog=none");
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.words.push(name.into());
        self.words.push(value.into());
    }
}

/// Guest RAM other than QEMU makes it by itself: private, of small pages, taken at a touch.
fn memory_backend(spec: &Spec) -> Option<String> {
    let backing = spec.memory_backing();
    let mut options = match (backing.shared, backing.huge_pages) {
        (false, None) if !backing.prefault => return None,
        (false, None) => "memory-backend-ram,id=ram".to_owned(),
        (shared, pages) => {
            let share = if shared { "on" } else { "off" };
            let pages = pages.map(|pages| format!(",hugetlb=on,hugetlbsize={}", pages.bytes()));
            format!(
                "memory-backend-memfd,id=ram,share={share}{}",
                pages.unwrap_or_default()
            )
        }
    };
    options.push_str(&format!(",size={}", spec.memory().bytes()));
    if backing.prefault {
        options.push_str(",prealloc=on");
    }
    Some(options)
}

/// A value inside a list that commas separate.
fn escaped(value: &OsStr) -> OsString {
    let twice = |&byte: &u8| std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 });
    OsString::from_vec(value.as_bytes().iter().flat_map(twice).collect())
}
