//! What is promised of translation: the right machine, or every refusal with its field's path.

use super::disks::{CacheWish, DiskSource};
use super::*;
use rvmm_spec::Payload;
use serde_json::{Value, json};

fn vmi(spec: Value) -> VirtualMachineInstance {
    let mut object = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": "vmi-alpine", "namespace": "default", "uid": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
            "annotations": {"rvm/root-filesystem": "root"},
        },
    });
    object["spec"] = spec;
    serde_json::from_value(object).unwrap()
}

fn alpine() -> Value {
    json!({
        "domain": {"devices": {}, "memory": {"guest": "128M"}},
        "volumes": [{"name": "root", "containerDisk": {"image": "docker.io/library/alpine:3.23"}}],
    })
}

fn wanted(vmi: &VirtualMachineInstance) -> Result<Wants, Vec<Cause>> {
    wants(&VmId::of(vmi).unwrap(), vmi, false)
}

fn fields(spec: Value) -> Vec<String> {
    wanted(&vmi(spec))
        .unwrap_err()
        .into_iter()
        .map(|cause| cause.field)
        .collect()
}

#[test]
fn an_image_as_root_boots_with_our_init_and_the_vmis_name() {
    let wants = wanted(&vmi(alpine())).unwrap();
    assert_eq!(
        wants.boot.cmdline(),
        "console=ttyS0 quiet rdinit=/rvm-init rvm.hostname=vmi-alpine"
    );
    assert_eq!((wants.cpus, wants.disks.len()), (1, 0));
}

#[test]
fn decimal_memory_is_rounded_up_to_what_a_machine_can_have() {
    let wants = wanted(&vmi(alpine())).unwrap();
    assert_eq!(wants.memory, MemorySize::from_mib(124));
}

#[test]
fn processors_are_cores_times_sockets_times_threads() {
    let mut spec = alpine();
    spec["domain"]["cpu"] = json!({"cores": 2, "sockets": 3, "threads": 1});
    assert_eq!(wanted(&vmi(spec)).unwrap().cpus, 6);
}

