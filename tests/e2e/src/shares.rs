//! Bodies of tests about folders that a guest and its host share, through virtiofsd.

use rvm_outer::{Host, Session};
use rvmm_spec::{MemoryBacking, Share, SpecBuilder};

use crate::boot::{PATIENCE, ask, guest, spawn, switch_off};

/// What virtiofsd says when a guest may come.
const READY: &str = "Waiting for vhost-user socket connection";

/// A folder with a file of the host, and a server for it that waits.
fn served(host: &dyn Host, virtiofsd: &str) -> Session {
    let made = host
        .run(&["mkdir", "-p", "shared"])
        .expect("the host has a folder");
    assert_eq!(made.status(), Some(0), "{}", made.error_text());
    host.put("shared/from-host", b"written by the host\n")
        .expect("the host takes a file");
    // What it says goes to its error output.
    let serve = "exec \"$0\" --socket-path fs.sock --shared-dir shared --sandbox none 2>&1";
    let mut server = host
        .spawn(&["sh", "-c", serve, virtiofsd])
        .expect("virtiofsd starts");
    server.expect(READY, PATIENCE).expect("virtiofsd waits");
    server
}

fn sharing(host: &dyn Host) -> SpecBuilder {
    let share = Share::new("data", host.folder().join("fs.sock")).expect("a tag and a path");
    let backing = MemoryBacking {
        shared: true,
        ..MemoryBacking::default()
    };
    guest(host, "quiet").memory_backing(backing).share(share)
}

/// The guest has a shell, mounts the folder and reads what the host wrote.
fn mounts(vm: &mut Session) {
    vm.expect("guest# ", PATIENCE).expect("the guest has a shell");
    ask(
        vm,
        "mkdir -p /tmp/data; mount -t virtiofs data /tmp/data; cat /tmp/data/from-host",
        "written by the host\r\n",
    );
}

/// What the host wrote the guest reads, and the other way round; the server sees the guest leave.
pub fn guest_and_host_share_a_folder(host: &dyn Host, virtiofsd: &str) {
    let mut server = served(host, virtiofsd);
    let mut vm = spawn(host, sharing(host));
    mounts(&mut vm);
    ask(
        &mut vm,
        "echo written by the guest > /tmp/data/from-guest; echo rc=$?",
        "rc=0",
    );
    switch_off(&mut vm);
    let written = host.get("shared/from-guest").expect("the file is there");
    assert_eq!(written, b"written by the guest\n");
    server.wait(PATIENCE).expect("virtiofsd ends with its guest");
}
