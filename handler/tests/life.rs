//! The life of VMIs on real run directories, real processes and a real API, with fake machines.

#![expect(
    clippy::unwrap_used,
    reason = "tests fail by panic, outside of test functions too"
)]

mod layouts;
mod node;
mod plugging;
mod pulls;

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::PostParams;
use node::Cluster;
use rvm_server::agent::Command;
use rvm_server::observe::Pulse;
use rvm_server::{Agents, Consoles, Power, Role};
use rvm_types::VirtualMachineInstance as Vmi;
use rvm_types::condition;
use rvmm_control::{Liveness, RunDir};
use serde_json::json;

const IMAGE: &str = "docker.io/library/alpine:3.23";

fn uid(vmi: &Vmi) -> &str {
    vmi.metadata.uid.as_deref().unwrap()
}

fn run_dir(cluster: &Cluster, node: &str, vmi: &Vmi) -> RunDir {
    RunDir::new(cluster.run(node).join(uid(vmi)))
}

fn pid(run: &RunDir) -> Option<u32> {
    match run.liveness().unwrap() {
        Liveness::Alive(pid) => pid,
        _ => None,
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Sends a line to a machine's console; how the fake takes it is in its name.
fn type_on(run: &RunDir) {
    use std::io::Write;
    std::os::unix::net::UnixStream::connect(run.console_socket())
        .unwrap()
        .write_all(b"x\n")
        .unwrap();
}

fn message_of(vmi: &Vmi, kind: &str) -> (String, String) {
    let condition = condition::find(&vmi.status.as_ref().unwrap().conditions, kind)
        .unwrap()
        .clone();
    (
        condition.reason.unwrap_or_default(),
        condition.message.unwrap_or_default(),
    )
}

#[test]
fn a_vmi_runs_and_is_deleted_without_a_trace() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    cluster.create("vm", IMAGE);
    let vmi = cluster.until_phase("vm", "Running");
    assert_eq!(vmi.node_name(), Some("a"));
    assert_eq!(vmi.metadata.labels.as_ref().unwrap()["kubevirt.io/nodeName"], "a");
    assert_eq!(message_of(&vmi, "SoftwareEmulation").1, "the fake has none");
    let stamps = &vmi.status.as_ref().unwrap().phase_transition_timestamps;
    let phases: Vec<_> = stamps
        .iter()
        .map(|stamp| stamp.phase.as_ref().unwrap().as_str())
        .collect();
    assert_eq!(phases, ["Pending", "Scheduling", "Scheduled", "Running"]);
    cluster.delete("vm");
    cluster.until("vm", |vmi| vmi.is_none());
    assert!(!run_dir(&cluster, "a", &vmi).path().exists());
    let told = cluster.events("vm", 4);
    let normal = |reason: &str, text: &str| ("Normal".to_owned(), reason.to_owned(), text.to_owned());
    let expected = [
        normal("Created", "VirtualMachineInstance defined."),
        normal("Started", "VirtualMachineInstance started."),
        normal("Deleted", "Signaled Deletion"),
        normal("Stopped", "The VirtualMachineInstance was shut down."),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_guest_that_can_be_asked_switches_itself_off() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    cluster.create_with_grace("polite-vm", IMAGE, 600);
    cluster.until_phase("polite-vm", "Running");
    cluster.delete("polite-vm");
    cluster.until("polite-vm", |vmi| vmi.is_none());
    let told = cluster.events("polite-vm", 4);
    let normal = |reason: &str, text: &str| ("Normal".to_owned(), reason.to_owned(), text.to_owned());
    assert_eq!(
        told[2..],
        [
            normal("ShuttingDown", "Signaled Graceful Shutdown"),
            normal("Stopped", "The VirtualMachineInstance was shut down."),
        ]
    );
}

#[test]
fn a_handler_that_was_killed_takes_its_machine_over_when_it_is_back() {
    let cluster = Cluster::new();
    let node = cluster.node("a");
    cluster.create("vm", IMAGE);
    let vmi = cluster.until_phase("vm", "Running");
    let run = run_dir(&cluster, "a", &vmi);
    let before = pid(&run).unwrap();
    node.kill();
    assert_eq!(pid(&run), Some(before));
    let node = cluster.node("a");
    let mut stream = cluster.block_on(node.doors.attach(&vmi, Role::Looks));
    assert!(stream.is_ok());
    stream = cluster.block_on(node.doors.attach(&vmi, Role::Looks));
    drop(stream);
    assert_eq!(pid(&run), Some(before));
    node.end();
    assert_eq!(pid(&run), Some(before));
    let _node = cluster.node("a");
    cluster.delete("vm");
    cluster.until("vm", |vmi| vmi.is_none());
    assert_eq!(pid(&run), None);
}

#[test]
fn a_guest_that_is_frozen_for_a_time_is_thawed_whoever_was_started_anew_meanwhile() {
    const SOON: Duration = Duration::from_secs(2);
    const NEVER: Duration = Duration::from_secs(3600);
    let cluster = Cluster::new();
    let node = cluster.node("a");
    cluster.create("polite-vm", IMAGE);
    let vmi = cluster.until_phase("polite-vm", "Running");
    let run = run_dir(&cluster, "a", &vmi);
    let (told, mark) = (run.path().join("agent-told"), run.path().join("thaw-at"));
    let heard = |word: &str| {
        let told = std::fs::read_to_string(&told).unwrap_or_default();
        told.lines().filter(|line| *line == word).count()
    };

    // Whoever thaws it ends the time; the last time counts.
    let says = |frozen: Option<&str>| {
        cluster.until("polite-vm", |vmi| {
            let status = vmi.and_then(|vmi| vmi.status.as_ref());
            status.is_some_and(|status| status.fs_freeze_status.as_deref() == frozen)
        })
    };
    node.block_on(node.doors.freeze_for(&vmi, NEVER)).unwrap();
    assert!(mark.exists());
    says(Some("frozen"));
    node.block_on(node.doors.tell(&vmi, Command::Thaw)).unwrap();
    assert!(!mark.exists());
    says(None);
    node.block_on(node.doors.freeze_for(&vmi, NEVER)).unwrap();
    node.block_on(node.doors.freeze_for(&vmi, SOON)).unwrap();
    node.kill();
    assert_eq!(
        (heard("guest-fsfreeze-freeze"), heard("guest-fsfreeze-thaw")),
        (3, 1)
    );

    let node = cluster.node("a");
    let _leading = node.block_on(async { node.doors.clone().lead(cluster.client()) });
    cluster.wait(|| heard("guest-fsfreeze-thaw") == 2 && !mark.exists());
    drop(node);
}

#[test]
fn a_guest_that_switches_itself_off_has_succeeded() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    cluster.create("poweroff-vm", IMAGE);
    type_on(&run_dir(
        &cluster,
        "a",
        &cluster.until_phase("poweroff-vm", "Running"),
    ));
    cluster.until_phase("poweroff-vm", "Succeeded");
    cluster.delete("poweroff-vm");
    cluster.until("poweroff-vm", |vmi| vmi.is_none());
}

#[test]
fn a_machine_that_crashes_has_failed_and_is_not_started_again() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    cluster.create("crash-vm", IMAGE);
    let vmi = cluster.until_phase("crash-vm", "Running");
    type_on(&run_dir(&cluster, "a", &vmi));
    let vmi = cluster.until_phase("crash-vm", "Failed");
    assert!(message_of(&vmi, "Ready").1.contains("signal 6"));
    let last = cluster.events("crash-vm", 3).pop().unwrap();
    assert_eq!(
        (last.0.as_str(), last.2.as_str()),
        ("Warning", "The VirtualMachineInstance crashed.")
    );
    assert_eq!(pid(&run_dir(&cluster, "a", &vmi)), None);
}

