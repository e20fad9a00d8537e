//! Bodies of tests about folders that a guest and its host share, through virtiofsd.

use rvm_outer::{Host, Session, Signal};
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

/// The server serves the guest's next boot too; when it dies, that is a line to the user, and the guest goes on without.
pub fn a_share_outlives_a_reset_and_a_guest_its_server(host: &dyn Host, virtiofsd: &str) {
    let mut server = served(host, virtiofsd);
    let mut vm = spawn(host, sharing(host));
    mounts(&mut vm);
    vm.send("reboot -f\n").expect("the guest takes input");
    vm.expect("GUEST-UP", PATIENCE).expect("the guest boots again");
    mounts(&mut vm);
    server.kill(Signal::KILL).expect("virtiofsd is there");
    server.wait(PATIENCE).expect("virtiofsd ends");
    ask(&mut vm, "echo still=$((6 * 7))", "still=42\r\n");
    vm.send("poweroff -f\n").expect("the guest takes input");
    let ended = vm.wait(PATIENCE).expect("rvmm ends");
    let said = ended.error_text();
    assert_eq!(ended.status(), Some(0), "{said}");
    assert_eq!(said.matches("the server of files at").count(), 1, "{said}");
}
