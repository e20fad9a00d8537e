//! The generated CustomResourceDefinition: in step with the file that is installed, and shaped as KubeVirt's.

use std::fs;
use std::path::Path;

use rvm_types::crd::{files, kubevirts, replica_sets, virtual_machine_instances as crd, virtual_machines};
use serde_json::{Value, json};

fn schema() -> Value {
    let crd = serde_json::to_value(crd()).expect("plain data");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Every schema inside a schema, itself included.
fn all(schema: &Value) -> Vec<&Value> {
    let fields = schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.values());
    let inner = [&schema["items"], &schema["additionalProperties"]]
        .into_iter()
        .filter(|inner| inner.is_object());
    [schema]
        .into_iter()
        .chain(fields.chain(inner).flat_map(all))
        .collect()
}

#[test]
fn the_installed_files_are_in_step_with_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let files = files().unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "kubevirt.io_virtualmachineinstances.yaml",
            "kubevirt.io_virtualmachines.yaml",
            "kubevirt.io_virtualmachineinstancereplicasets.yaml",
            "kubevirt.io_kubevirts.yaml"
        ]
    );
    let installed = |name: &str| fs::read_to_string(folder.join(name)).expect("deploy/crds is there");
    let stale = files.iter().find(|(name, text)| installed(name) != *text);
    assert_eq!(stale.map(|(name, _)| name), None, "run `cargo xtask crds`");
}

#[test]
fn the_page_of_the_fields_is_in_step_with_the_types() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("FIELDS.md");
    let is_current = fs::read_to_string(page).expect("it is there") == rvm_types::reference::page();
    assert!(is_current, "run `cargo xtask reference`");
}

#[test]
fn a_virtual_machine_has_kubevirts_names_columns_and_status() {
    let crd = virtual_machines();
    let names = (crd.spec.names.short_names, crd.spec.names.categories);
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    assert_eq!(names, (words(&["vm", "vms"]), words(&["all"])));
    let version = &crd.spec.versions[0];
    let status = version
        .subresources
        .as_ref()
        .map(|subresources| subresources.status.is_some());
    assert_eq!(status, Some(true));
    let columns = version.additional_printer_columns.iter().flatten();
    let columns: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["Age", "Status", "Ready"]);
}

#[test]
fn a_replica_set_has_kubevirts_names_columns_and_subresources() {
    let crd = replica_sets();
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    assert_eq!(crd.spec.names.short_names, words(&["vmirs", "vmirss"]));
    assert_eq!(crd.spec.names.categories, words(&["all"]));
    let versions = &crd.spec.versions;
    let names: Vec<&str> = versions.iter().map(|version| version.name.as_str()).collect();
    assert_eq!(names, ["v1", "v1alpha3"]);
    for version in versions {
        let columns = version.additional_printer_columns.iter().flatten();
        let columns: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
        assert_eq!(columns, ["Desired", "Current", "Ready", "Age"]);
        let subresources = serde_json::to_value(version.subresources.as_ref()).expect("plain data");
        let scale = json!({
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.labelSelector",
        });
        assert_eq!(subresources, json!({"status": {}, "scale": scale}));
    }
}

#[test]
fn a_kubevirt_has_kubevirts_names_columns_and_status() {
    let crd = kubevirts();
    assert_eq!(crd.metadata.name.as_deref(), Some("kubevirts.kubevirt.io"));
    let short = crd.spec.names.short_names.unwrap_or_default();
    assert_eq!(short, ["kv", "kvs"]);
    let version = &crd.spec.versions[0];
    assert!(
        version
            .subresources
            .as_ref()
            .is_some_and(|found| found.status.is_some())
    );
    let columns = version.additional_printer_columns.iter().flatten();
    let columns: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["Age", "Phase"]);
}

#[test]
fn the_names_are_kubevirts() {
    let crd = crd();
    assert_eq!(
        crd.metadata.name.as_deref(),
        Some("virtualmachineinstances.kubevirt.io")
    );
    assert_eq!(crd.spec.names.singular.as_deref(), Some("virtualmachineinstance"));
    assert_eq!(
        crd.spec.names.short_names,
        Some(vec!["vmi".to_owned(), "vmis".to_owned()])
    );
    assert_eq!(crd.spec.names.categories, Some(vec!["all".to_owned()]));
    assert_eq!(crd.spec.scope, "Namespaced");
}

#[test]
fn status_is_written_with_the_object_as_kubevirts_clients_do() {
    assert_eq!(crd().spec.versions[0].subresources, None);
}

#[test]
fn every_object_that_we_model_keeps_what_we_do_not() {
    let schema = schema();
    let closed: Vec<_> = all(&schema)
        .into_iter()
        .skip(1)
        .filter(|inner| inner["properties"].is_object())
        .filter(|inner| {
            inner["x-kubernetes-preserve-unknown-fields"] != true
                || inner["additionalProperties"] != Value::Null
        })
        .collect();
    assert!(closed.is_empty(), "{closed:#?}");
}

#[test]
fn the_schema_asks_for_what_kubevirt_asks_for() {
    let schema = schema();
    let spec = &schema["properties"]["spec"]["properties"];
    let devices = &spec["domain"]["properties"]["devices"]["properties"];
    assert_eq!(schema["required"], json!(["spec"]));
    assert_eq!(schema["properties"]["spec"]["required"], json!(["domain"]));
    assert_eq!(spec["domain"]["required"], json!(["devices"]));
    assert_eq!(devices["disks"]["items"]["required"], json!(["name"]));
    assert_eq!(devices["disks"]["items"]["properties"]["name"]["minLength"], 1);
    assert_eq!(
        spec["volumes"]["items"]["properties"]["containerDisk"]["required"],
        json!(["image"])
    );
    assert_eq!(
        spec["volumes"]["items"]["properties"]["containerDisk"]["properties"]["image"]["minLength"],
        1
    );
    assert_eq!(spec["architecture"]["enum"], json!(["riscv64"]));
}

#[test]
fn every_field_says_what_it_is_for() {
    let schema = schema();
    let silent: Vec<_> = all(&schema["properties"]["spec"])
        .into_iter()
        .filter_map(|inner| inner["properties"].as_object())
        .flatten()
        .filter(|(_, field)| field["description"].as_str().is_none_or(str::is_empty))
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}
