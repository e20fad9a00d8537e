//! What is promised of volumes that come and go.

use super::*;
use crate::sample::{info, vmi_in};
use rvmm_control::Device;
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A VMI that runs, with these volumes besides its own disks.
fn vmi(volumes: &[&str]) -> VirtualMachineInstance {
    let mut vmi = vmi_in("Running");
    let more = json!([
        {"name": "seed", "cloudInitNoCloud": {"userData": "#"}},
        {"name": "kept", "persistentVolumeClaim": {"claimName": "c"}},
    ]);
    let more: Vec<Volume> = serde_json::from_value(more).unwrap();
    vmi.spec.volumes.extend(more);
    for name in volumes {
        let claim = json!({"name": name, "persistentVolumeClaim": {"claimName": name, "hotpluggable": true}});
        vmi.spec.volumes.push(serde_json::from_value(claim).unwrap());
    }
    vmi
}

fn machine(volumes: &[&str]) -> Info {
    let mut info = *info(State::Running);
    let own = Device {
        id: "disk0".into(),
        backend: "/d".into(),
        plugged: false,
    };
    let plugged = volumes.iter().map(|name| Device {
        id: device(name),
        plugged: true,
        ..own.clone()
    });
    info.devices = [own.clone()].into_iter().chain(plugged).collect();
    info
}

fn failed(volume: &str, retry_at: i64) -> Attempts {
    let failed = Failed {
        reason: "FailedPvcNotFound",
        message: "there is none".into(),
        retry_at: at(retry_at),
    };
    let attempt = Attempt {
        failed: Some(failed),
        size: None,
    };
    Attempts::from([(device(volume), attempt)])
}

/// With what was said of it.
fn told(mut vmi: VirtualMachineInstance, info: &Info, attempts: &Attempts) -> VirtualMachineInstance {
    let told = statuses(&vmi, info, attempts);
    vmi.status.as_mut().unwrap().volume_status = told;
    vmi
}

fn next_of(vmi: &VirtualMachineInstance, info: &Info, attempts: &Attempts) -> Option<Next> {
    next(vmi, info, attempts, at(10))
}

#[test]
fn what_is_wanted_comes_and_what_is_not_goes_first() {
    let none = Attempts::new();
    assert_eq!(next_of(&vmi(&[]), &machine(&[]), &none), None);
    assert_eq!(next_of(&vmi(&["a"]), &machine(&["a"]), &none), None);
    let (wanted, there) = (vmi(&["a", "b"]), machine(&["a", "old"]));
    assert_eq!(next_of(&wanted, &there, &none), Some(Next::Unplug(device("old"))));
    assert_eq!(
        next_of(&wanted, &machine(&["a"]), &none),
        Some(Next::Plug("b".into()))
    );
    let mut starting = machine(&[]);
    starting.state = State::Starting;
    assert_eq!(next_of(&wanted, &starting, &none), None);
}

#[test]
fn devices_that_others_have_plugged_in_stay() {
    let mut info = machine(&[]);
    info.devices.push(Device {
        id: "disk1".into(),
        backend: "/d".into(),
        plugged: true,
    });
    assert_eq!(next_of(&vmi(&[]), &info, &Attempts::new()), None);
}

#[test]
fn what_failed_is_tried_again_when_it_is_time_and_holds_up_no_other() {
    let vmi = vmi(&["a", "b"]);
    let later = failed("a", 20);
    assert_eq!(next_of(&vmi, &machine(&[]), &later), Some(Next::Plug("b".into())));
    assert_eq!(next_of(&vmi, &machine(&["b"]), &later), Some(Next::At(at(20))));
    assert_eq!(
        next_of(&vmi, &machine(&["b"]), &failed("a", 10)),
        Some(Next::Plug("a".into()))
    );
}

#[test]
fn a_volumes_way_is_told_as_kubevirt_tells_it() {
    let (none, wanted) = (Attempts::new(), vmi(&["data"]));
    let entry = |vmi: &VirtualMachineInstance| {
        let all = before(vmi);
        json!(all.iter().find(|volume| volume.name == "data"))
    };
    let pending = told(wanted.clone(), &machine(&[]), &failed("data", 20));
    assert_eq!(
        entry(&pending),
        json!({
            "name": "data", "target": "", "phase": "Pending", "reason": "FailedPvcNotFound", "message": "there is none",
            "hotplugVolume": {}, "persistentVolumeClaimInfo": {"claimName": "data"},
        })
    );
    let why = Happening::warning("HotplugFailed", "there is none");
    assert_eq!(events(&wanted, &machine(&[]), &failed("data", 20)), [why]);
    assert_eq!(events(&pending, &machine(&[]), &failed("data", 40)), []);

    let came = Attempts::from([(
        device("data"),
        Attempt {
            size: Some(4096),
            failed: None,
        },
    )]);
    let message = "Successfully attach hotplugged volume data to VM";
    assert_eq!(
        events(&pending, &machine(&["data"]), &came),
        [Happening::normal("VolumeReady", message)]
    );
    let ready = told(pending, &machine(&["data"]), &came);
    let said = json!({
        "name": "data", "target": "sda", "phase": "Ready", "reason": "VolumeReady", "message": message, "size": 4096,
        "hotplugVolume": {}, "persistentVolumeClaimInfo": {"claimName": "data"},
    });
    assert_eq!(entry(&ready), said);
    // A handler that starts anew says the same.
    assert_eq!(statuses(&ready, &machine(&["data"]), &none), before(&ready));

    let mut unwanted = ready;
    unwanted.spec.volumes.retain(|volume| volume.name != "data");
    let leaving = told(unwanted, &machine(&["data"]), &none);
    let said = entry(&leaving);
    assert_eq!(
        (&said["phase"], &said["target"]),
        (&json!("Detaching"), &json!("sda"))
    );
    let message = "Volume data has been unplugged from VM";
    assert_eq!(
        events(&leaving, &machine(&[]), &none),
        [Happening::normal("VolumeUnplugged", message)]
    );
    assert_eq!(entry(&told(leaving, &machine(&[]), &none)), json!(null));
}

#[test]
fn volumes_are_told_by_the_devices_that_they_are_and_their_names() {
    let targets = |vmi: &VirtualMachineInstance| -> Vec<(String, String)> {
        let all = before(vmi).iter();
        all.map(|volume| (volume.name.clone(), volume.target.clone()))
            .collect()
    };
    let pair = |name: &str, target: &str| (name.to_owned(), target.to_owned());
    let one = told(vmi(&["m"]), &machine(&["m"]), &Attempts::new());
    let fixed = [
        pair("kept", "vdb"),
        pair("m", "sda"),
        pair("root", ""),
        pair("seed", "vda"),
    ];
    assert_eq!(targets(&one), fixed);
    // The first keeps its device, whatever comes besides.
    let mut two = vmi(&["a", "m"]);
    two.status = one.status;
    let two = told(two, &machine(&["m", "a"]), &Attempts::new());
    assert!(targets(&two).contains(&pair("m", "sda")) && targets(&two).contains(&pair("a", "sdb")));
}

#[test]
fn every_volume_has_a_device_of_its_own_that_rvmm_takes() {
    let long = "x".repeat(63);
    let longer = format!("{}y", "x".repeat(62));
    for name in ["a", "0", &long, &longer] {
        assert!(device(name).parse::<rvmm_spec::DeviceId>().is_ok(), "{name}");
    }
    assert_ne!(device(&long), device(&longer));
    assert_eq!(volume(&vmi(&[&long]), &device(&long)), Some(long.as_str()));
}
