//! Bodies of tests about one guest, written once for both backends: on a host with KVM, and emulated here.
//!
//! Each boots the tiny guest from a Spec file, as the handler does, and asserts what its user would see.

use rvm_outer::shell::{PATIENCE, PROMPT, ask, switch_off, until_ready};
use rvm_outer::{Host, Output, Session, Signal};
use rvmm_spec::{
    Boot, Console, Disk, MemorySize, NetWish, Network, OnReset, Spec, SpecBuilder, Transport, wire,
};

/// The number by which the guest's kernel knows its firmware (SBI specification, 4.1): KVM is 3, OpenSBI is 1.
fn firmware_line(host: &dyn Host) -> &'static str {
    if host.has_kvm() {
        "SBI implementation ID=0x3"
    } else {
        "SBI implementation ID=0x1"
    }
}

/// The tiny guest of this host, with these words on its command line.
pub(crate) fn guest(host: &dyn Host, words: &str) -> SpecBuilder {
    machine(tiny(host, words))
}

/// What the tiny guest boots from.
pub(crate) fn tiny(host: &dyn Host, words: &str) -> Boot {
    let assets = host.assets();
    Boot {
        initrd: Some(assets.tiny.clone().into()),
        cmdline: format!("console=ttyS0 {words}"),
        ..Boot::new(&assets.kernel)
    }
}

/// A machine of ordinary size.
pub(crate) fn machine(boot: Boot) -> SpecBuilder {
    Spec::builder(boot).memory(MemorySize::from_mib(256))
}

/// Writes the Spec file that rvmm reads.
pub(crate) fn put(host: &dyn Host, wish: SpecBuilder) {
    let spec = wish.build().expect("a test asks for what is possible");
    let json = wire::Document::from(&spec)
        .to_json()
        .expect("the paths are UTF-8");
    host.put("vm.json", json.as_bytes())
        .expect("the host takes a file");
}

pub(crate) fn spawn(host: &dyn Host, wish: SpecBuilder) -> Session {
    put(host, wish);
    host.spawn(&["rvmm", "--spec", "vm.json"]).expect("rvmm starts")
}

fn run(host: &dyn Host, wish: SpecBuilder) -> Output {
    put(host, wish);
    host.run(&["rvmm", "--spec", "vm.json"]).expect("rvmm ends")
}

/// Boots to init with this many vCPUs, sees all of them, names its firmware, and ends with status 0.
pub fn boots_to_init(host: &dyn Host, cpus: u64) {
    let mut vm = spawn(host, guest(host, "").cpus(cpus));
    let log = vm.expect("GUEST-UP", PATIENCE).expect("the guest boots");
    assert!(log.contains(firmware_line(host)), "{log}");
    until_ready(&mut vm);
    ask(&mut vm, "echo cpus=$(nproc)", &format!("cpus={cpus}\r\n"));
    switch_off(&mut vm);
}

/// Reads what the host wrote to a disk, and writes what the host then finds.
pub fn reads_and_writes_a_disk(host: &dyn Host) {
    let mut image = vec![0; 1 << 20];
    image[..19].copy_from_slice(b"written by the host");
    host.put("disk.img", &image).expect("the host takes a file");
    let disk = Disk {
        serial: Some("disk-1".to_owned()),
        ..Disk::new(host.folder().join("disk.img"))
    };
    let mut vm = spawn(host, guest(host, "quiet").disk(disk));
    until_ready(&mut vm);
    ask(&mut vm, "head -c 19 /dev/vda; echo", "written by the host\r\n");
    ask(&mut vm, "cat /sys/block/vda/serial; echo", "disk-1");
    ask(
        &mut vm,
        "echo written by the guest | dd of=/dev/vda bs=512 seek=2047 conv=fsync,sync; echo rc=$?",
        "rc=0",
    );
    switch_off(&mut vm);
    let image = host.get("disk.img").expect("the disk is there");
    assert_eq!(&image[2047 * 512..2047 * 512 + 20], b"written by the guest");
}

