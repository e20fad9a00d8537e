//! Bodies of tests about the devices that a guest has when they are asked for.

use rvm_outer::shell::{PATIENCE, ask, switch_off, until_ready};
use rvm_outer::{Host, Session};
use rvmm_spec::{MemorySize, Vsock};

use crate::boot::{guest, spawn};

/// What the host holds of the guest's RAM, in KiB: it is a mapping with a name, or, where the kernel has none, of
/// `/dev/zero`.
const RESIDENT: &str = "cat /proc/[0-9]*/smaps 2>/dev/null | \
    awk '/^[0-9a-f]+-/ { ram = /rvmm-guest-ram|\\/dev\\/zero/ } ram && /^Rss:/ { sum += $2 } END { print sum + 0 }'";

fn resident(host: &dyn Host) -> u64 {
    let output = host.run(&["sh", "-c", RESIDENT]).expect("the host counts");
    output.text().trim().parse().expect("a number")
}

/// Waits, on the host, until it holds less than this of the guest's RAM.
fn wait_until_below(host: &dyn Host, kib: u64) {
    let wait = format!("until [ $({RESIDENT}) -lt {kib} ]; do sleep 1; done");
    let output = host.run(&["sh", "-c", &wait]).expect("the host gets it back");
    assert_eq!(output.status(), Some(0), "{}", output.error_text());
}

/// Memory that the guest has used and freed goes back to the host, by reports of free pages.
pub fn freed_memory_goes_back_to_the_host(host: &dyn Host) {
    let wish = guest(host, "quiet")
        .memory(MemorySize::from_mib(512))
        .balloon(true);
    let mut vm = spawn(host, wish);
    until_ready(&mut vm);
    ask(
        &mut vm,
        "ls /sys/bus/virtio/drivers/virtio_balloon | grep -c virtio",
        "1\r\n",
    );
    ask(
        &mut vm,
        "dd if=/dev/zero of=/tmp/f bs=1M count=192 2>/dev/null; echo filled",
        "filled\r\n",
    );
    let full = resident(host);
    assert!(full >= 192 << 10, "{full} KiB");
    ask(&mut vm, "rm /tmp/f; echo freed", "freed\r\n");
    wait_until_below(host, full - (128 << 10));
    ask(
        &mut vm,
        "dd if=/dev/zero of=/tmp/f bs=1M count=192 2>/dev/null; echo again",
        "again\r\n",
    );
    switch_off(&mut vm);
}

/// Programs of the guest and of the host reach each other through sockets, in both directions.
pub fn guest_and_host_speak_over_vsock(host: &dyn Host) {
    let vsock = Vsock::new(3, host.folder().join("v.sock")).expect("a number and a path");
    let mut vm = spawn(host, guest(host, "quiet").vsock(vsock));
    until_ready(&mut vm);
    let mut server = host
        .spawn(&["rvm-guest-probe", "answer-path", "v.sock_52"])
        .expect("the host serves a port");
    server.expect("listening", PATIENCE).expect("the host listens");
    ask(&mut vm, "probe ask-host 52 hello", "heard: HELLO");
    server.expect("heard: hello", PATIENCE).expect("the host hears");
    ask(&mut vm, "probe ask-host 53 nobody", "reset by peer");
    serve_once(&mut vm);
    let asked = host
        .run(&["rvm-guest-probe", "ask-path", "v.sock", "CONNECT 7/hello"])
        .expect("the host asks");
    assert_eq!(
        asked.text(),
        "heard: OK 1073741824\nHELLO\n",
        "{}",
        asked.error_text()
    );
    vm.expect("heard: hello", PATIENCE).expect("the guest hears");
    switch_off(&mut vm);
    let gone = host.run(&["ls", "v.sock"]).expect("the host looks");
    assert_ne!(gone.status(), Some(0), "the socket is gone with the machine");
}

/// A program of the guest waits for the host.
fn serve_once(vm: &mut Session) {
    vm.send("probe answer-host 7\n").expect("the guest takes input");
    vm.expect("listening", PATIENCE).expect("the guest listens");
}