#[test]
fn a_machine_killed_while_nobody_looked_has_failed() {
    let cluster = Cluster::new();
    let node = cluster.node("a");
    cluster.create("vm", IMAGE);
    let run = run_dir(&cluster, "a", &cluster.until_phase("vm", "Running"));
    node.kill();
    kill(pid(&run).unwrap());
    let _node = cluster.node("a");
    let vmi = cluster.until_phase("vm", "Failed");
    assert_eq!(vmi.status.unwrap().reason.as_deref(), Some("Crashed"));
}

#[test]
fn a_machine_that_never_comes_up_has_failed_with_its_last_words() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    cluster.create("refuse-vm", IMAGE);
    let vmi = cluster.until_phase("refuse-vm", "Failed");
    let (_, message) = message_of(&vmi, "Ready");
    assert!(message.starts_with("rvmm ended with status 101"), "{message}");
    let told = cluster.events("refuse-vm", 2);
    // Both may bear the same second, and then have no order.
    assert!(told.iter().any(|event| event.1 == "SyncFailed"), "{told:?}");
}

#[test]
fn a_missing_image_is_told_and_the_vmi_waits() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    cluster.create("vm", "localhost:1/nowhere:1");
    let synchronized = |vmi: &Vmi| {
        let status = vmi.status.as_ref();
        status.is_some_and(|status| condition::find(&status.conditions, "Synchronized").is_some())
    };
    let vmi = cluster.until("vm", |vmi| vmi.is_some_and(synchronized)).unwrap();
    let (reason, message) = message_of(&vmi, "Synchronized");
    assert_eq!(reason, "ErrImagePull");
    assert!(
        message.contains("the registry 'localhost:1' failed: ") && message.ends_with("(os error 111)"),
        "{message}"
    );
    assert_eq!(vmi.phase().unwrap().as_str(), "Scheduling");
    cluster.delete("vm");
    cluster.until("vm", |vmi| vmi.is_none());
}