#[test]
fn an_empty_disk_is_made_in_whole_sectors_with_its_serial() {
    let mut spec = alpine();
    spec["volumes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "scratch", "emptyDisk": {"capacity": "1000"}}));
    spec["domain"]["devices"]["disks"] =
        json!([{"name": "scratch", "serial": "S1", "disk": {"bus": "virtio"}}]);
    let wants = wanted(&vmi(spec)).unwrap();
    let expected = DiskWish {
        bus: rvmm_spec::DiskBus::Virtio,
        volume: "scratch".into(),
        source: DiskSource::Empty { capacity: 1024 },
        cache: CacheWish::Writeback,
        on_error: rvmm_spec::OnDiskError::Stop,
        read_only: false,
        serial: Some("S1".into()),
    };
    assert_eq!(wants.disks, [expected]);
}

#[test]
fn disks_come_by_boot_order_and_those_of_files_are_only_read() {
    let mut spec = alpine();
    spec["volumes"] = json!([
        {"name": "root", "containerDisk": {"image": "a:1"}},
        {"name": "map", "configMap": {"name": "settings"}},
        {"name": "host", "hostDisk": {"path": "/disks/a", "type": "Disk"}},
        {"name": "data", "containerDisk": {"image": "b:1", "path": "/d.img"}},
    ]);
    spec["domain"]["devices"]["disks"] = json!([
        {"name": "map", "disk": {}},
        {"name": "host", "disk": {}, "bootOrder": 2, "cache": "none"},
        {"name": "data", "cdrom": {}, "bootOrder": 1, "cache": "writethrough"},
    ]);
    let disks = wanted(&vmi(spec)).unwrap().disks;
    let seen: Vec<_> = disks
        .iter()
        .map(|disk| (disk.volume.as_str(), disk.read_only, disk.cache))
        .collect();
    let expected = [
        ("data", true, CacheWish::Writethrough),
        ("host", false, CacheWish::None),
        ("map", true, CacheWish::Writeback),
    ];
    assert_eq!(seen, expected);
    let from = DiskSource::Container {
        image: "b:1".into(),
        path: Some("/d.img".into()),
    };
    assert_eq!(disks[0].source, from);
}

#[test]
fn a_file_system_that_cannot_do_without_its_cache_is_written_through() {
    let wish = DiskWish {
        bus: rvmm_spec::DiskBus::Virtio,
        volume: "a".into(),
        source: DiskSource::Empty { capacity: 512 },
        read_only: false,
        serial: None,
        cache: CacheWish::None,
        on_error: rvmm_spec::OnDiskError::Stop,
    };
    let at = |direct| wish.at(DiskFile { direct, ..nowhere() });
    assert_eq!(
        (at(true).direct, at(true).cache),
        (true, rvmm_spec::CacheMode::Writeback)
    );
    assert_eq!(
        (at(false).direct, at(false).cache),
        (false, rvmm_spec::CacheMode::Writethrough)
    );
}

#[test]
fn a_disk_without_a_kernel_is_booted_by_firmware() {
    let mut vmi = vmi(alpine());
    vmi.metadata.annotations = None;
    let wants = wanted(&vmi).unwrap();
    assert_eq!(
        (&wants.boot, wants.disks.len()),
        (&BootSource::Firmware(Efi::UBoot), 1)
    );
    let boot = wants.boot.boot("/uboot.bin".into(), None, None);
    assert!(matches!(boot.payload, Payload::Firmware(firmware) if firmware.vars.is_none()));
}

#[test]
fn firmware_is_chosen_by_name_and_by_what_it_can_do() {
    let with = |annotation: Option<&str>, persistent: bool| {
        let mut vmi = vmi(alpine());
        let annotation = annotation.map(|name| ("rvm/firmware".to_owned(), name.to_owned()));
        vmi.metadata.annotations = Some(annotation.into_iter().collect());
        vmi.spec.domain.firmware = serde_json::from_value(json!({
            "bootloader": {"efi": {"secureBoot": false, "persistent": persistent}},
        }))
        .unwrap();
        wanted(&vmi).unwrap().boot
    };
    let edk2 = |keeps| BootSource::Firmware(Efi::Edk2 { keeps });
    assert_eq!(with(None, false), BootSource::Firmware(Efi::UBoot));
    assert_eq!(with(Some("edk2"), false), edk2(false));
    assert_eq!(with(None, true), edk2(true));
}

#[test]
fn many_disks_beside_a_network_are_on_pci_which_has_places_for_them() {
    let with = |disks: usize| {
        let mut spec = alpine();
        let empty = (0..disks).map(|n| json!({"name": format!("d{n}"), "emptyDisk": {"capacity": "1Mi"}}));
        spec["volumes"].as_array_mut().unwrap().extend(empty);
        spec
    };
    let transport = |disks: usize| {
        let vmi = vmi(with(disks));
        let wants = wanted(&vmi).unwrap();
        let files = Artefacts {
            payload: "/k".into(),
            initrd: None,
            vars: None,
            disks: vec![nowhere(); disks],
        };
        let id = VmId::of(&vmi).unwrap();
        spec(&id, &wants, files, AcceleratorChoice::Tcg)
            .unwrap()
            .transport()
    };
    assert_eq!(
        [3, 4, 26].map(transport),
        [Transport::Mmio, Transport::Pci, Transport::Pci]
    );
    assert_eq!(fields(with(31)), ["spec"]);
}

#[test]
fn a_machine_has_a_scsi_controller_for_disks_that_come_and_those_that_are_there_unless_nobody_may_plug_any_in()
 {
    let made = |mut spec: Value, excluded: bool| {
        spec["domain"]["devices"]["disableHotplug"] = json!(excluded);
        let vmi = vmi(spec);
        let wants = wanted(&vmi).unwrap();
        let files = Artefacts {
            payload: "/k".into(),
            initrd: None,
            vars: None,
            disks: vec![nowhere(); wants.disks.len()],
        };
        let id = VmId::of(&vmi).unwrap();
        self::spec(&id, &wants, files, AcceleratorChoice::Tcg).unwrap()
    };
    assert!(made(alpine(), false).scsi());
    assert!(!made(alpine(), true).scsi());
    let mut with = alpine();
    let more = [
        json!({"name": "fixed", "emptyDisk": {"capacity": "1Mi"}}),
        json!({"name": "later", "persistentVolumeClaim": {"claimName": "c", "hotpluggable": true}}),
    ];
    with["volumes"].as_array_mut().unwrap().extend(more);
    with["domain"]["devices"]["disks"] = json!([{"name": "fixed", "disk": {"bus": "scsi"}}]);
    let spec = made(with, false);
    let buses: Vec<_> = spec.disks().iter().map(|disk| disk.bus).collect();
    assert_eq!(buses, [rvmm_spec::DiskBus::Scsi]);
}

#[test]
fn a_kernel_out_of_an_image_keeps_its_own_command_line() {
    let mut vmi = vmi(json!({
        "domain": {
            "devices": {}, "memory": {"guest": "256Mi"},
            "firmware": {"kernelBoot": {
                "kernelArgs": "console=ttyS0 debug",
                "container": {"image": "demo:1", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"},
            }},
        },
    }));
    vmi.metadata.annotations = None;
    let wants = wanted(&vmi).unwrap();
    assert_eq!(wants.boot.cmdline(), "console=ttyS0 debug");
    assert!(matches!(wants.boot, BootSource::Kernel { kernel, .. } if kernel == "/boot/vmlinuz"));
}

#[test]
fn a_firmware_out_of_an_image_is_no_kernel_and_boots_the_disks() {
    let mut spec = alpine();
    let container = json!({"image": "firmware:1", "kernelPath": "/u-boot.bin"});
    spec["domain"]["firmware"] = json!({"kernelBoot": {"container": container}});
    let mut vmi = vmi(spec);
    let named = [("rvm/firmware".to_owned(), "kernelBoot".to_owned())];
    vmi.metadata.annotations = Some(named.into());
    let wants = wanted(&vmi).unwrap();
    let expected = BootSource::OwnFirmware {
        image: "firmware:1".into(),
        path: "/u-boot.bin".into(),
    };
    assert_eq!((&wants.boot, wants.disks.len()), (&expected, 1));
    let boot = wants.boot.boot("/made/u-boot.bin".into(), None, None);
    assert!(
        matches!(&boot.payload, Payload::Firmware(firmware) if firmware.image.ends_with("u-boot.bin") && firmware.vars.is_none())
    );
    assert_eq!(boot.cmdline, "");
}

#[test]
fn a_root_file_system_is_started_by_the_kernel_that_its_author_brings() {
    let mut spec = alpine();
    let container = json!({"image": "kernels:6", "kernelPath": "/boot/Image"});
    spec["domain"]["firmware"] = json!({"kernelBoot": {"container": container, "kernelArgs": "debug"}});
    let wants = wanted(&vmi(spec)).unwrap();
    assert!(
        wants.boot.cmdline().ends_with(" debug"),
        "{}",
        wants.boot.cmdline()
    );
    let own = Some(("kernels:6".to_owned(), "/boot/Image".to_owned()));
    assert!(matches!(wants.boot, BootSource::RootFilesystem { kernel, .. } if kernel == own));
}

#[test]
fn what_cannot_be_run_is_refused_by_its_path() {
    let mut spec = alpine();
    spec["architecture"] = json!("amd64");
    assert_eq!(fields(spec), ["spec.architecture"]);
    let mut spec = alpine();
    spec["volumes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "data", "emptyDisk": {"capacity": "1Ei"}}));
    assert_eq!(fields(spec), ["spec.volumes[1].emptyDisk.capacity"]);
    let mut spec = alpine();
    spec["domain"]["memory"]["guest"] = json!("4Mi");
    assert_eq!(fields(spec), ["spec.domain.memory.guest"]);
}

#[test]
fn what_only_the_machine_itself_refuses_is_found_before_it_is_claimed() {
    let mut spec = alpine();
    spec["domain"]["devices"]["disks"] = json!([{"name": "scratch", "serial": "has space", "disk": {}}]);
    spec["volumes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "scratch", "emptyDisk": {"capacity": "1Mi"}}));
    assert_eq!(fields(spec), ["spec"]);
}

#[test]
fn a_machine_that_is_to_start_paused_waits() {
    let mut spec = alpine();
    spec["startStrategy"] = json!("Paused");
    assert_eq!(wanted(&vmi(spec)).unwrap().on_start, OnStart::Pause);
}

#[test]
fn a_long_dotted_name_becomes_one_label() {
    let mut vmi = vmi(alpine());
    vmi.metadata.name = Some(format!("a.{}.b", "x".repeat(60)));
    let line = wanted(&vmi).unwrap().boot.cmdline();
    assert!(
        line.ends_with(&format!("rvm.hostname=a-{}", "x".repeat(60))),
        "{line}"
    );
}

#[test]
fn a_spec_names_the_vmi_and_its_files() {
    let vmi = vmi(alpine());
    let files = Artefacts {
        payload: "/k".into(),
        initrd: Some("/i".into()),
        vars: None,
        disks: vec![],
    };
    let spec = spec(
        &VmId::of(&vmi).unwrap(),
        &wanted(&vmi).unwrap(),
        files,
        AcceleratorChoice::Tcg,
    )
    .unwrap();
    assert_eq!(
        (spec.name(), spec.uid()),
        ("vmi-alpine", Some("6f9619ff-8b86-4d01-b42d-00cf4fc964ff"))
    );
    assert_eq!(spec.accelerator(), AcceleratorChoice::Tcg);
    assert_eq!(spec.on_start(), OnStart::Run);
    assert_eq!(spec.boot().initrd.as_deref(), Some(std::path::Path::new("/i")));
}
