//! Bodies of tests about a guest's watchdog. Debian's kernel has no driver for it, so the guest's shell drives the registers,
//! step by step as Linux's driver does.

use rvm_outer::shell::{PATIENCE, ask, until_ready};
use rvm_outer::{Host, Session};
use rvmm_spec::{Transport, Watchdog, WatchdogAction};

use crate::boot::{ctl, guest, put};

/// The guest's words for it: `stages N` sets both stages to N times a millisecond or so and feeds it, `on` switches it on.
const WORDS: &str = "d=$(dirname $(grep -l 0x25ab /sys/bus/pci/devices/*/device)); echo 1 >$d/enable; read b _ <$d/resource; \
     w() { devmem $((b + $1)) $2 $3; }; u() { w 12 16 0x80; w 12 16 0x86; }; \
     stages() { u; w 0 32 $1; u; w 4 32 $1; u; w 12 16 0x100; }; \
     on() { printf '\\2' | dd of=$d/config bs=1 seek=104 conv=notrunc 2>/dev/null; }; echo words=$((6 * 7))";

fn boots(host: &dyn Host, transport: Transport, action: WatchdogAction) -> Session {
    let wish = guest(host, "quiet").transport(transport);
    put(host, wish.watchdog(Watchdog { action }));
    let argv = ["rvmm", "--spec", "vm.json", "--run-dir", "vm"];
    let mut vm = host.spawn_on_terminal(&argv).expect("rvmm starts");
    until_ready(&mut vm);
    ask(&mut vm, WORDS, "words=42\r\n");
    vm
}

/// A guest that feeds its watchdog, or switches it on with time to spare, goes on; one that no longer does is reset, and
/// boots again.
pub fn resets_a_guest_that_does_not_feed_it(host: &dyn Host) {
    let mut vm = boots(host, Transport::Pci, WatchdogAction::Reset);
    // Some eight seconds a stage, then, before they are over, a quarter of an hour.
    ask(
        &mut vm,
        "stages 8192; on; stages 0xfffff; echo fed=$((6 * 7))",
        "fed=42\r\n",
    );
    ask(&mut vm, "sleep 18; echo lives=$((6 * 7))", "lives=42\r\n");
    assert!(ctl(host, &["-o", "json", "info"]).contains("\"resets\":0"));
    vm.send("stages 1\n").expect("the guest takes input");
    vm.expect("[rvmm: the guest did not feed its watchdog: reset]", PATIENCE)
        .expect("the watchdog bites");
    until_ready(&mut vm);
    assert!(ctl(host, &["-o", "json", "info"]).contains("\"resets\":1"));
    // The new boot's is a new one, that is switched off.
    ask(&mut vm, WORDS, "words=42\r\n");
    ask(
        &mut vm,
        "dd if=$d/config bs=1 skip=104 count=1 2>/dev/null | od -An -tu1",
        "   0\r\n",
    );
    assert_eq!(ctl(host, &["kill"]), "");
    assert_eq!(vm.wait(PATIENCE).expect("rvmm ends").status(), Some(0));
}

/// A guest whose devices are not on PCI has a watchdog there all the same, that stands still while the guest does and then
/// cuts its power.
pub fn switches_a_guest_off_that_does_not_feed_it(host: &dyn Host) {
    let mut vm = boots(host, Transport::Mmio, WatchdogAction::Poweroff);
    ask(&mut vm, "stages 0xfffff; on; echo on=$((6 * 7))", "on=42\r\n");
    assert_eq!(ctl(host, &["pause"]), "");
    assert_eq!(ctl(host, &["resume"]), "");
    vm.send("stages 1\n").expect("the guest takes input");
    let end = vm.wait(PATIENCE).expect("rvmm ends");
    assert_eq!(end.status(), Some(1), "{}", end.text());
    assert!(
        end.text()
            .contains("the guest did not feed its watchdog, which switched it off"),
        "{}",
        end.text()
    );
}
