//! What a guest's agent is asked to do, and what is said where there is none. It is the agent of our init; a distribution's own one is asked
//! in `distribution.rs`.

use rvm_e2e::guest;
use rvm_harness::Plain;
use rvm_harness::patience::{Look, eventually};
use serde_json::{Value, json};

use crate::place::{INSTANCES, Place, mute, uid, vmi};

/// How often a thing is done that has to work time and again.
const REPEATS: usize = 3;

/// How long a guest stays frozen that nobody thaws.
const FREEZE: &str = "30s";

/// In the same instance: nobody else notices.
pub fn case_17_a_guest_s_agent_boots_it_again(place: &Place) {
    let before = place.run(vmi());
    let mut console = place.console();
    console.expect(guest::PROMPT).unwrap();
    place.await_agent();
    place.act_on_vmi("softreboot");
    console.expect("reboot: Restarting system").unwrap();
    console.expect(guest::PROMPT).unwrap();
    let after = place.vmi();
    assert_eq!(
        (uid(&after), &after["status"]["phase"]),
        (uid(&before), &json!("Running"))
    );
    place.no_warnings();
}

pub fn case_19_without_an_agent_nobody_can_be_asked_to_boot_again(place: &Place) {
    place.run(mute());
    let refused = place.put(INSTANCES, "softreboot");
    let said = refused.error_text();
    assert_ne!(refused.status(), Some(0));
    assert!(
        said.contains("VMI neither have the agent connected nor the ACPI feature enabled"),
        "{said}"
    );
}

/// The demo with a disk of its own, whose file system is mounted on `/mnt`, at its console.
fn run_with_disk(place: &Place) -> Plain {
    place.run(vmi().with(|vmi| {
        let scratch = json!({"name": "scratch", "emptyDisk": {"capacity": "32Mi"}});
        vmi["spec"]["volumes"].as_array_mut().unwrap().push(scratch);
        vmi["spec"]["domain"]["devices"]["disks"] = json!([{"name": "scratch", "disk": {"bus": "virtio"}}]);
    }));
    let mut console = place.console();
    console.expect(guest::PROMPT).unwrap();
    say(
        &mut console,
        "mke2fs /dev/vda >/dev/null && mount -t ext4 /dev/vda /mnt; echo mounted=$?",
        "mounted=0",
    );
    place.await_agent();
    console
}

/// Types a command, and waits until it has said so.
fn say(console: &mut Plain, command: &str, answer: &str) {
    console.send(format!("{command}\r").as_bytes()).unwrap();
    console.expect(&format!("{answer}\r\n")).unwrap();
}

/// Somebody in the guest begins to write, and waits: nothing is written to the disk.
fn writes_and_waits(console: &mut Plain) {
    say(
        console,
        "touch /mnt/file & until grep -q 'State:.D' /proc/$!/status; do sleep 0.1; done; echo $((6 * 7)) waits",
        "42 waits",
    );
}

/// What waited has been written.
fn has_written(console: &mut Plain) {
    say(console, "wait $!; echo written=$?; rm /mnt/file", "written=0");
}

/// Waits until the status says so of the guest's file systems.
fn is_said_to_be(place: &Place, frozen: &Value) {
    eventually("the guest's file systems in the status", || {
        let status = place.vmi()["status"].clone();
        let is_so = status["fsFreezeStatus"] == *frozen;
        Ok(Look::of(is_so.then_some(()), || status.to_string()))
    })
    .unwrap();
}

fn freeze(place: &Place, options: &Value) {
    place.put_with(INSTANCES, "freeze", options).ok().unwrap();
}

pub fn case_20_a_guest_is_frozen_and_thawed_time_and_again(place: &Place) {
    let mut console = run_with_disk(place);
    for _ in 0..REPEATS {
        freeze(place, &json!({"unfreezeTimeout": "0s"}));
        writes_and_waits(&mut console);
        is_said_to_be(place, &json!("frozen"));
        place.act_on_vmi("unfreeze");
        has_written(&mut console);
        is_said_to_be(place, &Value::Null);
    }
}

pub fn case_21_a_frozen_guest_is_thawed_when_its_time_is_over(place: &Place) {
    let mut console = run_with_disk(place);
    freeze(place, &json!({"unfreezeTimeout": FREEZE}));
    writes_and_waits(&mut console);
    has_written(&mut console);
    is_said_to_be(place, &Value::Null);
}
