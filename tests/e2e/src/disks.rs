//! What a guest does with its disks, and what the host then finds: one boot with four of them.

use std::process::Command;

use rvm_guests::{Cache, toolbox};
use rvm_outer::shell::{ask, switch_off, until_ready};
use rvm_outer::{Host, Session, qcow2};
use rvmm_spec::{Base, Disk, DiskFormat};

use crate::boot::{guest, spawn};

const RAW: u64 = 8 << 20;
const QCOW2: u64 = 16 << 20;

/// Discards, zeroes, writes and reads a raw and a qcow2 disk with two queues each, is kept from writing a third, and
/// writes over the base of a fourth, which stays what it is.
pub fn disks_do_what_guests_ask_of_them(host: &dyn Host) {
    let image = vec![0x5a; usize::try_from(RAW).expect("some megabytes")];
    host.put("disk.img", &image).expect("the host takes a file");
    host.put("disk.qcow2", &qcow2::empty(QCOW2))
        .expect("the host takes a file");
    host.put("fixed.img", &[0x5a; 4096])
        .expect("the host takes a file");
    host.put("base.img", &base()).expect("the host takes a file");
    host.put("over.qcow2", &qcow2::empty(1 << 20))
        .expect("the host takes a file");
    let disk = |name: &str| Disk {
        serial: Some(name.replace('.', "-")),
        queues: 2,
        ..Disk::new(host.folder().join(name))
    };
    let wish = guest(host, "quiet")
        .cpus(2)
        .disk(disk("disk.img"))
        .disk(Disk {
            format: DiskFormat::Qcow2,
            ..disk("disk.qcow2")
        })
        .disk(Disk {
            read_only: true,
            iops: Some(1000),
            ..disk("fixed.img")
        })
        .disk(Disk {
            format: DiskFormat::Qcow2,
            base: Some(Base {
                path: host.folder().join("base.img"),
                format: DiskFormat::Raw,
            }),
            ..disk("over.qcow2")
        });
    let mut vm = spawn(host, wish);
    until_ready(&mut vm);
    uses_a_raw_disk(&mut vm);
    uses_a_qcow2_disk(&mut vm);
    ask(&mut vm, "echo no | dd of=/dev/vdc; echo rc=$?", "rc=1");
    ask(&mut vm, "cat /sys/block/vdc/ro", "1\r\n");
    writes_over_a_base(&mut vm);
    switch_off(&mut vm);
    the_host_finds_it(host);
}

fn uses_a_raw_disk(vm: &mut Session) {
    ask(vm, "cat /sys/block/vda/serial; echo", "disk-img\r\n");
    ask(vm, "ls /sys/block/vda/mq | wc -l", "2\r\n");
    ask(vm, "cat /sys/block/vda/queue/write_cache", "write back\r\n");
    ask(
        vm,
        "blkdiscard -o 2097152 -l 4194304 /dev/vda; echo rc=$?",
        "rc=0",
    );
    ask(vm, "probe zero /dev/vda 0 65536", "zero ok");
    ask(vm, "probe unmap /dev/vda 131072 4096", "zero ok");
    ask(
        vm,
        "echo written by the guest | dd of=/dev/vda bs=512 seek=16383 conv=fsync,sync; echo rc=$?",
        "rc=0",
    );
}

fn uses_a_qcow2_disk(vm: &mut Session) {
    let size = format!("{}\r\n", QCOW2 / 512);
    ask(vm, "cat /sys/block/vdb/size", &size);
    ask(
        vm,
        "dd if=/dev/urandom of=/tmp/data bs=64k count=40; echo rc=$?",
        "rc=0",
    );
    ask(
        vm,
        "dd if=/tmp/data of=/dev/vdb bs=64k seek=3 conv=fsync; echo rc=$?",
        "rc=0",
    );
    ask(
        vm,
        "dd if=/dev/vdb bs=64k skip=3 count=40 iflag=direct 2>/dev/null | cmp - /tmp/data && echo the$((0+1))same",
        "the1same",
    );
    ask(vm, "probe unmap /dev/vdb 262144 131072", "zero ok");
    ask(
        vm,
        "blkdiscard -o 1048576 -l 1048576 /dev/vdb; echo rc=$?",
        "rc=0",
    );
    ask(vm, "echo 3 >/proc/sys/vm/drop_caches; echo rc=$?", "rc=0");
    let left = "dd if=/dev/vdb bs=64k skip=4 count=2 2>/dev/null | tr -d '\\000' | wc -c; echo left";
    ask(vm, left, "\r\n0\r\nleft");
}

fn writes_over_a_base(vm: &mut Session) {
    ask(
        vm,
        "dd if=/dev/vdd bs=1k skip=1023 2>/dev/null | tail -c 8; echo",
        "basebase\r\n",
    );
    let write = "echo written over it | dd of=/dev/vdd bs=512 seek=9 conv=fsync,sync; echo rc=$?";
    ask(vm, write, "rc=0");
    let read = "dd if=/dev/vdd bs=512 skip=9 count=2 iflag=direct 2>/dev/null | strings | head -c 24; echo";
    ask(vm, read, "written over it\r\nbasebase\r\n");
}

fn the_host_finds_it(host: &dyn Host) {
    let image = host.get("disk.img").expect("the disk is there");
    assert_eq!(image.len() as u64, RAW);
    assert!(image[..65536].iter().all(|byte| *byte == 0));
    assert!(image[65536..131_072].iter().all(|byte| *byte == 0x5a));
    assert!(image[131_072..135_168].iter().all(|byte| *byte == 0));
    assert!(image[135_168..2 << 20].iter().all(|byte| *byte == 0x5a));
    assert_eq!(&image[16383 * 512..16383 * 512 + 20], b"written by the guest");

    let blocks = host.run(&["stat", "-c", "%b", "disk.img"]).expect("stat runs");
    let blocks: u64 = blocks.text().trim().parse().expect("a number of blocks");
    assert!(
        blocks <= (RAW - (4 << 20)) / 512,
        "{blocks} blocks are still there"
    );

    is_sound(&host.get("disk.qcow2").expect("the disk is there"));
    assert_eq!(host.get("base.img").expect("the base is there"), base());
}

/// What lies under a disk.
fn base() -> Vec<u8> {
    b"base".repeat(256 << 10)
}

/// Holds what a guest left of a qcow2 image against QEMU's own idea of one.
pub(crate) fn is_sound(image: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk.qcow2");
    std::fs::write(&path, image).expect("room for an image");
    let cache = Cache::open().expect("the cache");
    let tool = toolbox::qemu_img(&cache).expect("qemu-img");
    let check = Command::new(tool)
        .args(["check", "-f", "qcow2"])
        .arg(&path)
        .output();
    let check = check.expect("qemu-img runs");
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(
        check.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&check.stderr)
    );
    assert!(said.contains("No errors were found"), "{said}");
}
