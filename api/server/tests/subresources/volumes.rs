//! Volumes that come and go.

use serde_json::{Value, json};

use crate::lab::Lab;

/// An instance that can be checked whole.
fn complete() -> Value {
    json!({"spec": {
        "architecture": "riscv64",
        "domain": {"devices": {"disks": [{"name": "root", "disk": {}}]}, "memory": {"guest": "128Mi"}},
        "volumes": [{"name": "root", "containerDisk": {"image": "a"}}],
    }})
}

#[tokio::test]
async fn a_volume_comes_into_an_instance_that_runs_and_goes() {
    let lab = Lab::new("Running").await;
    lab.api.merge("default", "alpine", &complete());
    let spec = || lab.api.object("default", "alpine").unwrap()["spec"].clone();
    let before = spec();
    let add = |name: &str, bus: &str, dry_run: Value| {
        let body = json!({
            "name": name, "disk": {"serial": "s1", "disk": {"bus": bus}},
            "volumeSource": {"persistentVolumeClaim": {"claimName": "claim"}}, "dryRun": dry_run,
        });
        body.to_string()
    };
    // As virtctl asks where its user says nothing; that bus no guest is told of.
    let data = add("data", "virtio", Value::Array(vec![]));
    let rehearsed = lab.act("addvolume", &add("data", "scsi", json!(["Some"]))).await;
    assert_eq!(rehearsed, (400, json!("dryRun is All, or not there")));
    let (code, message) = lab.act("addvolume", &add("data", "sata", json!([]))).await;
    assert_eq!(code, 422);
    assert!(message.as_str().unwrap().contains("is not scsi"), "{message}");
    assert_eq!(spec(), before);
    assert_eq!(lab.act("addvolume", &data).await, (202, Value::Null));
    let claim = json!({"claimName": "claim", "hotpluggable": true});
    assert_eq!(
        spec()["volumes"][1],
        json!({"name": "data", "persistentVolumeClaim": claim})
    );
    let disk = json!({"name": "data", "serial": "s1", "disk": {"bus": "scsi"}});
    assert_eq!(spec()["domain"]["devices"]["disks"][1], disk);

    let cannot = r#"Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "alpine": Unable to"#;
    let again = format!("{cannot} add volume [data] because volume with that name already exists");
    assert_eq!(lab.act("addvolume", &data).await, (409, json!(again)));
    let root = format!("{cannot} remove volume [root] because it is not hotpluggable");
    assert_eq!(
        lab.act("removevolume", r#"{"name":"root"}"#).await,
        (409, json!(root))
    );
    assert_eq!(lab.act("removevolume", r#"{"name":"data"}"#).await.0, 202);
    assert_eq!(spec(), before);
    let none = format!("{cannot} remove volume [data] because it does not exist");
    assert_eq!(
        lab.act("removevolume", r#"{"name":"data"}"#).await,
        (409, json!(none))
    );
}

#[tokio::test]
async fn only_an_instance_that_runs_takes_volumes() {
    let lab = Lab::new("Scheduled").await;
    let cannot =
        r#"Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "alpine": VMI is not running"#;
    assert_eq!(
        lab.act("removevolume", r#"{"name":"a"}"#).await,
        (409, json!(cannot))
    );
    let empty = "AddVolumeOptions requires name to be set";
    assert_eq!(lab.act("addvolume", "").await, (400, json!(empty)));
}
