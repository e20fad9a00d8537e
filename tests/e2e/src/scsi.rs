//! Bodies of tests about disks on a SCSI controller: from the start, and plugged in and pulled out while the guest runs.

use rvm_outer::shell::{ask, switch_off, until_ready};
use rvm_outer::{Host, Session, qcow2};
use rvmm_spec::{Disk, DiskBus, DiskFormat, Transport};

use crate::boot::{ctl, guest, put, spawn};

/// As long as the longest: the guest has all of it.
const SERIAL: &str = "plugged-in-0123456789-abcdefghijklmn";

/// A machine with a run directory, on a terminal.
fn start(host: &dyn Host, transport: Transport) -> Session {
    put(host, guest(host, "quiet").transport(transport).scsi(true));
    let argv = ["rvmm", "--spec", "vm.json", "--run-dir", "vm"];
    let mut vm = host.spawn_on_terminal(&argv).expect("rvmm starts");
    until_ready(&mut vm);
    vm
}

/// An image of a megabyte that begins with this.
fn image(host: &dyn Host, name: &str, begins: &str) {
    let mut image = vec![0; 1 << 20];
    image[..begins.len()].copy_from_slice(begins.as_bytes());
    host.put(name, &image).expect("the host takes a file");
}

/// Waits for the guest to see by itself that a disk is there, or is not.
fn sees(vm: &mut Session, disk: &str, is_there: bool) {
    let until = if is_there { "until" } else { "while" };
    let wait = format!("{until} [ -e /dev/{disk} ]; do sleep 0.1; done; echo seen=$((6 * 7))");
    ask(vm, &wait, "seen=42\r\n");
}

/// Gives the guest's shell a word for the disk with a number: Linux looks at several disks at once, and names them as they come.
fn names_disks(vm: &mut Session) {
    let word = "disk() { ls /sys/bus/scsi/devices/0:0:0:$1/block; }; echo named=$((6 * 7))";
    ask(vm, word, "named=42\r\n");
}

/// Two disks are plugged in one after the other, and the guest, which is only told, uses them; both are there again after a reset.
/// One is pulled out while it is open: it is gone at once, and whoever reads it hears so.
pub fn disks_come_and_go(host: &dyn Host, transport: Transport) {
    image(host, "plug.img", "written by the host");
    image(host, "more.img", "another one");
    let mut vm = start(host, transport);
    ask(&mut vm, "[ -e /dev/sda ] || echo none=$((6 * 7))", "none=42\r\n");

    let add = format!("plug.img,bus=scsi,serial={SERIAL}");
    assert_eq!(ctl(host, &["add-disk", &add, "--id", "data"]), "data\n");
    sees(&mut vm, "sda", true);
    ask(&mut vm, "cat /sys/block/sda/size", "2048\r\n");
    ask(
        &mut vm,
        "tail -c +5 /sys/block/sda/device/vpd_pg80; echo",
        &format!("{SERIAL}\r\n"),
    );
    ask(
        &mut vm,
        "tail -c +9 /sys/block/sda/device/vpd_pg83; echo",
        &format!("{SERIAL}\r\n"),
    );
    ask(&mut vm, "cat /sys/block/sda/device/model", "QEMU HARDDISK");
    ask(&mut vm, "head -c 19 /dev/sda; echo", "written by the host\r\n");
    let write = "echo written by the guest | dd of=/dev/sda bs=512 seek=2047 conv=fsync,sync; echo rc=$?";
    ask(&mut vm, write, "rc=0\r\n");

    assert_eq!(ctl(host, &["add-disk", "more.img,bus=scsi,readonly"]), "disk0\n");
    sees(&mut vm, "sdb", true);
    ask(
        &mut vm,
        "head -c 11 /dev/sdb; cat /sys/block/sdb/ro",
        "another one1\r\n",
    );
    ask(&mut vm, "head -c 19 /dev/sda; echo", "written by the host\r\n");

    assert_eq!(ctl(host, &["reset"]), "");
    until_ready(&mut vm);
    sees(&mut vm, "sda", true);
    sees(&mut vm, "sdb", true);
    names_disks(&mut vm);
    let read = "head -c 19 /dev/$(disk 0); head -c 11 /dev/$(disk 1); echo";
    ask(&mut vm, read, "written by the hostanother one\r\n");

    goes_while_it_is_open(host, &mut vm);
    // Its image is free again, and it has another number: nothing meant for the one that went can reach it.
    assert_eq!(ctl(host, &["add-disk", &add, "--id", "data"]), "data\n");
    let found = "until grep -q . /sys/class/scsi_device/0:0:0:2/device/vendor; do sleep 0.1; done; echo found=$((6 * 7))";
    ask(&mut vm, found, "found=42\r\n");
    switch_off(&mut vm);
    let written = host.get("plug.img").expect("the image is there");
    assert_eq!(&written[2047 * 512..2047 * 512 + 20], b"written by the guest");
}

