//! What is promised of a VMI's status: the right words, and patches that say only what changed.

use super::*;
use crate::sample::{self, info, vmi_in, vmi_with};
use rvmm_control::State;
use serde_json::{Value, json};

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn patch(report: &Report, vmi: &VirtualMachineInstance) -> Option<Value> {
    let mut edit = Edit::of(vmi);
    report.apply(&mut edit, now());
    edit.patch()
}

/// The object as an API server leaves it.
fn applied(report: &Report, vmi: &VirtualMachineInstance) -> VirtualMachineInstance {
    let mut object = json!(vmi);
    json_patch::merge(&mut object, &patch(report, vmi).unwrap());
    serde_json::from_value(object).unwrap()
}

fn condition<'a>(vmi: &'a VirtualMachineInstance, kind: &str) -> Option<&'a Condition> {
    condition::find(&vmi.status.as_ref().unwrap().conditions, kind)
}

fn running() -> Report {
    Report::Running(info(State::Running), None, None, Box::default())
}

#[test]
fn a_patch_says_what_changed_and_on_which_state() {
    let running = vmi_with(json!({"phase": "Running", "nodeName": "kept"}));
    let patch = patch(&Report::Over(Over::well("off")), &running).unwrap();
    assert_eq!(
        patch["metadata"],
        json!({"uid": sample::UID, "resourceVersion": "7"})
    );
    assert_eq!(patch["status"]["phase"], "Succeeded");
    assert_eq!(
        patch["status"]["phaseTransitionTimestamps"][0]["phaseTransitionTimestamp"],
        "2023-11-14T22:13:20Z"
    );
    assert_eq!(patch["status"].get("nodeName"), None);
}

#[test]
fn saying_the_same_again_is_no_write() {
    let vmi = applied(&running(), &vmi_in("Scheduled"));
    assert_eq!(patch(&running(), &vmi), None);
}

#[test]
fn a_running_guest_is_ready_and_synchronized() {
    let failed = Report::OutOfSync {
        reason: reasons::ERR_IMAGE_PULL,
        message: "no".into(),
    };
    let vmi = applied(&running(), &applied(&failed, &vmi_in("Scheduled")));
    assert_eq!(vmi.phase(), Some(&Phase::Running));
    assert!(condition(&vmi, conditions::READY).unwrap().is_true());
    assert_eq!(condition(&vmi, conditions::SYNCHRONIZED), None);
    assert_eq!(condition(&vmi, conditions::SOFTWARE_EMULATION), None);
    let status = vmi.status.unwrap();
    assert_eq!(status.current_cpu_topology.unwrap().cores, Some(2));
    assert_eq!(
        status.memory.unwrap().guest_current.unwrap().bytes(),
        Ok(128 << 20)
    );
}

#[test]
fn a_running_guest_is_said_to_stay_where_it_is() {
    let vmi = applied(&running(), &vmi_in("Scheduled"));
    for kind in ["LiveMigratable", "StorageLiveMigratable"] {
        let told = condition(&vmi, kind).unwrap();
        assert_eq!(
            (told.status.as_str(), told.reason.as_deref()),
            ("False", Some("NotMigratable")),
            "{kind}"
        );
        assert!(
            told.message
                .as_deref()
                .is_some_and(|why| why.contains("another node"))
        );
    }
}

#[test]
fn emulation_is_told_with_the_vmms_own_reason() {
    let mut info = info(State::Running);
    info.accelerator = Accelerator::Tcg;
    info.accelerator_reason = "/dev/kvm is not there".into();
    let vmi = applied(
        &Report::Running(info, None, None, Box::default()),
        &vmi_in("Scheduled"),
    );
    let emulated = condition(&vmi, conditions::SOFTWARE_EMULATION).unwrap();
    assert_eq!(emulated.reason.as_deref(), Some("CrossArchitectureEmulation"));
    assert_eq!(emulated.message.as_deref(), Some("/dev/kvm is not there"));
}

