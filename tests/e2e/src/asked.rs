//! Bodies of tests about what a Spec asks for of memory, processors and queues: guest and host both see it.

use rvm_outer::Host;
use rvm_outer::shell::{ask, switch_off, until_ready};
use rvmm_spec::{MemoryOption, NetWish, Network};

use crate::boot::{answers, guest, put, spawn};

/// Huge pages that the host sets aside: 16 more than the guest takes.
const PAGES: u64 = 80;

/// How many of them are free.
fn free_pages(host: &dyn Host) -> u64 {
    let output = host.run(&["awk", "/^HugePages_Free/ { print $2 }", "/proc/meminfo"]);
    let output = output.expect("the host counts");
    output.text().trim().parse().expect("a number")
}

fn set_aside(host: &dyn Host, pages: u64) {
    let script = format!("echo {pages} >/proc/sys/vm/nr_hugepages");
    host.run(&["sh", "-c", &script]).expect("a shell runs");
    assert_eq!(free_pages(host), pages);
}

/// Memory of huge pages that is there from the start, and an extension that the host has and the guest has not.
pub fn pages_and_extensions_are_as_asked_for(host: &dyn Host) {
    set_aside(host, PAGES);
    let memory: MemoryOption = "128M,hugepages=2M,prefault".parse().expect("it is one");
    let wish = guest(host, "quiet")
        .memory(memory.size)
        .memory_backing(memory.backing)
        .cpu("host,zicboz=off".parse().expect("it is one"));
    let mut vm = spawn(host, wish);
    until_ready(&mut vm);
    assert_eq!(free_pages(host), PAGES - 64);
    ask(&mut vm, "grep -c ^isa.*_zicbom /proc/cpuinfo", "1\r\n");
    ask(&mut vm, "grep -c ^isa.*_zicboz /proc/cpuinfo", "0\r\n");
    switch_off(&mut vm);
    assert_eq!(free_pages(host), PAGES);
    set_aside(host, 0);
}

/// A tap with two pairs of queues, of which a guest with two vCPUs uses both.
pub fn an_interface_has_the_queues_that_were_asked_for(host: &dyn Host) {
    let net = NetWish {
        queues: 2,
        ..NetWish::new(Network::Tap("rvmt0".parse().expect("a name that Linux takes")))
    };
    put(host, guest(host, "quiet").cpus(2).interface(net));
    let script = "set -e; ip=/usr/sbin/ip; $ip tuntap add dev rvmt0 mode tap multi_queue; \
                  $ip addr add 198.18.7.1/24 dev rvmt0; $ip link set rvmt0 up; exec rvmm --spec vm.json";
    let vm = host.spawn(&["unshare", "-n", "sh", "-c", script]);
    let mut vm = vm.expect("rvmm starts");
    until_ready(&mut vm);
    ask(&mut vm, "ls -d /sys/class/net/eth0/queues/tx-* | wc -l", "2\r\n");
    answers(&mut vm);
    switch_off(&mut vm);
}