fn goes_while_it_is_open(host: &dyn Host, vm: &mut Session) {
    ask(vm, "exec 3</dev/$(disk 0); echo open=$((6 * 7))", "open=42\r\n");
    assert_eq!(ctl(host, &["remove-device", "data"]), "");
    let gone = "while [ -e /sys/bus/scsi/devices/0:0:0:0 ]; do sleep 0.1; done; echo gone=$((6 * 7))";
    ask(vm, gone, "gone=42\r\n");
    ask(
        vm,
        "dd bs=512 skip=900 count=1 <&3 2>/dev/null | wc -c",
        "\r\n0\r\n",
    );
    ask(
        vm,
        "exec 3<&-; head -c 11 /dev/$(disk 1); echo",
        "another one\r\n",
    );
    let left = ctl(host, &["-o", "json", "info"]);
    assert_eq!(left.matches("\"plugged\":true").count(), 1);
}

/// Disks that are there from the start, among one that is a device of its own: each by its bus, in their order.
pub fn disks_from_the_start(host: &dyn Host) {
    image(host, "own.img", "on its own");
    image(host, "first.img", "the first");
    host.put("second.qcow2", &qcow2::empty(16 << 20))
        .expect("the host takes a file");
    let disk = |name: &str, bus| Disk {
        bus,
        serial: Some(name.replace('.', "-")),
        ..Disk::new(host.folder().join(name))
    };
    let wish = guest(host, "quiet")
        .disk(disk("first.img", DiskBus::Scsi))
        .disk(disk("own.img", DiskBus::Virtio))
        .disk(Disk {
            format: DiskFormat::Qcow2,
            iops: Some(10_000),
            ..disk("second.qcow2", DiskBus::Scsi)
        });
    let mut vm = spawn(host, wish);
    until_ready(&mut vm);
    // The kernel looks for the disks of a controller beside everything else.
    sees(&mut vm, "sda", true);
    sees(&mut vm, "sdb", true);
    names_disks(&mut vm);
    uses_them(&mut vm);
    switch_off(&mut vm);
    let written = host.get("first.img").expect("the image is there");
    assert_eq!(&written[7 * 512..7 * 512 + 7], b"written");
}

fn uses_them(vm: &mut Session) {
    let read = "one=$(disk 0); two=$(disk 1); head -c 10 /dev/vda; head -c 9 /dev/$one; \
                tail -c +5 /sys/block/$two/device/vpd_pg80; echo";
    ask(vm, read, "on its ownthe firstsecond-qcow2\r\n");
    let of_two = "cat /sys/block/$two/size /sys/block/$two/queue/rotational";
    ask(vm, of_two, "32768\r\n0\r\n");
    ask(vm, "cat /sys/block/$one/queue/write_cache", "write back\r\n");
    for (command, answer) in [
        (
            "dd if=/dev/urandom of=/tmp/data bs=64k count=40 2>/dev/null; echo rc=$?",
            "rc=0\r\n",
        ),
        (
            "dd if=/tmp/data of=/dev/$two bs=64k seek=3 conv=fsync 2>/dev/null; echo rc=$?",
            "rc=0\r\n",
        ),
        (
            "dd if=/dev/$two bs=64k skip=3 count=40 iflag=direct 2>/dev/null | cmp - /tmp/data && echo the$((0+1))same",
            "the1same\r\n",
        ),
        // Space is given back, and zeroes are written, by the disk.
        (
            "blkdiscard -o 1048576 -l 1048576 /dev/$two; echo rc=$?",
            "rc=0\r\n",
        ),
        ("probe zero /dev/$two 262144 131072", "zero ok"),
        ("probe unmap /dev/$two 524288 131072", "zero ok"),
        (
            "echo written | dd of=/dev/$one bs=512 seek=7 conv=fsync,sync 2>/dev/null; echo rc=$?",
            "rc=0\r\n",
        ),
    ] {
        ask(vm, command, answer);
    }
}
