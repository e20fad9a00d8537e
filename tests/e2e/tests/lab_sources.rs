//! What VMIs boot from and what they find on their disks, on a node with KVM, out of a real registry.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use rvm_e2e::guest;
use rvm_e2e::lab_node::{HOST_DISKS, LabNode, NodeSetup};
use rvm_guests::oci::{About, Layer, write_layout};
use rvm_guests::{Cache, Toolbox, efi, images};
use rvm_harness::{Console, Manifest, Registry, Tools};
use rvm_outer::Host;
use serde_json::{Value, json};

const KERNEL_BOOT: &str = "registry:5000/kubevirt/alpine-ext-kernel-boot-demo:devel";
const EFI: &str = "registry:5000/kubevirt/alpine-container-disk-demo:devel";
const DISK: &str = "registry:5000/tests/disk:1";

/// An image with a disk of 1 MiB, written in its first bytes.
fn push_disk(registry: &Registry) {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = vec![0; 1 << 20];
    disk[..16].copy_from_slice(b"from the image\n\n");
    let mut layer = Layer::new();
    layer.folder("disk", 0o755).unwrap();
    layer.file("disk/disk.img", 0o644, &disk).unwrap();
    let about = About {
        tag: "1",
        command: &[],
        made_by: "a test",
    };
    write_layout(folder.path(), &about, layer).unwrap();
    registry.push(folder.path(), "tests/disk:1").unwrap();
}

fn vmi(name: &str, spec: Value) -> Manifest {
    let kind =
        json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": name}});
    Manifest(kind).with(|vmi| vmi["spec"] = spec)
}

/// The demo with a volume of each kind, each found by its serial number.
fn with_volumes() -> [Manifest; 3] {
    let settings = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "green"},
    });
    let hidden = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"password": "sesame"},
    });
    let name = json!({"path": "name", "fieldRef": {"fieldPath": "metadata.name"}});
    let host = format!("{HOST_DISKS}/host.img");
    let volumes = json!([
        {"name": "image", "containerDisk": {"image": DISK}},
        {"name": "scratch", "emptyDisk": {"capacity": "8Mi"}},
        {"name": "host", "hostDisk": {"path": host, "type": "DiskOrCreate", "capacity": "4Mi"}},
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "hidden", "secret": {"secretName": "hidden"}},
        {"name": "about", "downwardAPI": {"fields": [name]}},
        {"name": "cloud", "cloudInitNoCloud": {"userData": "#cloud-config\n# no cloud"}},
        {"name": "drive", "cloudInitConfigDrive": {"userData": "#cloud-config\n# drive"}},
    ]);
    let demo = Manifest::demo().unwrap().with(|vmi| {
        let own = volumes.as_array().unwrap();
        vmi["spec"]["volumes"].as_array_mut().unwrap().extend(own.clone());
        let disk = |volume: &Value| json!({"name": volume["name"], "serial": volume["name"], "disk": {"bus": "virtio"}});
        vmi["spec"]["domain"]["devices"]["disks"] = own.iter().map(disk).collect();
    });
    [Manifest(settings), Manifest(hidden), demo]
}

/// What finds a disk by its serial number in the guest, reads a file of one, and writes to one and reads that back from it.
const TOOLS: [&str; 3] = [
    r#"by() { (cd /sys/block; echo /dev/$(grep -l "^$1$" */serial | cut -d/ -f1)); }"#,
    r#"on() { mount -t iso9660 -o ro $(by $1) /mnt && cat /mnt/$2; umount /mnt; }"#,
    r#"keeps() { echo kept-by-$1 | dd of=$(by $1) seek=8 conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; dd if=$(by $1) skip=8 count=1 2>/dev/null | head -n 1; }"#,
];

fn console(node: &LabNode, name: &str, prompt: &str) -> Console {
    Console::at_prompt(node.console(name).unwrap(), prompt).unwrap()
}

/// A guest that answers at its console, and whose machine ends with its VMI.
fn answers_and_ends(node: LabNode, name: &str) -> String {
    let mut console = console(&node, name, "guest# ");
    let said = console.ask("cat /proc/cmdline; uname -m").unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    node.end(name).unwrap();
    said
}

