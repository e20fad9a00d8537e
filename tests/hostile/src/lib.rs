//! The hostile guest on a host: boots it, and holds what it says against its table (`guests/hostile/src/cases`).
//!
//! Cases that the machine survives run in one boot, one after the other; those that end it have a boot each.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rvm_guests::{Cache, hostile};
use rvm_hostile::{Backend, Case, Expected, cases};
use rvm_outer::{Host, Output, Session, Signal};
use rvmm_spec::{Boot, Disk, MemorySize, OnReset, Spec, SpecBuilder, Transport, Vsock, wire};

/// How long anything may take that will come if it comes at all. Never what a test measures.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Every category.
pub const ALL: &str = "ABCDEFG";
/// What goes through virtqueues: rings, disks, network, console, entropy, balloon and sockets.
pub const QUEUES: &str = "ACDE";

/// How many lines rvmm may say about one guest, whatever that guest does.
const MAX_LINES: usize = 32;
/// How each disk begins, for the guest to see that it is read.
const MARK: &[u8] = b"hostile!";
const DISK_LEN: usize = 1 << 20;
/// The guest's number among sockets, which it knows.
const CID: u32 = 3;

/// What came of each case, by its name.
pub type Verdicts = BTreeMap<String, String>;

/// What runs guests on this host.
pub fn backend(host: &dyn Host) -> Backend {
    if host.has_kvm() {
        Backend::Kvm
    } else {
        Backend::Tcg
    }
}

/// Puts everything on the host that the guest is booted with.
pub fn prepare(host: &dyn Host) {
    let cache = Cache::open().expect("the cache can be used");
    let image = hostile::build(&cache).expect("the hostile guest can be built");
    host.put("hostile", &fs::read(image).expect("the guest was built"))
        .expect("the host takes a file");
    let mut disk = vec![0; DISK_LEN];
    disk[..MARK.len()].copy_from_slice(MARK);
    for name in ["disk.img", "read-only.img"] {
        host.put(name, &disk).expect("the host takes a file");
    }
}

/// The machine: a device of each kind, over virtio-mmio or over PCI.
fn machine(host: &dyn Host, cmdline: &str, transport: Transport) -> SpecBuilder {
    let disk = |name: &str, read_only| Disk {
        read_only,
        serial: Some(name.to_owned()),
        ..Disk::new(host.folder().join(name))
    };
    let boot = Boot {
        cmdline: cmdline.to_owned(),
        ..Boot::new(host.folder().join("hostile"))
    };
    let wish = Spec::builder(boot)
        .memory(MemorySize::from_mib(64))
        .cpus(2)
        .disk(disk("disk.img", false))
        .disk(disk("read-only.img", true))
        .net("rvmh0".parse().expect("a name that Linux takes"), None)
        .transport(transport)
        .balloon(true)
        .on_reset(OnReset::Exit);
    match backend(host) {
        Backend::Kvm => {
            wish.vsock(Vsock::new(CID, host.folder().join("v.sock")).expect("a number and a path"))
        }
        Backend::Tcg => wish,
    }
}

/// The network is one on which nobody says anything of himself, as Linux does by IPv6. A port of the host leads to where
/// programs ask for ports of the guest.
fn spawn(host: &dyn Host, cmdline: &str, transport: Transport, without: &str) -> Session {
    let spec = machine(host, cmdline, transport)
        .build()
        .expect("a test asks for what is possible");
    let json = wire::Document::from(&spec)
        .to_json()
        .expect("the paths are UTF-8");
    host.put("vm.json", json.as_bytes())
        .expect("the host takes a file");
    let script = "\
        set -e; ip=/usr/sbin/ip; $ip tuntap add dev rvmh0 mode tap; \
        ! cd /proc/sys/net/ipv6/conf/rvmh0 2>/dev/null || echo 1 >disable_ipv6; cd \"$0\"; \
        ln -sf v.sock v.sock_5; $ip link set rvmh0 up; exec rvmm --spec vm.json";
    let folder = host.folder().display().to_string();
    let without = format!("RVM_BLUNT={without}");
    host.spawn(&["env", &without, "unshare", "-n", "sh", "-c", script, &folder])
        .expect("rvmm starts")
}

fn ended(session: &mut Session) -> Output {
    let output = session.wait(PATIENCE).expect("rvmm ends");
    let said = output.error_text();
    assert!(
        said.lines().count() <= MAX_LINES,
        "a guest makes rvmm talk: {said}"
    );
    output
}

/// Runs the cases that the machine survives: those of these categories in one boot, those of PCI, all of them, in another.
pub fn survived(host: &dyn Host, categories: &str) -> Verdicts {
    let mut verdicts = survived_over(host, categories, Transport::Mmio);
    verdicts.extend(survived_over(host, ALL, Transport::Pci));
    verdicts
}

fn survived_over(host: &dyn Host, categories: &str, transport: Transport) -> Verdicts {
    let output = ended(&mut spawn(host, &format!("in={categories}"), transport, ""));
    let text = heard(&output.stdout);
    assert_eq!(
        output.status(),
        Some(0),
        "{}\n{}",
        output.error_text(),
        tail(&text)
    );
    let verdicts = verdicts_in(&text);
    assert!(
        text.contains(&format!("cases {}", verdicts.len())),
        "{}",
        tail(&text)
    );
    verdicts
}

