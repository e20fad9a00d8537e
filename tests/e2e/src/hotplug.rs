//! Bodies of tests about devices that come and go while the guest runs, as its user brings them: with `rvmm ctl`.

use rvm_outer::shell::{ask, switch_off, until_ready};
use rvm_outer::{Host, Session};
use rvmm_spec::Transport;

use crate::boot::{ctl, guest, put};

/// A network of the machine's own, with a tap that nobody uses yet.
const START: &str = "set -e; ip=/usr/sbin/ip; $ip tuntap add dev rvmt1 mode tap; $ip addr add 198.18.8.1/24 dev rvmt1; \
                     $ip link set rvmt1 up; exec rvmm --spec vm.json --run-dir vm";

/// In the machine's network.
const ADD_NET: &str =
    "nsenter -t $(cat vm/pid) -n rvmm ctl --run-dir vm add-net tap=rvmt1,mac=52:54:00:00:00:09";

/// A guest's script that finds new devices and waits until this one is there.
fn find(path: &str) -> String {
    format!("echo 1 >/sys/bus/pci/rescan; until [ -e {path} ]; do sleep 0.1; done")
}

/// A guest's script that lets go of the PCI function behind this.
fn let_go(path: &str) -> String {
    format!("echo 1 >$(readlink -f {path}/device/..)/remove; [ -e {path} ] || echo gone=$((6 * 7))")
}

/// A disk and an interface are plugged in, found, used, there again after a reset, let go and pulled out.
pub fn devices_come_and_go(host: &dyn Host) {
    let mut image = vec![0; 1 << 20];
    image[..19].copy_from_slice(b"written by the host");
    host.put("plug.img", &image).expect("the host takes a file");
    put(host, guest(host, "quiet").transport(Transport::Pci));
    let mut vm = host
        .spawn_on_terminal(&["unshare", "-n", "sh", "-c", START])
        .expect("rvmm starts");
    until_ready(&mut vm);

    let add = ["add-disk", "plug.img,serial=plug-1", "--id", "data"];
    assert_eq!(ctl(host, &add), "data\n");
    let read = format!(
        "{}; head -c 19 /dev/vda; cat /sys/block/vda/serial; echo",
        find("/dev/vda")
    );
    ask(&mut vm, &read, "written by the hostplug-1\r\n");
    let write = "echo written by the guest | dd of=/dev/vda bs=512 seek=2047 conv=fsync,sync; echo rc=$?";
    ask(&mut vm, write, "rc=0");

    let added = host.run(&["sh", "-c", ADD_NET]).expect("rvmm ctl runs");
    assert_eq!(added.ok().expect("the machine does it"), "net0\n");
    assert_eq!(
        ctl(host, &["-o", "json", "info"])
            .matches("\"plugged\":true")
            .count(),
        2
    );
    ask(
        &mut vm,
        &format!("{}; cat /sys/class/net/eth0/address", find("/sys/class/net/eth0")),
        "52:54:00:00:00:09\r\n",
    );
    let up = "ip addr add 198.18.8.2/24 dev eth0; ip link set eth0 up; ping -c 3 198.18.8.1";
    ask(&mut vm, up, "3 packets received");

    they_survive_a_reset_and_go(host, &mut vm, up);
    let written = host.get("plug.img").expect("the image is there");
    assert_eq!(&written[2047 * 512..2047 * 512 + 20], b"written by the guest");

    // Its lock and its name went with it.
    assert_eq!(ctl(host, &add), "data\n");
    ask(
        &mut vm,
        &format!("{}; echo found=$((6 * 7))", find("/dev/vda")),
        "found=42",
    );
    switch_off(&mut vm);
}

/// A disk that the guest has not let go of is pulled out at once; who reads it waits, the guest goes on, and a reset clears up.
pub fn what_is_held_goes_all_the_same(host: &dyn Host) {
    host.put("plug.img", &[0; 1 << 20])
        .expect("the host takes a file");
    put(host, guest(host, "quiet").transport(Transport::Pci));
    let argv = ["rvmm", "--spec", "vm.json", "--run-dir", "vm"];
    let mut vm = host.spawn_on_terminal(&argv).expect("rvmm starts");
    until_ready(&mut vm);
    assert_eq!(ctl(host, &["add-disk", "plug.img", "--id", "data"]), "data\n");
    let found = format!("{}; echo found=$((6 * 7))", find("/dev/vda"));
    ask(&mut vm, &found, "found=42");
    assert_eq!(ctl(host, &["remove-device", "data"]), "");
    let read = "(dd if=/dev/vda of=/dev/null bs=512 count=1 iflag=direct 2>/dev/null &); echo on=$((6 * 7))";
    ask(&mut vm, read, "on=42");
    ask(&mut vm, "head -c 8 /dev/hwrng | wc -c", "8\r\n");
    assert_eq!(ctl(host, &["reset"]), "");
    until_ready(&mut vm);
    ask(&mut vm, "[ -e /dev/vda ] || echo none=$((6 * 7))", "none=42");
    switch_off(&mut vm);
}

fn they_survive_a_reset_and_go(host: &dyn Host, vm: &mut Session, up: &str) {
    assert_eq!(ctl(host, &["reset"]), "");
    until_ready(vm);
    ask(
        vm,
        "head -c 19 /dev/vda; cat /sys/block/vda/serial; echo",
        "written by the hostplug-1\r\n",
    );
    ask(vm, up, "3 packets received");

    ask(vm, &let_go("/sys/block/vda"), "gone=42");
    assert_eq!(ctl(host, &["remove-device", "data"]), "");
    ask(vm, &let_go("/sys/class/net/eth0"), "gone=42");
    assert_eq!(ctl(host, &["remove-device", "net0"]), "");
    assert!(!ctl(host, &["-o", "json", "info"]).contains("plugged\":true"));
}
