//! What is done to machines, and what is asked of their guests.

use std::time::Duration;

use rvm_server::Act;
use rvm_server::agent::Command;
use serde_json::{Value, json};

use crate::lab::{BASE, Lab, why};

#[tokio::test]
async fn a_machine_is_paused_once_and_goes_on_once() {
    let lab = Lab::new("Running").await;
    assert_eq!(lab.act("unpause", "{}").await, (409, why("VMI is not paused")));
    assert_eq!(
        lab.act("pause", r#"{"dryRun":["All"]}"#).await,
        (200, Value::Null)
    );
    assert_eq!(lab.machines.acts(), []);
    assert_eq!(lab.act("pause", "{}").await, (200, Value::Null));
    lab.is_paused();
    assert_eq!(lab.act("pause", "").await, (409, why("VMI is already paused")));
    assert_eq!(lab.act("unpause", "").await, (200, Value::Null));
    assert_eq!(lab.act("reset", "").await, (200, Value::Null));
    let done = [Act::Pause, Act::Resume, Act::Reset].map(|act| ("alpine".to_owned(), act));
    assert_eq!(lab.machines.acts(), done);
    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Scheduled"}}));
    assert_eq!(lab.act("reset", "").await, (409, why("VMI is not running")));
}

#[tokio::test]
async fn a_guest_is_asked_by_its_agent_alone() {
    let lab = Lab::new("Running").await;
    let get = |what: &str| {
        let path = format!("{BASE}/{what}");
        let lab = &lab;
        async move { lab.call("GET", &path, "").await }
    };
    let (code, body) = get("guestosinfo").await;
    let no_agent = why("VMI does not have guest agent connected");
    assert_eq!((code, &body["message"]), (409, &no_agent));
    assert_eq!(lab.machines.told(), []);

    lab.has(&["AgentConnected"]);
    lab.machines
        .answer(Command::HostName, json!({"host-name": "alpine"}));
    lab.machines
        .answer(Command::Users, json!([{"user": "root", "login-time": 2.5}]));
    let user = json!({"userName": "root", "loginTime": 2.5});
    let info = json!({"hostname": "alpine", "os": {}, "userList": [user], "fsInfo": {"disks": []}});
    assert_eq!(get("guestosinfo").await, (200, info));
    let list = json!({"metadata": {}, "items": [user]});
    assert_eq!(get("userlist").await, (200, list));
    let none = json!({"metadata": {}, "items": []});
    assert_eq!(
        get("filesystemlist").await,
        (200, none),
        "what an agent does not know is nothing"
    );

    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Succeeded"}}));
    assert_eq!(get("userlist").await.1["message"], why("VMI is not running"));
}

#[tokio::test]
async fn what_a_machine_takes_is_told_while_it_runs() {
    let lab = Lab::new("Running").await;
    let path = format!("{BASE}/usage");
    let taken = json!({
        "atMicroseconds": 1_000_000, "cpuMicroseconds": 250_000, "memoryBytes": 96 << 20,
        "cpus": 2, "guestMemoryBytes": 128 << 20,
    });
    assert_eq!(lab.call("GET", &path, "").await, (200, taken));
    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Scheduling"}}));
    let (code, said) = lab.call("GET", &path, "").await;
    assert_eq!((code, &said["message"]), (400, &json!("VMI is not running")));
}

#[tokio::test]
async fn a_soft_reboot_is_the_agents() {
    let lab = Lab::new("Running").await;
    let neither = why("VMI neither have the agent connected nor the ACPI feature enabled");
    assert_eq!(lab.act("softreboot", "").await, (409, neither));
    lab.has(&["AgentConnected", "Paused"]);
    assert_eq!(lab.act("softreboot", "").await, (409, why("VMI is paused")));
    lab.has(&["AgentConnected"]);
    let (code, message) = lab.act("softreboot", "").await;
    assert_eq!(code, 500);
    assert!(
        message
            .as_str()
            .unwrap()
            .contains("guest-shutdown has not been found"),
        "{message}"
    );
    lab.machines.answer(Command::Reboot, Value::Null);
    assert_eq!(lab.act("softreboot", "").await, (200, Value::Null));
    assert_eq!(lab.machines.told(), [Command::Reboot; 2]);
    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Scheduled"}}));
    assert_eq!(lab.act("softreboot", "").await, (409, why("VM is not running")));
}

#[tokio::test]
async fn a_guest_is_frozen_until_it_is_thawed_or_for_the_time_that_is_said() {
    let lab = Lab::new("Running").await;
    lab.machines.answer(Command::Freeze, json!(1));
    lab.machines.answer(Command::Thaw, json!(1));
    assert_eq!(lab.act("freeze", r#"{"unfreezeTimeout":"soon"}"#).await.0, 400);
    assert_eq!(
        lab.act("freeze", r#"{"unfreezeTimeout":"1h0m0s"}"#).await,
        (200, Value::Null)
    );
    assert_eq!(lab.act("unfreeze", "").await, (200, Value::Null));
    assert_eq!(lab.machines.told(), [Command::Freeze, Command::Thaw]);
    assert_eq!(
        lab.act("freeze", r#"{"unfreezeTimeout":"1ms"}"#).await,
        (200, Value::Null)
    );
    // Whoever has the machine thaws it again.
    let times = [Duration::from_secs(3600), Duration::from_millis(1)];
    assert_eq!(lab.machines.frozen(), times);
    assert_eq!(lab.act("freeze", "").await, (200, Value::Null));
    assert_eq!(lab.machines.frozen(), times);
}

#[tokio::test]
async fn what_a_machine_cannot_have_is_refused_by_name() {
    let lab = Lab::new("Running").await;
    let (group, _) = BASE.split_once("/namespaces/").unwrap();
    assert_eq!(lab.call("GET", &format!("{group}/guestfs"), "").await.0, 404);
}

#[tokio::test]
async fn a_spec_is_expanded_before_it_is_applied() {
    let lab = Lab::new("Running").await;
    let (namespace, _) = BASE.split_once("/virtualmachineinstances").unwrap();
    let path = format!("{namespace}/expand-vm-spec");
    let vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}}}},
    });
    assert_eq!(lab.call("PUT", &path, &vm.to_string()).await, (200, vm));
    let (code, body) = lab.call("PUT", &path, "").await;
    assert_eq!((code, &body["message"]), (400, &json!("empty request body")));
}

#[tokio::test]
async fn every_resource_that_is_listed_is_there() {
    let lab = Lab::new("Running").await;
    let (group, _) = BASE.split_once("/namespaces/").unwrap();
    let (_, list) = lab.call("GET", group, "").await;
    let resources = list["resources"].as_array().unwrap();
    assert!(resources.len() > 20);
    for resource in resources {
        let name = resource["name"].as_str().unwrap().replacen('/', "/nobody/", 1);
        // No verb of ours: what is there allows another one, what is not is not there.
        let (code, _) = lab
            .call("BREW", &format!("{group}/namespaces/default/{name}"), "")
            .await;
        let port = name.ends_with("portforward");
        assert_eq!(code, if port { 404 } else { 405 }, "{name}");
    }
}
