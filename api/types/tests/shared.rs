//! KubeVirt's own objects, read and written again by our types. The data lies beside the checkout (or where
//! `RVM_SHARED` says); without it these tests say so and pass.

use std::path::{Path, PathBuf};
use std::{env, fs};

use rvm_types::{KubeVirt, VirtualMachine, VirtualMachineInstance, admission, manifest};
use serde_json::Value;

const ROUND_TRIP: &str = "roundtrip/kubevirt.io.v1.VirtualMachineInstance";

const VM_ROUND_TRIP: &str = "roundtrip/kubevirt.io.v1.VirtualMachine.json";

fn kubevirt() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = env::var_os("RVM_SHARED")
        .map_or(beside, PathBuf::from)
        .join("kubevirt");
    if !shared.is_dir() {
        println!("skipped: no compatibility data in {}", shared.display());
        return None;
    }
    Some(shared)
}

/// Read into our type and written again.
fn through_the_type(object: &Value) -> Value {
    let typed: VirtualMachineInstance = serde_json::from_value(object.clone()).expect("is read");
    serde_json::to_value(typed).expect("is written")
}

#[test]
fn kubevirts_object_with_every_field_filled_survives_as_json() {
    let Some(data) = kubevirt() else { return };
    let text = fs::read(data.join(format!("{ROUND_TRIP}.json"))).expect("the JSON object is there");
    let object: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(through_the_type(&object), object);
}

#[test]
fn kubevirts_object_with_every_field_filled_survives_as_yaml() {
    let Some(data) = kubevirt() else { return };
    let text = fs::read(data.join(format!("{ROUND_TRIP}.yaml"))).expect("the YAML object is there");
    let object = manifest::parse(&text).expect("YAML").remove(0);
    let yaml = manifest::to_yaml(&through_the_type(&object)).expect("is written as YAML");
    assert_eq!(manifest::parse(yaml.as_bytes()).expect("YAML again"), [object]);
}

#[test]
fn kubevirts_virtual_machine_with_every_field_filled_survives() {
    let Some(data) = kubevirt() else { return };
    let text = fs::read(data.join(VM_ROUND_TRIP)).expect("the JSON object is there");
    let object: Value = serde_json::from_slice(&text).expect("JSON");
    let typed: VirtualMachine = serde_json::from_value(object.clone()).expect("is read");
    assert_eq!(serde_json::to_value(typed).expect("is written"), object);
}

#[test]
fn kubevirts_kubevirt_with_every_field_filled_survives_and_has_no_strange_field() {
    let Some(data) = kubevirt() else { return };
    let path = data.join("roundtrip/kubevirt.io.v1.KubeVirt.json");
    let object: Value =
        serde_json::from_slice(&fs::read(path).expect("the JSON object is there")).expect("JSON");
    let typed: KubeVirt = serde_json::from_value(object.clone()).expect("is read");
    assert_eq!(admission::kubevirt::validate(&typed), []);
    assert_eq!(serde_json::to_value(typed).expect("is written"), object);
}

#[test]
fn every_example_of_a_vmi_survives() {
    let Some(data) = kubevirt() else { return };
    let examples: Vec<Value> = fs::read_dir(data.join("examples"))
        .expect("the examples are there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmi-"))
        })
        .flat_map(|path| manifest::parse(&fs::read(path).expect("is read")).expect("YAML"))
        .collect();
    assert!(examples.len() >= 14, "{} examples", examples.len());
    assert_eq!(
        examples.iter().map(through_the_type).collect::<Vec<_>>(),
        examples
    );
}

/// KubeVirt's examples that ask for what is not there, and the fields that say so.
const REFUSED: [(&str, &[&str]); 5] = [
    ("vmi-gpu.yaml", &["spec.domain.devices.gpus"]),
    ("vmi-multus-ptp.yaml", &["spec.networks[0].multus"]),
    (
        "vmi-secureboot.yaml",
        &[
            "spec.domain.firmware.bootloader.efi.secureBoot",
            "spec.domain.features",
        ],
    ),
    (
        "vmi-sriov.yaml",
        &[
            "spec.networks[1].multus",
            "spec.domain.devices.interfaces[1].sriov",
        ],
    ),
    (
        "vmi-windows.yaml",
        &[
            "spec.domain.devices.interfaces[0].model",
            "spec.domain.firmware.bootloader.efi.secureBoot",
            "spec.domain.clock",
            "spec.domain.features",
            "spec.domain.devices.tpm",
        ],
    ),
];

#[test]
fn every_example_is_taken_or_refused_by_the_path_of_a_field_that_it_has() {
    let Some(data) = kubevirt() else { return };
    let mut refused = Vec::new();
    for entry in fs::read_dir(data.join("examples")).expect("the examples are there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        for object in manifest::parse(&fs::read(path).expect("is read")).expect("YAML") {
            let fields = refused_fields(&object);
            if !fields.is_empty() {
                refused.push((name.clone().unwrap_or_default(), fields));
            }
        }
    }
    refused.sort();
    let expected = REFUSED.map(|(name, fields)| {
        (
            name.to_owned(),
            fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>(),
        )
    });
    assert_eq!(refused, expected);
}

/// The fields that admission refuses, each of which the object has.
fn refused_fields(object: &Value) -> Vec<String> {
    let read = "is read";
    let causes = match object["kind"].as_str() {
        Some("VirtualMachineInstance") => {
            let mut vmi: VirtualMachineInstance = serde_json::from_value(object.clone()).expect(read);
            admission::default(&mut vmi);
            admission::validate(&vmi)
        }
        Some("VirtualMachine") => {
            admission::vm::validate(&serde_json::from_value(object.clone()).expect(read))
        }
        _ => Vec::new(),
    };
    let fields = causes.into_iter().map(|cause| {
        assert!(cause.message.contains(&cause.field), "{cause}");
        let pointer = format!(
            "/{}",
            cause.field.replace('[', ".").replace(']', "").replace('.', "/")
        );
        assert!(object.pointer(&pointer).is_some(), "{} of {object}", cause.field);
        cause.field
    });
    fields.collect()
}