#[test]
fn where_a_node_has_no_networks_who_asked_for_none_starts_and_is_told_and_who_asked_is_refused() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    let create = |name: &str, devices: serde_json::Value, networks: serde_json::Value| {
        let mut vmi = node::manifest(name, IMAGE);
        vmi["spec"]["domain"]["devices"] = devices;
        vmi["spec"]["networks"] = networks;
        let vmi: Vmi = serde_json::from_value(vmi).unwrap();
        cluster
            .block_on(cluster.vmis().create(&PostParams::default(), &vmi))
            .unwrap();
    };
    create("vm", json!({}), json!([]));
    let vmi = cluster.until_phase("vm", "Running");
    assert_eq!(vmi.status.unwrap().interfaces, []);
    let told = cluster.events("vm", 3);
    let of_network = told.iter().find(|event| event.1 == "NetworkUnavailable").unwrap();
    assert!(of_network.2.contains("--pod-network none"), "{}", of_network.2);
    // The node's administrator wanted it so.
    assert!(told.iter().all(|event| event.0 == "Normal"), "{told:?}");

    let interfaces = json!({"interfaces": [{"name": "default", "masquerade": {}}]});
    create("asked", interfaces, json!([{"name": "default", "pod": {}}]));
    let (reason, message) = until_out_of_sync(&cluster, "asked");
    assert_eq!(reason, "FailedCreate");
    assert!(message.contains("--pod-network none"), "{message}");
}

/// Waits until a VMI says that something is wrong.
fn until_out_of_sync(cluster: &Cluster, name: &str) -> (String, String) {
    let synchronized = |vmi: &Vmi| {
        let status = vmi.status.as_ref();
        status.is_some_and(|status| condition::find(&status.conditions, "Synchronized").is_some())
    };
    let vmi = cluster.until(name, |vmi| vmi.is_some_and(synchronized)).unwrap();
    message_of(&vmi, "Synchronized")
}

#[test]
fn an_rvmm_that_cannot_be_started_is_told_and_tried_again() {
    let cluster = Cluster::new();
    let node = cluster.node_with("a", std::path::Path::new("/nonexistent/rvmm"));
    cluster.create("vm", IMAGE);
    let (reason, message) = until_out_of_sync(&cluster, "vm");
    assert_eq!(reason, "FailedCreate");
    assert!(
        message.contains("'/nonexistent/rvmm' cannot be run: No such file or directory"),
        "{message}"
    );
    let told = cluster.events("vm", 1);
    assert_eq!(
        (told[0].0.as_str(), told[0].1.as_str(), &told[0].2),
        ("Warning", "SyncFailed", &message)
    );
    node.end();
    let _node = cluster.node("a");
    let vmi = cluster.until_phase("vm", "Running");
    assert!(condition::find(&vmi.status.unwrap().conditions, "Synchronized").is_none());
}

#[test]
fn a_run_directory_that_cannot_be_read_is_told() {
    let cluster = Cluster::new();
    let node = cluster.node("a");
    cluster.create("vm", IMAGE);
    let owner = run_dir(&cluster, "a", &cluster.until_phase("vm", "Running"))
        .path()
        .join("owner.json");
    node.kill();
    let whole = std::fs::read(&owner).unwrap();
    std::fs::write(&owner, "{").unwrap();
    let node = cluster.node("a");
    let (_, message) = until_out_of_sync(&cluster, "vm");
    assert!(message.contains("cannot be read"), "{message}");
    node.kill();
    std::fs::write(&owner, whole).unwrap();
    let _node = cluster.node("a");
    cluster.until("vm", |vmi| {
        let status = vmi.and_then(|vmi| vmi.status.as_ref());
        status.is_some_and(|status| condition::find(&status.conditions, "Synchronized").is_none())
    });
}