/// What the guest said on the serial port. What it says on its console, of which nothing is ordered with that, comes out
/// at the same place, anywhere in a line; it is made of control characters alone.
fn heard(stdout: &[u8]) -> String {
    let printed = stdout
        .iter()
        .filter(|&&byte| byte == b'\n' || (b' '..=b'~').contains(&byte));
    printed.map(|&byte| char::from(byte)).collect()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn verdicts_in(text: &str) -> Verdicts {
    let told = text.lines().filter_map(|line| line.trim().strip_prefix("case "));
    told.filter_map(|line| line.split_once(' '))
        .map(|(id, verdict)| (id.to_owned(), verdict.to_owned()))
        .collect()
}

/// Runs one case in a boot of its own; the answer is how it, or the guest, ended.
pub fn alone(host: &dyn Host, case: &Case) -> String {
    alone_without(host, case, "")
}

/// The same with a check taken out of rvmm, if it is one whose checks can be taken out.
pub fn alone_without(host: &dyn Host, case: &Case, check: &str) -> String {
    let transport = match case.is_on_pci() {
        true => Transport::Pci,
        false => Transport::Mmio,
    };
    let mut session = spawn(host, &format!("only={}", case.id), transport, check);
    if case.expected(backend(host)) == Expected::Spins {
        session
            .expect(&format!("begin {}", case.id), PATIENCE)
            .expect("the guest comes to its case");
        session.kill(Signal::TERM).expect("rvmm takes a signal");
    }
    let output = ended(&mut session);
    let spoken = verdicts_in(&heard(&output.stdout)).remove(case.id);
    let said = output.error_text();
    let as_listed = |end: Expected| end.verdicts()[0].to_owned();
    match (spoken, output.status()) {
        (Some(verdict), _) => verdict,
        (None, Some(0)) => as_listed(Expected::Off),
        (None, Some(3)) => as_listed(Expected::Reset),
        (None, Some(143)) => as_listed(Expected::Spins),
        (None, Some(1)) if complaints(&said) == 1 => as_listed(Expected::Fault),
        (None, status) => format!("status {status:?}: {said}"),
    }
}

/// How many lines of rvmm's are about the guest, and not about there being no KVM.
fn complaints(said: &str) -> usize {
    let own = said.lines().filter(|line| line.starts_with("rvmm: "));
    own.filter(|line| !line.contains("running in QEMU-TCG")).count()
}

/// The cases that end the guest there, or do not.
pub fn cases_of(backend: Backend, endings: bool) -> impl Iterator<Item = &'static Case> {
    cases::all().filter(move |case| case.expected(backend).is_ending() == endings)
}

/// Prints the verdicts, and asserts that there is one for each of these cases, and that it is the one of the table.
pub fn assert_as_listed(backend: Backend, cases: &[&Case], verdicts: &Verdicts) {
    let mut wrong = Vec::new();
    for case in cases {
        let (expected, verdict) = (case.expected(backend), verdicts.get(case.id));
        let verdict = verdict.map_or("none", String::as_str);
        println!("{backend:?} {:32} {verdict:12} {}", case.id, case.text);
        if !expected.admits(verdict) {
            wrong.push(format!("{}: {verdict}, where {expected} is expected", case.id));
        }
    }
    let mut counts = BTreeMap::<&str, usize>::new();
    verdicts
        .values()
        .for_each(|verdict| *counts.entry(verdict).or_default() += 1);
    println!(
        "{backend:?} {} verdicts of {} cases: {counts:?}",
        verdicts.len(),
        cases.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(verdicts.len(), cases.len());
}

/// Every case of these categories, and of PCI, that the machine survives does what the table says.
pub fn survives_every_case(host: &dyn Host, categories: &str) {
    prepare(host);
    let cases: Vec<_> = cases_of(backend(host), false)
        .filter(|case| case.is_on_pci() || categories.contains(case.category()))
        .collect();
    assert_as_listed(backend(host), &cases, &survived(host, categories));
}

/// Each case of the list, whether the machine survives it or not, does what the table says.
pub fn has_every_verdict(host: &dyn Host) {
    prepare(host);
    let mut verdicts = survived(host, ALL);
    for case in cases_of(backend(host), true) {
        verdicts.insert(case.id.to_owned(), alone(host, case));
    }
    let cases: Vec<_> = cases::all().collect();
    assert_as_listed(backend(host), &cases, &verdicts);
}

#[cfg(test)]
mod tests {
    use super::{heard, verdicts_in};

    #[test]
    fn what_the_console_says_within_a_line_does_not_change_it() {
        let heard = heard(b"\n\0case A-one ans\0\0\x1b\x0c\x7fwered\r\ncase B\0-two refused\n");
        let verdicts = verdicts_in(&heard);
        assert_eq!(verdicts["A-one"], "answered");
        assert_eq!(verdicts["B-two"], "refused");
    }
}
