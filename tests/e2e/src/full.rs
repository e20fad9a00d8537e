//! Bodies of tests about a host's disk that is full: what the guest is told, and what is there when there is room again.

use rvm_outer::shell::{PATIENCE, ask, switch_off, until_ready};
use rvm_outer::{Host, Session, qcow2};
use rvmm_spec::{Disk, DiskBus, DiskFormat, OnDiskError};

use crate::boot::{guest, put};
use crate::disks::is_sound;

/// A file system of 3 MiB of rvmm's own, on which three disks of 8 MiB lie. What is left of them is fetched before it goes.
const START: &str = "set -e; mkdir small; mount -t tmpfs -o size=3m none small; cp empty.qcow2 small/disk.qcow2; \
                     truncate -s 8M small/disk.img small/disk.stops; rvmm --spec vm.json --run-dir vm; cp small/disk.* .";

/// Makes room, in rvmm's view of the files.
const MAKE_ROOM: &str = "nsenter -t $(cat vm/pid) -m mount -o remount,size=32m none \"$PWD/small\"";

/// The guest stands still for its disk, and does so again when it goes on without room.
const PAUSED: &str = "for n in $(seq 600); do now=$(rvmm ctl --run-dir vm info); echo \"$now\" | grep -q '^state *paused' && \
                      echo \"$now\" | grep -q '^waits for *disk2' && exit 0; sleep 0.1; done; echo \"$now\"; exit 1";
const RESUME: &str = "rvmm ctl --run-dir vm resume";

/// Of a disk: what is written while there is room, what no longer fits, and what does when there is room again.
const FIRST: &str = "dd if=/tmp/data of=/dev/DISK bs=64k count=4 oflag=direct; echo rc=$?";
const REST: &str = "dd if=/tmp/data of=/dev/DISK bs=64k skip=4 seek=4 oflag=direct conv=fsync; echo rc=$?";
const READ_FIRST: &str =
    "dd if=/dev/DISK bs=64k count=4 iflag=direct 2>/dev/null | cmp - /tmp/first && echo the$((0+1))same";
const READ_ALL: &str =
    "dd if=/dev/DISK bs=64k count=64 iflag=direct 2>/dev/null | cmp - /tmp/data && echo the$((0+1))same";

/// Writes that do not fit are errors to the guest, or have it stand still, as its disk's policy says; what it wrote before stays,
/// and it goes on once there is room. The disk that stops it is on this bus.
pub fn a_guest_goes_on_when_there_is_room_again(host: &dyn Host, bus: DiskBus) {
    host.put("empty.qcow2", &qcow2::empty(8 << 20))
        .expect("the host takes a file");
    let disk = |name: &str, format| Disk {
        format,
        ..Disk::new(host.folder().join("small").join(name))
    };
    let wish = guest(host, "quiet")
        .disk(disk("disk.img", DiskFormat::Raw))
        .disk(disk("disk.qcow2", DiskFormat::Qcow2))
        .disk(Disk {
            bus,
            on_error: OnDiskError::Stop,
            ..disk("disk.stops", DiskFormat::Raw)
        });
    let stops = match bus {
        DiskBus::Virtio => "vdc",
        DiskBus::Scsi => "sda",
    };
    put(host, wish);
    let mut vm = host
        .spawn_on_terminal(&["unshare", "-m", "sh", "-c", START])
        .expect("rvmm starts");
    until_ready(&mut vm);
    let data = "yes a guest wrote this | head -c 4194304 >/tmp/data; head -c 262144 /tmp/data >/tmp/first";
    ask(&mut vm, &format!("{data}; echo rc=$?"), "rc=0");

    on_both(&mut vm, FIRST, "rc=0");
    ask(&mut vm, &FIRST.replace("DISK", stops), "rc=0");
    on_both(&mut vm, REST, "rc=1");
    on_both(&mut vm, READ_FIRST, "the1same");
    vm.send(format!("{}\n", REST.replace("DISK", stops)))
        .expect("the guest is told");
    let sh = |script| host.run(&["sh", "-c", script]).expect("a shell runs");
    sh(PAUSED).ok().expect("the machine is paused");
    sh(RESUME).ok().expect("the machine goes on");
    sh(PAUSED).ok().expect("the machine is paused again");
    let room = host.run(&["sh", "-c", MAKE_ROOM]).expect("nsenter runs");
    room.ok().expect("there is room");
    sh(RESUME).ok().expect("the machine goes on");
    vm.expect("rc=0", PATIENCE).expect("the write is done");
    until_ready(&mut vm);
    on_both(&mut vm, REST, "rc=0");
    on_both(&mut vm, READ_ALL, "the1same");
    ask(&mut vm, &READ_ALL.replace("DISK", stops), "the1same");
    switch_off(&mut vm);
    is_sound(&host.get("disk.qcow2").expect("the disk is there"));
}

fn on_both(vm: &mut Session, command: &str, answer: &str) {
    ask(vm, &command.replace("DISK", "vda"), answer);
    ask(vm, &command.replace("DISK", "vdb"), answer);
}