#[test]
fn a_status_that_came_with_the_manifest_is_not_believed() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    for phase in ["Scheduling", "Scheduled", "Running", "Failed"] {
        let name = phase.to_lowercase();
        let mut forged = node::manifest(&name, IMAGE);
        forged["metadata"]["annotations"]["rvm/claim"] =
            json!("a/somebody/6f9619ff-8b86-4d01-b42d-00cf4fc964ff");
        forged["metadata"]["finalizers"] = json!(["kubevirt.io/foregroundDeleteVirtualMachine"]);
        forged["status"] = json!({"phase": phase, "nodeName": "a"});
        let vmi: Vmi = serde_json::from_value(forged).unwrap();
        cluster
            .block_on(cluster.vmis().create(&Default::default(), &vmi))
            .unwrap();
        let started = |vmi: &Vmi| pid(&run_dir(&cluster, "a", vmi)).is_some();
        let vmi = cluster.until(&name, |vmi| {
            vmi.is_some_and(|vmi| {
                vmi.phase().is_some_and(|phase| phase.as_str() == "Running") && started(vmi)
            })
        });
        let stamps = vmi.unwrap().status.unwrap().phase_transition_timestamps;
        let phases: Vec<_> = stamps
            .iter()
            .map(|stamp| stamp.phase.as_ref().unwrap().as_str())
            .collect();
        assert_eq!(phases, ["Pending", "Scheduling", "Scheduled", "Running"]);
    }
}

#[test]
fn a_machine_whose_vmi_lost_its_claim_goes_on_and_is_claimed_again() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    cluster.create("vm", IMAGE);
    let vmi = cluster.until_phase("vm", "Running");
    let run = run_dir(&cluster, "a", &vmi);
    let before = pid(&run).unwrap();
    // As `kubectl replace` of the manifest leaves it.
    let wiped = json!({"metadata": {"annotations": {"rvm/claim": null}, "finalizers": null}, "status": null});
    let wiped = kube::api::Patch::Merge(wiped);
    cluster
        .block_on(cluster.vmis().patch("vm", &Default::default(), &wiped))
        .unwrap();
    let claimed = |vmi: &Vmi| {
        vmi.metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key("rvm/claim"))
    };
    cluster.until("vm", |vmi| vmi.is_some_and(claimed));
    let again = cluster.until_phase("vm", "Running");
    assert_eq!((pid(&run), again.node_name()), (Some(before), Some("a")));
    assert_eq!(again.metadata.finalizers.unwrap().len(), 1);
}

#[test]
fn a_node_name_is_one_handlers_and_a_second_one_is_refused() {
    let cluster = Cluster::new();
    let register = Cluster::register;
    let (one, other) = (register("a", "one"), register("a", "other"));
    let client = cluster.client();
    let me = cluster.block_on(one.beat(&client)).unwrap();
    assert_eq!((me.node.as_str(), me.handler.as_str()), ("a", "one"));
    let refused = cluster
        .block_on(other.first_beat(&client))
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("node 'a' is served by another rvm-handler (one,"),
        "{refused}"
    );
    // Once it is gone for long enough its name is free, and it finds that out if it was only slow.
    let (me, _seen) = tokio::sync::watch::channel(me);
    let taken = json!({"metadata": {"annotations": {"rvm/handler": "other"}}});
    let taken = kube::api::Patch::Merge(taken);
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(client.clone());
    cluster
        .block_on(nodes.patch("a", &Default::default(), &taken))
        .unwrap();
    let lost = cluster
        .block_on(one.keep_beating(&client, &me, &Pulse::default()))
        .unwrap_err()
        .to_string();
    assert!(lost.contains("served by another rvm-handler (other,"), "{lost}");
}

#[test]
fn two_handlers_that_arrive_at_once_do_not_both_get_the_name() {
    let cluster = Cluster::new();
    let client = cluster.client();
    let ids: Vec<String> = (0..8).map(|number| format!("h{number}")).collect();
    let beats = ids.iter().map(|id| {
        let (register, client) = (Cluster::register("a", id), client.clone());
        async move { register.beat(&client).await.is_ok() }
    });
    let beaten = cluster.block_on(futures::future::join_all(beats));
    assert_eq!(beaten.iter().filter(|beaten| **beaten).count(), 1, "{beaten:?}");
}

