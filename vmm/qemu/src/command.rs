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
use rvmm_spec::limits::MAX_VIRTIO_DEVICES;
use rvmm_spec::{MemorySize, Payload, Spec, Transport};

mod disk;
mod net;
mod share;

use crate::bays::BRIDGE;
use crate::qmp::AGENT;

/// The system calls that QEMU needs none of: those of old, of other users, of other programs, of other's CPU time.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

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
    /// For each disk, whether it is a block device.
    pub block_devices: Vec<bool>,
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
    let disks = spec.disks().iter().zip(&findings.block_devices).enumerate();
    disks.for_each(|(index, (disk, &is_device))| arguments.disk(index, disk, is_device));
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
        arguments.device("virtio-balloon", ",deflate-on-oom=on,free-page-reporting=on");
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
        self.option("-accel", "tcg,thread=multi");
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

#[cfg(test)]
mod tests {
    use super::*;
    use rvmm_spec::{Boot, Disk, MemoryOption, NetWish, Network, Rng};

    fn findings(block_devices: &[bool]) -> Findings {
        Findings {
            kernel: Some("/run/Image".into()),
            flash: None,
            device_tree: None,
            firmware: None,
            block_devices: block_devices.to_vec(),
            sandbox: true,
        }
    }

    fn descriptors(taps: &[RawFd]) -> Descriptors {
        Descriptors {
            qmp: 3,
            uart: 4,
            console: 5,
            agent: 6,
            taps: taps.iter().map(|&tap| vec![tap]).collect(),
        }
    }

    /// One option a line.
    fn text(words: &[OsString]) -> String {
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn a_kernel_alone_gives_this_command() {
        let spec = Spec::builder(Boot::new("Image.gz")).build().unwrap();
        assert_eq!(
            text(&arguments(&spec, &findings(&[]), &descriptors(&[]))),
            "-name guest=vm\n\
             -nodefaults\n\
             -no-user-config\n\
             -no-reboot\n\
             -S\n\
             -display none\n\
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\n\
             -machine virt,aia=aplic-imsic\n\
             -accel tcg,thread=multi\n\
             -cpu rv64\n\
             -smp 1\n\
             -m 256M\n\
             -global virtio-mmio.force-legacy=false\n\
             -bios default\n\
             -kernel /run/Image\n\
             -append console=ttyS0\n\
             -chardev socket,id=qmp,fd=3\n\
             -mon chardev=qmp,mode=control\n\
             -chardev socket,id=uart,fd=4\n\
             -serial chardev:uart\n\
             -chardev socket,id=console,fd=5\n\
             -chardev socket,id=agent,fd=6\n\
             -device virtio-serial-device,max_ports=2,bus=virtio-mmio-bus.7\n\
             -device virtconsole,nr=0,chardev=console\n\
             -device virtserialport,nr=1,chardev=agent,id=agent,name=org.qemu.guest_agent.0\n\
             -object rng-random,id=rng,filename=/dev/urandom\n\
             -device virtio-rng-device,rng=rng,bus=virtio-mmio-bus.6"
        );
    }

    #[test]
    fn disks_come_before_nets_and_nets_before_the_rest() {
        let disk = |path: &str, read_only, serial: Option<&str>| Disk {
            read_only,
            serial: serial.map(str::to_owned),
            ..Disk::new(path)
        };
        let spec = Spec::builder(Boot {
            initrd: Some("/i,n".into()),
            ..Boot::new("Image")
        })
        .cpus(4)
        .memory(MemorySize::from_mib(1024))
        .disk(disk("/a,b.img", false, Some("s,1")))
        .disk(disk("/dev/loop7", true, None))
        .net("tap0".parse().unwrap(), "52:54:00:00:00:07".parse().ok())
        .build()
        .unwrap();
        let text = text(&arguments(&spec, &findings(&[false, true]), &descriptors(&[9])));
        let end = "-initrd /i,n\n\
             -append console=ttyS0\n\
             -chardev socket,id=qmp,fd=3\n\
             -mon chardev=qmp,mode=control\n\
             -chardev socket,id=uart,fd=4\n\
             -serial chardev:uart\n\
             -chardev socket,id=console,fd=5\n\
             -chardev socket,id=agent,fd=6\n\
             -blockdev driver=raw,node-name=disk0,read-only=off,discard=unmap,file.driver=file,file.filename=/a,,b.img\n\
             -device virtio-blk-device,drive=disk0,werror=report,rerror=report,opt_io_size=524288,serial=s,,1,bus=virtio-mmio-bus.7\n\
             -blockdev driver=raw,node-name=disk1,read-only=on,discard=unmap,file.driver=host_device,file.filename=/dev/loop7\n\
             -device virtio-blk-device,drive=disk1,werror=report,rerror=report,opt_io_size=524288,bus=virtio-mmio-bus.6\n\
             -netdev tap,id=net0,fd=9\n\
             -device virtio-net-device,netdev=net0,mac=52:54:00:00:00:07,bus=virtio-mmio-bus.5\n\
             -device virtio-serial-device,max_ports=2,bus=virtio-mmio-bus.4\n\
             -device virtconsole,nr=0,chardev=console\n\
             -device virtserialport,nr=1,chardev=agent,id=agent,name=org.qemu.guest_agent.0\n\
             -object rng-random,id=rng,filename=/dev/urandom\n\
             -device virtio-rng-device,rng=rng,bus=virtio-mmio-bus.3";
        assert!(text.ends_with(end), "{text}");
        assert!(text.contains("-smp 4\n-m 1024M\n"), "{text}");
    }

    #[test]
    fn memory_is_backed_as_under_kvm() {
        let with = |option: &str| {
            let option: MemoryOption = option.parse().unwrap();
            let wish = Spec::builder(Boot::new("Image"))
                .memory(option.size)
                .memory_backing(option.backing);
            text(&arguments(
                &wish.build().unwrap(),
                &findings(&[]),
                &descriptors(&[]),
            ))
        };
        assert!(!with("64M,thp=never").contains("memory-backend"));
        assert!(
            with("64M,prefault").contains("-object memory-backend-ram,id=ram,size=67108864,prealloc=on\n")
        );
        let huge = with("64M,shared,hugepages=2M");
        assert!(
            huge.contains("-machine virt,aia=aplic-imsic,memory-backend=ram\n"),
            "{huge}"
        );
        let object = "memory-backend-memfd,id=ram,share=on,hugetlb=on,hugetlbsize=2097152,size=67108864\n";
        assert!(huge.contains(object), "{huge}");
    }

    #[test]
    fn on_pci_devices_are_modern_and_in_the_slots_behind_the_bridge() {
        let disk = Disk::new("/a.img");
        let spec = Spec::builder(Boot::new("Image"))
            .transport(Transport::Pci)
            .disk(disk)
            .net("tap0".parse().unwrap(), "52:54:00:00:00:07".parse().ok())
            .build()
            .unwrap();
        let text = text(&arguments(&spec, &findings(&[false]), &descriptors(&[9])));
        let devices: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("-device virtio-"))
            .collect();
        assert_eq!(
            devices,
            [
                "-device virtio-blk-pci-non-transitional,drive=disk0,werror=report,rerror=report,opt_io_size=524288,num-queues=1,bus=pcie.0,addr=0x1",
                "-device virtio-net-pci-non-transitional,netdev=net0,mac=52:54:00:00:00:07,romfile=,bus=pcie.0,addr=0x2",
                "-device virtio-serial-pci-non-transitional,max_ports=2,bus=pcie.0,addr=0x3",
                "-device virtio-rng-pci-non-transitional,rng=rng,bus=pcie.0,addr=0x4",
            ]
        );
    }