#[test]
fn every_phase_is_stamped_once_in_order() {
    let over = Report::Over(Over::well("off"));
    let vmi = applied(
        &over,
        &applied(&running(), &applied(&Report::Accepted, &vmi_with(json!({})))),
    );
    let stamps = vmi.status.unwrap().phase_transition_timestamps;
    let phases: Vec<_> = stamps.into_iter().filter_map(|stamp| stamp.phase).collect();
    assert_eq!(phases, [Phase::Pending, Phase::Running, Phase::Succeeded]);
}

#[test]
fn the_end_is_judged_by_who_asked_for_it() {
    let ending = |reason| Ending {
        reason,
        message: "m".into(),
    };
    assert!(Over::of(&ending(EndReason::Poweroff), false).well);
    assert!(Over::of(&ending(EndReason::Killed), true).well);
    assert_eq!(Over::of(&ending(EndReason::Killed), false).reason, Some("Killed"));
    assert_eq!(
        Over::of(&ending(EndReason::Failed), true).reason,
        Some("MachineFailed")
    );
    assert_eq!(
        Over::of(&ending(EndReason::Reset), false).reason,
        Some("GuestReset")
    );
}

#[test]
fn a_failure_keeps_its_reason_and_its_cause() {
    let vmi = applied(
        &Report::Over(Over::badly("Crashed", "signal 9")),
        &vmi_in("Running"),
    );
    assert_eq!(vmi.phase(), Some(&Phase::Failed));
    assert_eq!(
        condition(&vmi, conditions::READY).unwrap().message.as_deref(),
        Some("signal 9")
    );
    assert_eq!(vmi.status.unwrap().reason.as_deref(), Some("Crashed"));
}