#[test]
fn disks_whose_vmi_went_while_nobody_looked_are_removed() {
    let cluster = Cluster::new();
    let node = cluster.node("a");
    let mut manifest = node::manifest("vm", IMAGE);
    let volumes = manifest["spec"]["volumes"].as_array_mut().unwrap();
    volumes.push(json!({"name": "scratch", "emptyDisk": {"capacity": "1Mi"}}));
    let vmi: Vmi = serde_json::from_value(manifest).unwrap();
    cluster
        .block_on(cluster.vmis().create(&Default::default(), &vmi))
        .unwrap();
    let vmi = cluster.until_phase("vm", "Running");
    let (run, disks) = (
        run_dir(&cluster, "a", &vmi),
        cluster.folder.path().join("a/disks").join(uid(&vmi)),
    );
    assert!(disks.join("scratch.raw").exists());
    node.kill();
    kill(pid(&run).unwrap());
    // The host was restarted, and the VMI removed by force.
    std::fs::remove_dir_all(run.path()).unwrap();
    let no_finalizers = kube::api::Patch::Merge(json!({"metadata": {"finalizers": []}}));
    cluster
        .block_on(cluster.vmis().patch("vm", &Default::default(), &no_finalizers))
        .unwrap();
    cluster.delete("vm");
    cluster.until("vm", |vmi| vmi.is_none());
    let _node = cluster.node("a");
    cluster.block_on(async {
        while disks.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_stop_ends_the_machine_and_leaves_the_vmi() {
    let cluster = Cluster::new();
    let node = cluster.node("a");
    cluster.create("vm", IMAGE);
    let vmi = cluster.until_phase("vm", "Running");
    cluster.block_on(node.doors.stop(&vmi, None)).unwrap();
    let vmi = cluster.until_phase("vm", "Succeeded");
    assert!(cluster.block_on(node.doors.stop(&vmi, None)).is_err());
}

#[test]
fn a_machine_that_does_not_obey_is_killed() {
    let cluster = Cluster::new();
    let node = cluster.node("a");
    cluster.create("deaf-vm", IMAGE);
    let vmi = cluster.until_phase("deaf-vm", "Running");
    cluster
        .block_on(node.doors.stop(&vmi, Some(Duration::ZERO)))
        .unwrap();
    cluster.until_phase("deaf-vm", "Succeeded");
}

#[test]
fn a_machine_whose_vmi_went_by_force_while_nobody_looked_is_ended() {
    let cluster = Cluster::new();
    let node = cluster.node("a");
    cluster.create("vm", IMAGE);
    let run = run_dir(&cluster, "a", &cluster.until_phase("vm", "Running"));
    node.kill();
    let no_finalizers = kube::api::Patch::Merge(json!({"metadata": {"finalizers": []}}));
    cluster
        .block_on(cluster.vmis().patch("vm", &Default::default(), &no_finalizers))
        .unwrap();
    cluster.delete("vm");
    cluster.until("vm", |vmi| vmi.is_none());
    assert!(pid(&run).is_some());
    let _node = cluster.node("a");
    cluster.block_on(async {
        while run.path().exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(pid(&run), None);
}

#[test]
fn two_handlers_start_each_of_twenty_vmis_exactly_once_though_one_is_killed() {
    let cluster = Cluster::new();
    let (a, _b) = (cluster.node("a"), cluster.node("b"));
    let names: Vec<String> = (0..20).map(|number| format!("vm{number}")).collect();
    names.iter().for_each(|name| drop(cluster.create(name, IMAGE)));
    a.kill();
    let a = cluster.node("a");
    let vmis: Vec<Vmi> = names
        .iter()
        .map(|name| cluster.until_phase(name, "Running"))
        .collect();
    let started = |node: &str| -> BTreeSet<String> {
        let pids = |vmi: &&Vmi| pid(&run_dir(&cluster, node, vmi)).is_some();
        vmis.iter().filter(pids).map(|vmi| uid(vmi).to_owned()).collect()
    };
    let (on_a, on_b) = (started("a"), started("b"));
    assert_eq!(on_a.intersection(&on_b).count(), 0);
    assert_eq!(on_a.len() + on_b.len(), 20);
    let elsewhere = vmis.iter().find(|vmi| vmi.node_name() == Some("b"));
    assert!(elsewhere.is_none_or(|vmi| cluster.block_on(a.doors.attach(vmi, Role::Looks)).is_err()));
    names.iter().for_each(|name| cluster.delete(name));
    names
        .iter()
        .for_each(|name| drop(cluster.until(name, |vmi| vmi.is_none())));
}
