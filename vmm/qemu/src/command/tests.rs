//! A Spec as the words that QEMU is started with.

use super::*;
use rvmm_spec::{Boot, Disk, DiskBus, MemoryOption, NetWish, Network, Rng};

fn findings(block_devices: &[bool]) -> Findings {
    Findings {
        kernel: Some("/run/Image".into()),
        flash: None,
        device_tree: None,
        firmware: None,
        block_devices: block_devices
            .iter()
            .map(|&image| Devices { image, base: false })
            .collect(),
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
        "-name guest=vm,debug-threads=on\n\
         -nodefaults\n\
         -no-user-config\n\
         -no-reboot\n\
         -S\n\
         -display none\n\
         -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\n\
         -machine virt,aia=aplic-imsic\n\
         -accel tcg,thread=multi,tb-size=64\n\
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
fn the_scsi_controller_comes_behind_the_balloon_and_its_disks_take_no_place() {
    let on = |bus, path: &str| Disk {
        bus,
        ..Disk::new(path)
    };
    let spec = Spec::builder(Boot::new("Image"))
        .balloon(true)
        .disk(on(DiskBus::Scsi, "/a.img"))
        .disk(on(DiskBus::Virtio, "/b.img"))
        .disk(on(DiskBus::Scsi, "/c.img"));
    let text = |spec: Spec| text(&arguments(&spec, &findings(&[false; 3]), &descriptors(&[])));
    let mmio = text(spec.clone().build().unwrap());
    let end = "-device virtio-balloon-device,id=balloon,deflate-on-oom=on,free-page-reporting=on,bus=virtio-mmio-bus.4\n\
         -device virtio-scsi-device,id=scsi,num_queues=1,bus=virtio-mmio-bus.3\n\
         -blockdev driver=raw,node-name=disk0,read-only=off,discard=unmap,file.driver=file,file.filename=/a.img\n\
         -device scsi-hd,drive=disk0,werror=report,rerror=report,opt_io_size=524288,rotation_rate=1,dpofua=on,bus=scsi.0,channel=0,scsi-id=0,lun=0\n\
         -blockdev driver=raw,node-name=disk2,read-only=off,discard=unmap,file.driver=file,file.filename=/c.img\n\
         -device scsi-hd,drive=disk2,werror=report,rerror=report,opt_io_size=524288,rotation_rate=1,dpofua=on,bus=scsi.0,channel=0,scsi-id=0,lun=1";
    assert!(mmio.ends_with(end), "{mmio}");
    assert!(mmio.contains("-device virtio-blk-device,drive=disk1,"), "{mmio}");
    let pci = text(spec.transport(Transport::Pci).build().unwrap());
    assert!(
        pci.contains("-device virtio-scsi-pci-non-transitional,id=scsi,num_queues=1,bus=pcie.0,addr=0x5\n"),
        "{pci}"
    );
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
    assert!(with("64M,prefault").contains("-object memory-backend-ram,id=ram,size=67108864,prealloc=on\n"));
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
         -device virtio-balloon-device,id=balloon,deflate-on-oom=on,free-page-reporting=on,bus=virtio-mmio-bus.5";
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
    let wanted = "-device vhost-user-fs-pci,chardev=share0,queue-size=1024,tag=data,bus=pcie.0,addr=0x3\n";
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
         -accel tcg,thread=multi,tb-size=64\n\
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
