//! Every profile boots and is the host that it says it is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rvm_outer::{Host, Lab, Profile, Setup};

const MINUTES: Duration = Duration::from_secs(300);

fn said(lab: &Lab, argv: &[&str]) -> String {
    lab.run(argv).unwrap().ok().unwrap()
}

fn assert_kvm_is_what_the_profile_says(profile: Profile) {
    let wanted = profile.kvm_says.unwrap();
    let lab = Lab::start(profile).unwrap();
    assert_eq!(said(&lab, &["uname", "-m"]), "riscv64\n");
    assert_eq!(lab.run(&["test", "-c", "/dev/kvm"]).unwrap().status(), Some(0));
    let log = said(&lab, &["dmesg"]);
    assert!(log.contains(wanted), "{log}");
    let aia = log.lines().filter(|line| line.contains("AIA available")).count();
    assert_eq!(aia, usize::from(wanted.contains("AIA")), "{log}");
}

#[test]
fn the_everyday_host_has_kvm_with_aia() {
    assert_kvm_is_what_the_profile_says(Profile::AIA);
}

#[test]
fn full_a_host_without_aia_has_kvm() {
    assert_kvm_is_what_the_profile_says(Profile::PLAIN);
}

#[test]
fn full_a_host_with_guest_files_has_kvm_that_finds_them() {
    assert_kvm_is_what_the_profile_says(Profile::AIA_GUESTS);
}

#[test]
fn full_a_host_with_every_extension_has_kvm_and_smstateen() {
    assert_kvm_is_what_the_profile_says(Profile::MAX);
    let lab = Lab::start(Profile::MAX).unwrap();
    let cpu = said(&lab, &["cat", "/proc/cpuinfo"]);
    assert!(cpu.contains("smstateen") && cpu.contains("rv64imafdcvh"), "{cpu}");
}

#[test]
fn full_a_host_without_the_extension_has_no_kvm_and_an_emulator() {
    let lab = Lab::start(Profile::NO_KVM).unwrap();
    assert_eq!(lab.run(&["test", "-e", "/dev/kvm"]).unwrap().status(), Some(1));
    let version = said(&lab, &["qemu-system-riscv64", "--version"]);
    assert!(version.starts_with("QEMU emulator version"), "{version}");
}

#[test]
fn files_statuses_programs_and_terminals_cross_into_the_lab() {
    let program = "#!/bin/sh\necho \"from the overlay, $1\"; exit 4\n";
    let lab = Setup::new(Profile::AIA)
        .file("usr/local/bin/overlaid", 0o755, program)
        .start()
        .unwrap();
    let output = lab.run(&["overlaid", "here"]).unwrap();
    assert_eq!(
        (output.text().as_str(), output.status()),
        ("from the overlay, here\n", Some(4))
    );

    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    lab.put("there", &bytes).unwrap();
    assert_eq!(lab.get("there").unwrap(), bytes);
    assert_eq!(said(&lab, &["wc", "-c", "/root/there"]), "1048576 /root/there\n");

    let mut shell = lab.spawn_on_terminal(&["sh", "-i"]).unwrap();
    shell.send("stty size\n").unwrap();
    shell.expect("24 80", MINUTES).unwrap();
    shell.send("exit 5\n").unwrap();
    assert_eq!(shell.wait(MINUTES).unwrap().status(), Some(5));
}

#[test]
fn a_port_of_the_lab_and_the_loopback_of_this_machine_reach_each_other() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let lab = Setup::new(Profile::AIA).forward(9000).start().unwrap();

    let mut out = lab
        .spawn(&["sh", "-c", &format!("echo from the lab | nc 10.0.2.2 {port}")])
        .unwrap();
    let mut line = String::new();
    BufReader::new(listener.accept().unwrap().0)
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "from the lab\n");
    out.end_input().unwrap();

    let mut server = lab.spawn(&["sh", "-c", "echo listening; nc -l -p 9000"]).unwrap();
    server.expect("listening", MINUTES).unwrap();
    // The shell has said so a moment before `nc` listens; the emulator accepts at once and retries inside.
    said(
        &lab,
        &[
            "sh",
            "-c",
            "until netstat -ltn | grep -q :9000; do sleep 0.1; done",
        ],
    );
    std::io::Write::write_all(
        &mut std::net::TcpStream::connect(lab.forwarded(9000).unwrap()).unwrap(),
        b"from here\n",
    )
    .unwrap();
    server.expect("from here", MINUTES).unwrap();
}

/// The children of a process, by the kernel's own list.
fn children(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    lists
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_killed_test_takes_its_lab_with_it() {
    // A killed process cannot remove its files, so they go with ours.
    let files = tempfile::tempdir().unwrap();
    let mut test = Command::new(env!("CARGO_BIN_EXE_lab"))
        .env("TMPDIR", files.path())
        .args(["--profile", "aia", "--", "sh", "-c", "echo inside; sleep 1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(test.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "inside\n");
    let emulators = children(test.id());
    assert_eq!(emulators.len(), 1);

    test.kill().unwrap();
    test.wait().unwrap();

    let emulator = PathBuf::from("/proc").join(&emulators[0]);
    let until = Instant::now() + MINUTES;
    while emulator.exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!emulator.exists(), "QEMU {} is still there", emulators[0]);
}
