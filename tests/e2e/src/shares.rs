//! Bodies of tests about folders that a guest and its host share, through virtiofsd.

use rvm_outer::shell::{PATIENCE, ask, switch_off, until_ready};
use rvm_outer::{Host, Session, Signal};
use rvmm_spec::{MemoryBacking, Share, SpecBuilder, Transport};

use crate::boot::{guest, spawn};

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

fn sharing(host: &dyn Host, transport: Transport) -> SpecBuilder {
    let share = Share::new("data", host.folder().join("fs.sock")).expect("a tag and a path");
    let backing = MemoryBacking {
        shared: true,
        ..MemoryBacking::default()
    };
    guest(host, "quiet")
        .transport(transport)
        .memory_backing(backing)
        .share(share)
}

/// The guest has a shell, mounts the folder and reads what the host wrote.
fn mounts(vm: &mut Session) {
    until_ready(vm);
    ask(
        vm,
        "mkdir -p /tmp/data; mount -t virtiofs data /tmp/data; cat /tmp/data/from-host",
        "written by the host\r\n",
    );
}

fn writes(vm: &mut Session) {
    let write = "echo written by the guest > /tmp/data/from-guest; echo rc=$?";
    ask(vm, write, "rc=0");
}

/// What the guest wrote is there, and the server saw the guest leave.
fn written(host: &dyn Host, mut server: Session) {
    let written = host.get("shared/from-guest").expect("the file is there");
    assert_eq!(written, b"written by the guest\n");
    server.wait(PATIENCE).expect("virtiofsd ends with its guest");
}

/// What the host wrote the guest reads, and the other way round; the server sees the guest leave.
pub fn guest_and_host_share_a_folder(host: &dyn Host, virtiofsd: &str) {
    let server = served(host, virtiofsd);
    let mut vm = spawn(host, sharing(host, Transport::Mmio));
    mounts(&mut vm);
    writes(&mut vm);
    switch_off(&mut vm);
    written(host, server);
}

/// The same, and the server serves the guest's next boot too.
pub fn a_share_outlives_a_reset(host: &dyn Host, virtiofsd: &str) {
    let server = served(host, virtiofsd);
    let mut vm = spawn(host, sharing(host, Transport::Mmio));
    mounts(&mut vm);
    vm.send("reboot -f\n").expect("the guest takes input");
    vm.expect("GUEST-UP", PATIENCE).expect("the guest boots again");
    mounts(&mut vm);
    writes(&mut vm);
    switch_off(&mut vm);
    written(host, server);
}

/// Over PCI; when the server dies, that is a line to the user, and the guest goes on without. To switch itself off it would
/// wait for the server in vain, so that rvmm is told to end.
pub fn a_guest_outlives_its_server(host: &dyn Host, virtiofsd: &str) {
    let mut server = served(host, virtiofsd);
    let mut vm = spawn(host, sharing(host, Transport::Pci));
    mounts(&mut vm);
    server.kill(Signal::KILL).expect("virtiofsd is there");
    server.wait(PATIENCE).expect("virtiofsd ends");
    ask(&mut vm, "echo still=$((6 * 7))", "still=42\r\n");
    vm.kill(Signal::TERM).expect("rvmm takes a signal");
    let ended = vm.wait(PATIENCE).expect("rvmm ends");
    let said = ended.error_text();
    assert_eq!(ended.status(), Some(128 + 15), "{said}");
    assert_eq!(said.matches("the server of files at").count(), 1, "{said}");
}
