//! The sandbox: each kind of thread is kept to its own, here and in the lab, and what rvmm needs it has.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use rvm_outer::{Here, Host, Profile, Setup};

/// How long anything may take that will come if it comes at all.
const PATIENCE: Duration = Duration::from_secs(240);

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
    ("disk", "read-another-file", Stopped("openat")),
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

/// And a user who has nothing but leave to open `/dev/kvm` runs a guest.
#[test]
fn lab_each_thread_is_kept_to_its_own_and_an_ordinary_user_runs_a_guest() {
    let setup = Setup::new(Profile::AIA).built("rvmm", "rvmm").unwrap();
    let lab = setup
        .built("rvm-trespasser", "rvm-trespasser")
        .unwrap()
        .start()
        .unwrap();
    each_thread_is_kept_to_its_own(&lab);

    lab.run(&["chmod", "666", "/dev/kvm"]).unwrap().ok().unwrap();
    let assets = lab.assets();
    let words = ["rvm-trespasser", "as", "65534", "rvmm", "--accel", "kvm"];
    let guest = ["--kernel", &assets.kernel, "--initrd", &assets.tiny];
    let mut vm = lab.spawn(&[&words[..], &guest].concat()).unwrap();
    vm.expect("GUEST-UP", PATIENCE).unwrap();
    vm.expect("guest# ", PATIENCE).unwrap();
    let threads = "for t in /proc/[0-9]*/task/*; do grep -qs '^Name:.vcpu0' $t/status && cat $t/status; done";
    let status = lab.run(&["sh", "-c", threads]).unwrap().text();
    assert!(status.contains("Uid:\t65534\t65534"), "{status}");
    vm.send("poweroff -f\n").unwrap();
    assert_eq!(vm.wait(PATIENCE).unwrap().status(), Some(0));
}