    #[test]
    fn a_watchdog_is_on_the_root_bus_behind_the_rest_and_rvmm_acts() {
        let with = |transport| {
            let wish = Spec::builder(Boot::new("Image")).transport(transport);
            let spec = wish.watchdog(rvmm_spec::Watchdog::default()).build().unwrap();
            text(&arguments(&spec, &findings(&[]), &descriptors(&[])))
        };
        let (mmio, pci) = (with(Transport::Mmio), with(Transport::Pci));
        assert!(
            mmio.ends_with("-device i6300esb,bus=pcie.0,addr=0x1\n-action watchdog=none"),
            "{mmio}"
        );
        assert!(
            pci.contains("-device i6300esb,bus=pcie.0,addr=0x3\n-action watchdog=none\n"),
            "{pci}"
        );
    }

    #[test]
    fn a_limit_of_entropy_is_for_each_second() {
        let bandwidth = Some(MemorySize::from_bytes(2048));
        let wish = Spec::builder(Boot::new("Image")).rng(Rng { bandwidth });
        let text = text(&arguments(
            &wish.build().unwrap(),
            &findings(&[]),
            &descriptors(&[]),
        ));
        let end = "-device virtio-rng-device,rng=rng,max-bytes=2048,period=1000,bus=virtio-mmio-bus.6";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_balloon_comes_behind_the_rest() {
        let spec = Spec::builder(Boot::new("Image")).balloon(true).build().unwrap();
        let text = text(&arguments(&spec, &findings(&[]), &descriptors(&[])));
        let end = "-device virtio-rng-device,rng=rng,bus=virtio-mmio-bus.6\n\
             -device virtio-balloon-device,deflate-on-oom=on,free-page-reporting=on,bus=virtio-mmio-bus.5";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn shares_come_last_and_their_servers_see_the_memory() {
        let option: MemoryOption = "64M,shared".parse().unwrap();
        let wish = Spec::builder(Boot::new("Image"))
            .memory(option.size)
            .memory_backing(option.backing)
            .balloon(true)
            .share(rvmm_spec::Share::new("a,b", "/s,1").unwrap());
        let text = text(&arguments(
            &wish.build().unwrap(),
            &findings(&[]),
            &descriptors(&[]),
        ));
        let end = "bus=virtio-mmio-bus.5\n\
             -chardev socket,id=share0,path=/s,,1\n\
             -device vhost-user-fs-device,chardev=share0,queue-size=1024,tag=a,,b,bus=virtio-mmio-bus.4";
        assert!(text.ends_with(end), "{text}");
        assert!(text.contains("memory-backend-memfd,id=ram,share=on,"), "{text}");
    }

    #[test]
    fn a_share_on_pci_has_the_only_form_that_qemu_knows() {
        let option: MemoryOption = "64M,shared".parse().unwrap();
        let wish = Spec::builder(Boot::new("Image"))
            .memory_backing(option.backing)
            .transport(Transport::Pci)
            .share(rvmm_spec::Share::new("data", "/s").unwrap());
        let text = text(&arguments(
            &wish.build().unwrap(),
            &findings(&[]),
            &descriptors(&[]),
        ));
        let wanted =
            "-device vhost-user-fs-pci,chardev=share0,queue-size=1024,tag=data,bus=pcie.0,addr=0x3\n";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn queues_mtu_and_passt_are_qemus_too() {
        let mac = "52:54:00:00:00:07".parse().ok();
        let tap = NetWish {
            mac,
            queues: 2,
            mtu: Some(9000),
            ..NetWish::new(Network::Tap("t0".parse().unwrap()))
        };
        let passt = NetWish {
            mac,
            ..NetWish::new(Network::Passt("/p,1".into()))
        };
        let wish = Spec::builder(Boot::new("Image")).interface(tap).interface(passt);
        let descriptors = Descriptors {
            taps: vec![vec![8, 9], vec![]],
            ..descriptors(&[])
        };
        let text = text(&arguments(&wish.build().unwrap(), &findings(&[]), &descriptors));
        let wanted = "-netdev tap,id=net0,fds=8:9\n\
             -device virtio-net-device,netdev=net0,mac=52:54:00:00:00:07,mq=on,host_mtu=9000,bus=virtio-mmio-bus.7\n\
             -netdev stream,id=net1,server=off,addr.type=unix,addr.path=/p,,1\n\
             -device virtio-net-device,netdev=net1,mac=52:54:00:00:00:07,bus=virtio-mmio-bus.6\n";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn a_firmware_of_ours_takes_the_place_of_qemus() {
        let spec = Spec::builder(Boot::new("Image")).build().unwrap();
        let findings = Findings {
            firmware: Some("/fw.bin".into()),
            sandbox: false,
            ..findings(&[])
        };
        let text = text(&arguments(&spec, &findings, &descriptors(&[])));
        assert!(
            text.contains("\n-bios /fw.bin\n") && !text.contains("-sandbox"),
            "{text}"
        );
    }

    #[test]
    fn a_firmware_in_flash_has_its_two_banks_and_no_kernel() {
        let boot = Boot::firmware(rvmm_spec::Firmware {
            image: "/code.fd".into(),
            vars: None,
        });
        let spec = Spec::builder(boot)
            .cpu("host,zbb=off,v=on".parse().unwrap())
            .build()
            .unwrap();
        let findings = Findings {
            kernel: None,
            flash: Some(["/code.fd".into(), "/v,1.fd".into()]),
            device_tree: Some("/dtb".into()),
            ..findings(&[])
        };
        let text = text(&arguments(&spec, &findings, &descriptors(&[])));
        let machine = "-blockdev driver=file,node-name=flash0,read-only=on,filename=/code.fd\n\
             -blockdev driver=file,node-name=flash1,read-only=off,filename=/v,,1.fd\n\
             -machine virt,aia=aplic-imsic,acpi=off,pflash0=flash0,pflash1=flash1\n\
             -accel tcg,thread=multi\n\
             -cpu rv64,zbb=off,v=on\n";
        assert!(text.contains(machine), "{text}");
        assert!(text.contains("\n-bios default\n-dtb /dtb\n-chardev"), "{text}");
    }

    #[test]
    fn a_device_tree_is_dumped_by_the_same_machine_without_its_devices() {
        let spec = Spec::builder(Boot::new("Image")).build().unwrap();
        let text = text(&tree_arguments(&spec, &findings(&[]), Path::new("/d,t")));
        assert!(
            text.contains("-machine virt,aia=aplic-imsic,dumpdtb=/d,,t\n"),
            "{text}"
        );
        assert!(
            text.ends_with("-kernel /run/Image\n-append console=ttyS0"),
            "{text}"
        );
    }

    #[test]
    fn words_are_never_split_and_paths_need_not_be_text() {
        let boot = Boot {
            cmdline: "a b \"c\" -d, $(e)".to_owned(),
            ..Boot::new("Image")
        };
        let path = OsString::from_vec(b"/\xff, -x".to_vec());
        let spec = Spec::builder(boot).disk(Disk::new(path)).build().unwrap();
        let words = arguments(&spec, &findings(&[false]), &descriptors(&[]));
        assert!(words.contains(&OsString::from("a b \"c\" -d, $(e)")));
        assert!(
            words
                .iter()
                .any(|word| word.as_bytes().ends_with(b"filename=/\xff,, -x"))
        );
    }
}