/// Over PCI a disk is read and written, and the guest's devices interrupt as this host lets them: by messages, a
/// vector a queue, or by a line that they share. More devices fit than virtio-mmio has places for, and than an IMSIC at
/// fault has messages for.
pub fn devices_work_on_pci(host: &dyn Host, interrupt: &str) {
    let mut wish = guest(host, "quiet").transport(Transport::Pci).cpus(2);
    for number in 0..24 {
        let name = format!("disk{number}.img");
        let mut image = vec![0; 64 << 10];
        image[..7].copy_from_slice(format!("disk {}\n", number % 10).as_bytes());
        host.put(&name, &image).expect("the host takes a file");
        wish = wish.disk(Disk {
            serial: Some(format!("serial-{number}")),
            ..Disk::new(host.folder().join(&name))
        });
    }
    let mut vm = spawn(host, wish);
    until_ready(&mut vm);
    for (number, letter) in ('a'..='x').enumerate() {
        let read = format!("head -c 6 /dev/vd{letter}; echo; cat /sys/block/vd{letter}/serial; echo");
        let told = format!("disk {}\r\nserial-{number}\r\n", number % 10);
        ask(&mut vm, &read, &told);
    }
    ask(
        &mut vm,
        "echo written over pci | dd of=/dev/vdx bs=512 seek=127 conv=fsync,sync; echo rc=$?",
        "rc=0",
    );
    ask(
        &mut vm,
        "cat /sys/bus/pci/devices/0000:00:01.0/device",
        "0x1042\r\n",
    );
    let interrupts = ask(&mut vm, "grep virtio /proc/interrupts; echo rc=$?", "rc=0");
    assert!(interrupts.contains(interrupt), "{interrupts}");
    ask(&mut vm, "head -c 64 /dev/hwrng | wc -c", "64\r\n");
    switch_off(&mut vm);
    let image = host.get("disk23.img").expect("the disk is there");
    assert_eq!(&image[127 * 512..127 * 512 + 16], b"written over pci");
}

/// A disk that may only be read refuses to be written.
pub fn a_read_only_disk_stays_as_it_is(host: &dyn Host) {
    host.put("disk.img", &[0x5a; 4096])
        .expect("the host takes a file");
    let disk = Disk {
        read_only: true,
        ..Disk::new(host.folder().join("disk.img"))
    };
    let mut vm = spawn(host, guest(host, "quiet").disk(disk));
    until_ready(&mut vm);
    ask(&mut vm, "echo no | dd of=/dev/vda; echo rc=$?", "rc=1");
    switch_off(&mut vm);
    assert_eq!(host.get("disk.img").expect("the disk is there"), [0x5a; 4096]);
}

/// Pings the host over a tap that the test made, in a network namespace of its own.
pub fn pings_the_host(host: &dyn Host) {
    switch_off(&mut pings(host, Transport::Mmio, false));
}

/// The host's kernel moves the frames (vhost-net), by a thread of its own in the name of rvmm, and goes on after a reset.
pub fn pings_the_host_through_its_kernel(host: &dyn Host, transport: Transport) {
    let mut vm = pings(host, transport, true);
    let threads = ["sh", "-c", "cat /proc/[0-9]*/task/*/comm | grep -c ^vhost-"];
    let counted = host.run(&threads).expect("a shell runs");
    assert_eq!(counted.text().trim(), "1");
    vm.send("reboot -f\n").expect("the guest takes input");
    vm.expect("GUEST-UP", PATIENCE).expect("the guest boots again");
    until_ready(&mut vm);
    answers(&mut vm);
    switch_off(&mut vm);
}

fn pings(host: &dyn Host, transport: Transport, vhost: bool) -> Session {
    let net = NetWish {
        mac: Some("52:54:00:00:00:07".parse().expect("a unicast address")),
        vhost,
        ..NetWish::new(Network::Tap("rvmt0".parse().expect("a name that Linux takes")))
    };
    put(host, guest(host, "quiet").transport(transport).interface(net));
    // By its path: the lab's shell would take busybox's, which knows no taps.
    let script = "set -e; ip=/usr/sbin/ip; $ip tuntap add dev rvmt0 mode tap; $ip addr add 198.18.7.1/24 dev rvmt0; \
                  $ip link set rvmt0 up; exec rvmm --spec vm.json";
    let mut vm = host
        .spawn(&["unshare", "-n", "sh", "-c", script])
        .expect("rvmm starts");
    until_ready(&mut vm);
    ask(&mut vm, "cat /sys/class/net/eth0/address", "52:54:00:00:00:07");
    answers(&mut vm);
    vm
}

/// The host answers the guest.
pub(crate) fn answers(vm: &mut Session) {
    ask(
        vm,
        "ip addr add 198.18.7.2/24 dev eth0; ip link set eth0 up; echo up",
        "up\r\n",
    );
    ask(vm, "ping -c 3 198.18.7.1", "3 packets received");
    // More than one frame in flight, both ways.
    ask(vm, "ping -c 3 -s 1400 198.18.7.1", "3 packets received");
}

/// A reset boots the guest again, in the same rvmm.
pub fn a_reset_boots_again(host: &dyn Host) {
    let mut vm = spawn(host, guest(host, "quiet rvm.run=reboot"));
    vm.expect("GUEST-UP", PATIENCE).expect("the guest boots");
    vm.expect("GUEST-UP", PATIENCE).expect("the guest boots again");
    vm.kill(Signal::TERM).expect("rvmm takes a signal");
    assert_eq!(vm.wait(PATIENCE).expect("rvmm ends").status(), Some(128 + 15));
}