#[test]
fn lab_guest_reads_every_kind_of_volume_and_keeps_what_it_writes() {
    let tools = Tools::open().unwrap();
    let registry = Registry::start().unwrap();
    registry
        .push(&tools.demo().image(), "library/alpine:3.23")
        .unwrap();
    push_disk(&registry);
    let node = NodeSetup::new(&tools).unwrap();
    let node = node
        .mirror("docker.io", &registry)
        .mirror("registry:5000", &registry);
    let node = node.start().unwrap();
    node.run(guest::NAME, &with_volumes()).unwrap();

    let mut guest = console(&node, guest::NAME, guest::PROMPT);
    guest.ask("stty cols 400; mkdir -p /mnt").unwrap();
    for tool in TOOLS {
        guest.ask(tool).unwrap();
    }
    let files = [
        ("settings", "colour", "green"),
        ("hidden", "password", "sesame"),
        ("about", "name", guest::NAME),
        ("cloud", "user-data", "#cloud-config\r\n# no cloud"),
        ("drive", "openstack/latest/user_data", "#cloud-config\r\n# drive"),
    ];
    for (disk, file, content) in files {
        assert_eq!(guest.ask(&format!("on {disk} {file}")).unwrap(), content);
    }
    assert_eq!(guest.ask("head -n 1 $(by image)").unwrap(), "from the image");
    for disk in ["image", "scratch", "host"] {
        assert_eq!(
            guest.ask(&format!("keeps {disk}")).unwrap(),
            format!("kept-by-{disk}")
        );
    }
    assert_eq!(guest.leave().unwrap().status(), Some(0));
    let written = format!("dd if={HOST_DISKS}/host.img skip=8 count=1 2>/dev/null | head -n 1");
    let written = node.lab.run(&["sh", "-c", &written]).unwrap();
    assert_eq!(written.text(), "kept-by-host\n");
    node.end(guest::NAME).unwrap();
}

#[test]
fn full_lab_guest_boots_a_kernel_out_of_an_image() {
    let tools = Tools::open().unwrap();
    let registry = Registry::start().unwrap();
    let kernel = images::kernel_boot(&Cache::open().unwrap()).unwrap();
    registry
        .push(&kernel, "kubevirt/alpine-ext-kernel-boot-demo:devel")
        .unwrap();
    let node = NodeSetup::new(&tools).unwrap();
    let node = node.mirror("registry:5000", &registry).start().unwrap();
    let container = json!({
        "image": KERNEL_BOOT, "kernelPath": "/boot/vmlinuz-virt", "initrdPath": "/boot/initramfs-virt",
    });
    let spec = json!({
        "domain": {
            "devices": {},
            "firmware": {"kernelBoot": {"container": container, "kernelArgs": "console=ttyS0"}},
            "memory": {"guest": "256Mi"},
        },
        "terminationGracePeriodSeconds": 0,
    });
    node.run("vmi-kernel-boot", &[vmi("vmi-kernel-boot", spec)])
        .unwrap();
    let said = answers_and_ends(node, "vmi-kernel-boot");
    assert_eq!(said, "console=ttyS0\r\nriscv64");
}

/// A VMI whose containerDisk its firmware boots.
fn boots_by_efi(files: &[&str], bootloader: &Value) {
    let tools = Tools::open().unwrap();
    let cache = Cache::open().unwrap();
    let registry = Registry::start().unwrap();
    registry
        .push(
            &efi::image(&cache).unwrap(),
            "kubevirt/alpine-container-disk-demo:devel",
        )
        .unwrap();
    let firmware = Toolbox::open(&cache).unwrap().firmware_dir();
    let files: Vec<_> = files.iter().map(|file| firmware.join(Path::new(file))).collect();
    let node = NodeSetup::new(&tools).unwrap().firmware(&files).unwrap();
    let node = node.mirror("registry:5000", &registry).start().unwrap();
    let spec = json!({
        "domain": {
            "devices": {"disks": [{"disk": {"bus": "virtio"}, "name": "containerdisk"}]},
            "firmware": {"bootloader": bootloader},
            "memory": {"guest": "512Mi"},
        },
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"containerDisk": {"image": EFI}, "name": "containerdisk"}],
    });
    node.run("vmi-alpine-efi", &[vmi("vmi-alpine-efi", spec)])
        .unwrap();
    let said = answers_and_ends(node, "vmi-alpine-efi");
    assert!(said.ends_with("\r\nriscv64"), "{said}");
}

#[test]
fn full_lab_guest_boots_a_container_disk_by_uboot() {
    boots_by_efi(&["uboot.bin"], &json!({"efi": {"secureBoot": false}}));
}

#[test]
fn full_lab_guest_boots_a_container_disk_by_edk2() {
    boots_by_efi(
        &["edk2-code.fd", "edk2-vars.fd"],
        &json!({"efi": {"secureBoot": false, "persistent": true}}),
    );
}
