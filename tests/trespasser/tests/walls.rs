//! The sandbox: each kind of thread is kept to its own, here and in the lab, and what rvmm needs it has.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_outer::shell::{PATIENCE, ask, switch_off, until_ready};
use rvm_outer::{Here, Host, Profile, Session, Setup};

/// What becomes of a deed.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    /// It is done.
    Through,
    /// The kernel refuses it, with these words.
    Refused(&'static str),
    /// The process ends, and names the call.
    Stopped(&'static str),
}

impl Verdict {
    /// Status and first words of a trespasser that this becomes of.
    fn of(self, thread: &str) -> (u8, String) {
        match self {
            Through => (0, "got through".to_owned()),
            Refused(why) => (2, format!("refused: {why}")),
            Stopped(call) => (
                1,
                format!("rvmm: sandbox: the {thread} thread made the system call {call} ("),
            ),
        }
    }
}

use Verdict::{Refused, Stopped, Through};

/// What a vCPU's or a disk's thread may not do, nor the main thread.
const NOBODY: [(&str, Verdict); 9] = [
    ("make-a-process", Stopped("clone")),
    ("trace-a-process", Stopped("ptrace")),
    ("kill-another", Stopped("tgkill")),
    ("mount", Stopped("mount")),
    ("become-another-user", Stopped("setuid")),
    ("load-a-kernel-program", Stopped("bpf")),
    ("type-into-a-terminal", Stopped("ioctl")),
    ("make-code", Stopped("mmap")),
    ("raise-a-limit", Stopped("prlimit64")),
];

/// What each kind of thread may, or may not, besides.
const EACH: [(&str, &str, Verdict); 22] = [
    ("main", "nothing", Through),
    ("main", "open-a-unix-socket", Through),
    ("main", "open-the-internet", Stopped("socket")),
    (
        "main",
        "make-a-process-unseen",
        Refused("Function not implemented"),
    ),
    ("main", "read-another-file", Refused("Permission denied")),
    ("main", "write-another-file", Refused("Permission denied")),
    ("vcpu", "nothing", Through),
    ("vcpu", "open-a-unix-socket", Stopped("socket")),
    ("vcpu", "make-a-process-unseen", Stopped("clone3")),
    ("vcpu", "read-another-file", Refused("Permission denied")),
    ("vcpu", "write-another-file", Refused("Permission denied")),
    ("disk", "nothing", Through),
    ("disk", "open-the-internet", Stopped("socket")),
    ("disk", "read-another-file", Refused("Permission denied")),
    ("launcher", "nothing", Through),
    ("launcher", "make-a-process", Through),
    ("launcher", "trace-a-process", Stopped("ptrace")),
    ("launcher", "mount", Stopped("mount")),
    ("launcher", "load-a-kernel-program", Stopped("bpf")),
    (
        "launcher",
        "become-another-user",
        Refused("Operation not permitted"),
    ),
    ("launcher", "open-the-internet", Through),
    ("launcher", "write-another-file", Refused("Permission denied")),
];

/// Every kind of thread tries what it may not, and is stopped in words; what is beside it goes through. All deeds are one
/// command of the host, as a command takes longer there than a deed.
fn each_thread_is_kept_to_its_own(host: &dyn Host) {
    let strict = ["main", "vcpu", "disk"].into_iter();
    let nobody = strict.flat_map(|thread| NOBODY.map(|(deed, verdict)| (thread, deed, verdict)));
    let cases: Vec<_> = nobody.chain(EACH).collect();
    let file = &host.assets().kernel;
    let deeds = cases.iter().map(|(thread, deed, _)| {
        format!("rvm-trespasser {thread} {deed} {file} 2>&1; echo \"status $? of {thread} {deed}\"\n")
    });
    let script: String = deeds.collect();
    let output = host.run(&["sh", "-c", &script]).unwrap().ok().unwrap();
    let said: Vec<&str> = output.lines().collect();
    assert_eq!(
        said.len(),
        2 * cases.len(),
        "one line each, and a status:\n{output}"
    );
    for ((thread, deed, verdict), said) in cases.iter().zip(said.chunks(2)) {
        let (status, words) = verdict.of(thread);
        assert!(said[0].starts_with(&words), "{thread} {deed}: {}", said[0]);
        assert_eq!(
            said[1],
            format!("status {status} of {thread} {deed}"),
            "{}",
            said[0]
        );
    }
}

#[test]
fn each_thread_is_kept_to_its_own_on_this_machine() {
    each_thread_is_kept_to_its_own(&Here::start().unwrap());
}

/// What the kernel says of each thread of rvmm: who it is, and which walls it is behind.
const THREADS: &str = "for v in /proc/[0-9]*/task/*/comm; do grep -qx vcpu0 $v && p=${v%/task/*}; done; \
    cat $p/task/*/status | awk '/^Name:/ { n = $2 } /^Uid:/ { u = $2 } /^CapEff:/ { c = $2 } /^NoNewPrivs:/ { w = $2 } \
    /^Seccomp:/ { s = $2 } \
    /^Seccomp_filters:/ { print n \" uid=\" u \" caps=\" c \" nnp=\" w \" seccomp=\" s \" filters=\" $2 }' | sort";

/// What the user of the lab's guest gets: leave to open KVM, a disk, a tap, and a folder to put sockets into.
const GIVEN: &str = "set -e; ip=/usr/sbin/ip; chmod 666 /dev/kvm /dev/net/tun; mkdir -m 777 /tmp/vm; \
    truncate -s 1M /tmp/vm/disk; chmod 666 /tmp/vm/disk; $ip tuntap add dev rvmt0 mode tap user 65534; \
    $ip addr add 198.18.7.1/24 dev rvmt0; $ip link set rvmt0 up";

/// A machine with every kind of device.
const MACHINE: &str = "rvm-trespasser as 65534 rvmm --accel kvm --memory 128M --cpus 2 --transport pci --balloon on \
    --disk /tmp/vm/disk --net tap=rvmt0 --vsock cid=3,socket=/tmp/vm/v.sock --run-dir /tmp/vm/run";

/// And a user who has nothing but leave to open `/dev/kvm` runs a guest whose devices all work, before and after a reset,
/// each thread behind its walls.
#[test]
fn lab_each_thread_is_kept_to_its_own_and_an_ordinary_user_runs_a_guest() {
    let setup = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    let lab = setup
        .built("rvm-trespasser", "rvm-trespasser")
        .unwrap()
        .start()
        .unwrap();
    each_thread_is_kept_to_its_own(&lab);

    lab.run(&["sh", "-c", GIVEN]).unwrap().ok().unwrap();
    let assets = lab.assets();
    let kernel = ["--kernel", &assets.kernel, "--initrd", &assets.tiny];
    let words: Vec<&str> = MACHINE.split_whitespace().chain(kernel).collect();
    let mut vm = lab.spawn_on_terminal(&words).unwrap();
    until_ready(&mut vm);
    let threads = lab.run(&["sh", "-c", THREADS]).unwrap().text();
    let walled_in = |name: &str, filters: u32| {
        format!("{name} uid=65534 caps=0000000000000000 nnp=1 seccomp=2 filters={filters}\n")
    };
    // The vCPUs' and the disk's threads have the main thread's filter, and one of their own.
    let expected = [("disk0", 2), ("rvmm", 1), ("vcpu0", 2), ("vcpu1", 2)];
    assert_eq!(
        threads,
        expected.map(|(name, filters)| walled_in(name, filters)).concat()
    );
    devices_work(&mut vm);
    vm.send("reboot -f\n").unwrap();
    vm.expect("GUEST-UP", PATIENCE).unwrap();
    until_ready(&mut vm);
    devices_work(&mut vm);
    switch_off(&mut vm);
    let disk = lab.get("/tmp/vm/disk").unwrap();
    assert_eq!(&disk[..8], b"written\n");
}

fn devices_work(vm: &mut Session) {
    ask(
        vm,
        "echo written | dd of=/dev/vda bs=512 conv=fsync,sync; echo rc=$?",
        "rc=0",
    );
    ask(
        vm,
        "ip addr add 198.18.7.2/24 dev eth0; ip link set eth0 up; ping -c 1 198.18.7.1",
        "1 packets received",
    );
    ask(vm, "probe ask-host 53 nobody", "reset by peer");
    ask(vm, "head -c 64 /dev/hwrng | wc -c", "64\r\n");
}