/// Says something to the machine of [`boots_for_its_control_socket`], and returns the answer.
pub(crate) fn ctl(host: &dyn Host, words: &[&str]) -> String {
    let argv = [&["rvmm", "ctl", "--run-dir", "vm"], words].concat();
    let said = host.run(&argv).expect("rvmm ctl runs");
    said.ok().expect("the machine does it")
}

/// A machine with a run directory and a shell, on a terminal.
fn boots_for_its_control_socket(host: &dyn Host) -> Session {
    put(host, guest(host, "quiet"));
    let argv = ["rvmm", "--spec", "vm.json", "--run-dir", "vm"];
    let mut vm = host.spawn_on_terminal(&argv).expect("rvmm starts");
    until_ready(&mut vm);
    vm
}

/// One machine: paused, resumed, reset, and asked to switch itself off, which its agent does.
pub fn obeys_its_control_socket(host: &dyn Host) {
    let mut vm = boots_for_its_control_socket(host);
    assert!(ctl(host, &["-o", "json", "info"]).contains(r#""state":"running""#));
    assert_eq!(ctl(host, &["pause"]), "");
    assert!(ctl(host, &["-o", "json", "info"]).contains(r#""state":"paused""#));
    vm.send("echo still=$((40 + 2))\n").expect("input waits");
    assert_eq!(ctl(host, &["resume"]), "");
    vm.expect("still=42", PATIENCE).expect("the guest goes on");
    until_ready(&mut vm);
    let counted = ctl(host, &["stats"]);
    assert!(counted.contains("console.output-bytes"), "{counted}");
    assert_eq!(counted.contains("exits.mmio-write"), host.has_kvm(), "{counted}");
    assert_eq!(ctl(host, &["reset"]), "");
    until_ready(&mut vm);
    let stopped = ctl(host, &["stop", "--deadline", "4m", "-o", "json"]);
    assert_eq!(stopped, "{\"how\":\"asked\",\"by\":\"agent\"}\n");
    assert_eq!(vm.wait(PATIENCE).expect("rvmm ends").status(), Some(0));
}

/// What one process holds: descriptors, threads, children, mappings and their size in KiB.
fn held(host: &dyn Host) -> Vec<u64> {
    let script = "p=$(cat vm/pid); ls /proc/$p/fd | wc -l; ls /proc/$p/task | wc -l; \
                  cat /proc/$p/task/*/children | wc -w; wc -l </proc/$p/maps; \
                  sed -n 's/^VmSize:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$p/status";
    let counted = host.run(&["sh", "-c", script]).expect("a shell runs");
    let counted = counted.ok().expect("the machine lives");
    let numbers = counted
        .split_whitespace()
        .map(|number| number.parse().expect("a number"));
    numbers.collect()
}

/// Resets the machine this often, each time early in its boot, and then boots it to its shell: rvmm holds what it
/// held before.
pub fn resets_leak_nothing(host: &dyn Host, times: u32) {
    let mut vm = boots_for_its_control_socket(host);
    let reset = |count: u32| {
        let script = format!(
            "for i in $(seq {count}); do until rvmm ctl --run-dir vm reset 2>/dev/null; do sleep 0.1; done; done"
        );
        let done = host
            .run_within(&["sh", "-c", &script], 10 * PATIENCE)
            .expect("a shell runs");
        done.ok().expect("the machine is reset");
    };
    // What is made once and kept is made by now.
    reset(3);
    vm.expect("GUEST-UP", PATIENCE).expect("the guest boots again");
    until_ready(&mut vm);
    let before = held(host);
    reset(times);
    vm.expect("GUEST-UP", PATIENCE).expect("the guest boots again");
    until_ready(&mut vm);
    let after = held(host);
    assert_eq!(after[..3], before[..3], "descriptors, threads, children");
    assert!(after[3] <= before[3] + 4, "mappings: {before:?}, {after:?}");
    assert!(after[4] <= before[4] + 1024, "KiB: {before:?}, {after:?}");
    assert!(ctl(host, &["-o", "json", "info"]).contains(&format!("\"resets\":{}", times + 3)));
    assert_eq!(ctl(host, &["kill"]), "");
    assert_eq!(vm.wait(PATIENCE).expect("rvmm ends").status(), Some(0));
}

/// A guest that does nothing but reset is slowed down, and that is said.
pub fn a_reset_loop_is_slowed_down_and_reported(host: &dyn Host) {
    let mut vm = spawn(host, guest(host, "quiet rvm.run=reboot"));
    vm.expect(
        "the guest was reset 4 times in quick succession; it starts again in 1 s",
        PATIENCE,
    )
    .expect("the loop is reported");
    vm.expect("GUEST-UP", PATIENCE).expect("the guest boots again");
    vm.kill(Signal::INT).expect("rvmm takes a signal");
    assert_eq!(vm.wait(PATIENCE).expect("rvmm ends").status(), Some(128 + 2));
}

/// A crash that resets ends rvmm with status 3 where that was asked for.
pub fn a_crash_ends_with_status_3(host: &dyn Host) {
    let output = run(
        host,
        guest(host, "quiet panic=1 rvm.run=panic").on_reset(OnReset::Exit),
    );
    assert_eq!(output.status(), Some(3), "{}", output.text());
    assert!(output.text().contains("Kernel panic"), "{}", output.text());
}

/// A kernel without a driver for any console still prints, through the firmware.
pub fn the_firmware_console_prints(host: &dyn Host) {
    let output = run(host, guest(host, "earlycon=sbi rvm.run=poweroff"));
    assert_eq!(output.status(), Some(0), "{}", output.text());
    assert!(
        output.text().contains("bootconsole [sbi0] enabled"),
        "{}",
        output.text()
    );
    assert!(output.text().contains("Linux version"), "{}", output.text());
}

/// A program of the guest reads the clock without a system call.
pub fn the_vdso_reads_the_clock(host: &dyn Host) {
    let output = run(host, guest(host, "quiet rvm.run=vdso"));
    assert_eq!(output.status(), Some(0), "{}", output.text());
    assert!(output.text().contains("vdso ok"), "{}", output.text());
}

/// The guest gets randomness from its virtio device.
pub fn the_guest_gets_entropy(host: &dyn Host) {
    let mut vm = spawn(host, guest(host, "quiet"));
    until_ready(&mut vm);
    ask(&mut vm, "cat /sys/class/misc/hw_random/rng_current", "virtio_rng");
    ask(&mut vm, "head -c 64 /dev/hwrng | wc -c", "64\r\n");
    switch_off(&mut vm);
}

/// A hart that is switched off and on takes interrupts again.
pub fn a_hart_comes_back(host: &dyn Host) {
    let mut vm = spawn(host, guest(host, "quiet").cpus(2));
    until_ready(&mut vm);
    let hart = "/sys/devices/system/cpu/cpu1/online";
    ask(
        &mut vm,
        &format!("echo 0 >{hart}; echo 1 >{hart}; echo harts=$(nproc)"),
        "harts=2\r\n",
    );
    // From now on interrupts go to that hart.
    ask(
        &mut vm,
        "for irq in /proc/irq/[0-9]*; do echo 2 >$irq/smp_affinity; done 2>/dev/null; echo moved",
        "moved\r\n",
    );
    ask(&mut vm, "head -c 256 /dev/hwrng | wc -c", "256\r\n");
    switch_off(&mut vm);
}

/// Boots this often, one after the other, on the same host.
pub fn boots_again_and_again(host: &dyn Host, times: u32) {
    for _ in 0..times {
        let output = run(host, guest(host, "quiet rvm.run=poweroff"));
        assert_eq!(output.status(), Some(0), "{}", output.text());
    }
}

/// The virtio console carries a shell both ways.
pub fn the_virtio_console_is_a_console(host: &dyn Host) {
    let mut vm = spawn(host, guest(host, "quiet console=hvc0").console(Console::Virtio));
    until_ready(&mut vm);
    ask(&mut vm, "cat /sys/class/tty/console/active", "hvc0\r\n");
    switch_off(&mut vm);
}

/// On a terminal, Ctrl-] leaves with status 0 and the terminal is as it was.
pub fn ctrl_bracket_leaves_and_restores_the_terminal(host: &dyn Host) {
    put(host, guest(host, "quiet"));
    let mut shell = host
        .spawn_on_terminal(&["sh", "-c", "rvmm --spec vm.json; echo status=$?; stty -a"])
        .expect("a shell starts");
    until_ready(&mut shell);
    // Raw: the guest, not this terminal, decides what Ctrl-C is. Its shell takes no signals while it edits a line, nor
    // between two commands of one: what says that it has begun is the job that is to be interrupted.
    shell
        .send("sh -c 'echo begun; sleep 1000'\n")
        .expect("the guest takes input");
    shell
        .expect("begun\r\n", PATIENCE)
        .expect("the guest's shell runs a command");
    shell.send("\x03").expect("the guest takes input");
    shell
        .expect(PROMPT, PATIENCE)
        .expect("Ctrl-C reached the guest's shell");
    shell.send("\x1d").expect("rvmm takes a key");
    shell.expect("status=0", PATIENCE).expect("rvmm has ended");
    let settings = shell
        .expect("echoctl", PATIENCE)
        .expect("stty says how the terminal is");
    assert!(
        settings.contains(" icanon") && settings.contains(" echo ") && !settings.contains("-opost"),
        "{settings}"
    );
}