#[test]
fn a_life_without_trouble_has_no_warnings() {
    let events = [
        Report::Accepted.events(&vmi_with(json!({}))),
        running().events(&vmi_in("Scheduled")),
        running().events(&vmi_in("Running")),
        Report::Over(Over::well("off")).events(&vmi_in("Running")),
    ]
    .concat();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.warning, event.reason, event.message.as_str()))
        .collect();
    let expected = [
        (false, "Started", "VirtualMachineInstance started."),
        (false, "Stopped", "The VirtualMachineInstance was shut down."),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_crash_is_told_in_kubevirts_words_and_a_failed_start_in_its_own() {
    let over = Report::Over(Over::badly("MachineFailed", "no kernel"));
    let crashed = Happening::warning("Stopped", "The VirtualMachineInstance crashed.");
    assert_eq!(over.events(&vmi_in("Running")), [crashed]);
    assert_eq!(
        over.events(&vmi_in("Scheduled")),
        [Happening::warning("SyncFailed", "no kernel")]
    );
}

#[test]
fn a_guest_agent_is_told_of_for_as_long_as_it_listens() {
    let listening = Info {
        agent: true,
        ..*info(State::Running)
    };
    let vmi = applied(
        &Report::Running(Box::new(listening), None, None, Box::default()),
        &vmi_in("Running"),
    );
    assert_eq!(
        condition(&vmi, conditions::AGENT_CONNECTED).unwrap().status,
        condition::TRUE
    );
    let vmi = applied(
        &Report::Running(info(State::Running), None, None, Box::default()),
        &vmi,
    );
    assert!(condition(&vmi, conditions::AGENT_CONNECTED).is_none());
}

#[test]
fn what_the_agent_was_to_set_is_told_once_and_why_it_is_not() {
    let said = |credentials| {
        let listening = Info {
            agent: true,
            ..*info(State::Running)
        };
        let facts = Facts::default().with(credentials);
        Report::Running(Box::new(listening), None, Some(Box::new(facts)), Box::default())
    };
    let kind = conditions::ACCESS_CREDENTIALS_SYNCHRONIZED;
    let (failed, set) = (said(Some(Err("no user".to_owned()))), said(Some(Ok(()))));
    let vmi = vmi_in("Running");
    let told = failed.events(&vmi);
    let why = "Access credentials sync failed: no user";
    assert_eq!(told, [Happening::warning("AccessCredentialsSyncFailed", why)]);
    let vmi = applied(&failed, &vmi);
    assert_eq!(condition(&vmi, kind).unwrap().message.as_deref(), Some("no user"));
    assert_eq!(failed.events(&vmi), []);
    let done = "Access credentials sync successful.";
    assert_eq!(
        set.events(&vmi),
        [Happening::normal("AccessCredentialsSyncSuccess", done)]
    );
    let vmi = applied(&set, &vmi);
    assert_eq!(condition(&vmi, kind).unwrap().status, condition::TRUE);
    assert_eq!(set.events(&vmi), []);
    assert!(condition(&applied(&said(None), &vmi), kind).is_none());
}

#[test]
fn a_refusal_leaves_the_phase_and_names_the_field() {
    let cause = admission::Path::new("spec.architecture").not_supported("is \"amd64\"");
    let vmi = applied(
        &Report::Refused(vec![cause]),
        &vmi_with(json!({"phase": "Pending"})),
    );
    assert_eq!(vmi.phase(), Some(&Phase::Pending));
    let why = condition(&vmi, conditions::SYNCHRONIZED).unwrap();
    assert!(why.message.as_deref().unwrap().contains("spec.architecture"));
}

#[test]
fn endless_texts_are_cut() {
    assert!(bounded(&"ä".repeat(5000)).chars().count() <= MAX_TEXT + 1);
}

#[test]
fn labels_and_finalizers_of_others_stay() {
    let mut vmi = vmi_with(json!({}));
    vmi.metadata.labels = Some([("app".to_owned(), "x".to_owned())].into());
    vmi.metadata.finalizers = Some(vec!["other/f".to_owned()]);
    let mut edit = Edit::of(&vmi);
    edit.label("kubevirt.io/nodeName", "a");
    edit.add_finalizer("ours");
    let patch = edit.patch().unwrap();
    assert_eq!(
        patch["metadata"]["labels"],
        json!({"app": "x", "kubevirt.io/nodeName": "a"})
    );
    assert_eq!(patch["metadata"]["finalizers"], json!(["other/f", "ours"]));
}

#[test]
fn a_machine_that_is_paused_for_a_disk_says_which_until_it_goes_on() {
    // The first is the root file system, and no disk.
    let volumes = json!([{"name": "root", "emptyDisk": {"capacity": "1Mi"}}, {"name": "data", "emptyDisk": {"capacity": "1Mi"}}]);
    let mut vmi = vmi_in("Running");
    vmi.spec.volumes = serde_json::from_value(volumes).unwrap();
    let disks = json!([{"name": "root", "disk": {}}, {"name": "data", "disk": {}}]);
    vmi.spec.domain.devices.disks = serde_json::from_value(disks).unwrap();
    let failed = Info {
        disk_error: Some(rvmm_control::DiskError {
            disk: "disk0".to_owned(),
            message: "No space left on device".to_owned(),
        }),
        ..*info(State::Paused)
    };
    let failed = Report::Running(Box::new(failed), None, None, Box::default());
    let text = "VM Paused due to IO error at the volume: data: No space left on device";
    assert_eq!(failed.events(&vmi), [Happening::warning("IOerror", text)]);
    let paused = applied(&failed, &vmi);
    let said = condition(&paused, conditions::PAUSED).unwrap();
    assert_eq!(said.reason.as_deref(), Some("PausedIOError"));
    assert_eq!((failed.events(&paused), patch(&failed, &paused)), (vec![], None));
    let by_user = Report::Running(info(State::Paused), None, None, Box::default());
    let said = applied(&by_user, &vmi);
    let said = condition(&said, conditions::PAUSED).unwrap();
    assert_eq!(said.reason.as_deref(), Some("PausedByUser"));
    assert!(condition(&applied(&running(), &paused), conditions::PAUSED).is_none());
}
