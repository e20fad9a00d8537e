//! KubeVirt's own objects, every field of them filled, behind a real kube-apiserver with our CRDs: made, read, written again. And what
//! the CRDs say of their fields.
//!
//! The data lies beside the checkout (or where `RVM_SHARED` says); without it the first test says so and passes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use rvm_harness::{Cluster, Kubectl, Tools};
use serde_json::{Value, json};

/// What of an object a schema may refuse.
const MOST_REFUSALS: usize = 20;
const KINDS: [&str; 3] = ["VirtualMachineInstance", "VirtualMachine", "KubeVirt"];

fn filled(kind: &str) -> Option<Value> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("RVM_SHARED").map_or(beside, PathBuf::from);
    let path = shared.join(format!("kubevirt/roundtrip/kubevirt.io.v1.{kind}.json"));
    let Ok(text) = std::fs::read(&path) else {
        println!("skipped: no compatibility data in {}", path.display());
        return None;
    };
    let mut object: Value = serde_json::from_slice(&text).unwrap();
    let metadata = object["metadata"].as_object_mut().unwrap();
    // What only the server says, or would keep the object for ever.
    metadata.retain(|name, _| ["labels", "annotations"].contains(&name.as_str()));
    metadata.insert("name".to_owned(), json!("filled"));
    Some(object)
}

/// The fields that kubectl says were refused: lines `* FIELD: why`, or only one such thing.
fn refused(said: &str) -> Vec<String> {
    let said = said.split(" is invalid: ").nth(1).unwrap_or_default();
    let field = |line: &str| {
        let line = line.trim_start_matches(['*', ' ']);
        line.split(": ").next().map(str::to_owned)
    };
    said.lines()
        .filter(|line| line.contains(": "))
        .filter_map(field)
        .collect()
}

fn take_out(object: &mut Value, field: &str) {
    let path = format!("/{}", field.replace(['.', '['], "/").replace(']', ""));
    let (parent, last) = path.rsplit_once('/').unwrap();
    let fields = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    assert!(fields.remove(last).is_some(), "{field}");
}

/// Numbers as kube-apiserver keeps them where it does not know their type: beyond 64 bits they lose their last digits.
fn rounded(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), rounded(value)))
            .collect(),
        Value::Array(items) => items.iter().map(rounded).collect(),
        Value::Number(number) if number.as_i64().is_none() => json!(number.as_f64()),
        other => other.clone(),
    }
}

fn goes_round(kubectl: &Kubectl, kind: &str) {
    let Some(mut object) = filled(kind) else { return };
    let mut gone = Vec::new();
    loop {
        let made = kubectl.feed(&["create", "-f", "-"], &object.to_string()).unwrap();
        if made.status() == Some(0) {
            break;
        }
        let fields = refused(&made.error_text());
        assert!(
            !fields.is_empty() && gone.len() < MOST_REFUSALS,
            "{}",
            made.error_text()
        );
        fields.iter().for_each(|field| take_out(&mut object, field));
        gone.extend(fields);
    }
    println!("{kind}: refused by its schema: {gone:?}");
    let found = kubectl.get(&[kind, "filled"]).unwrap();
    assert_eq!(found["spec"], rounded(&object["spec"]), "{kind}");
    for part in ["labels", "annotations"] {
        assert_eq!(found["metadata"][part], object["metadata"][part], "{kind}");
    }
    let mut told = found.clone();
    told["status"] = object["status"].clone();
    let subresource: &[&str] = match kind {
        "VirtualMachineInstance" => &[],
        _ => &["--subresource=status"],
    };
    let replace = |object: &Value, more: &[&str]| {
        let mut words = vec!["replace", "-f", "-"];
        words.extend(more);
        kubectl.feed(&words, &object.to_string()).unwrap().ok().unwrap();
        kubectl.get(&[kind, "filled"]).unwrap()
    };
    let told = replace(&told, subresource);
    assert_eq!(told["status"], rounded(&object["status"]), "{kind}");
    assert_eq!(told["spec"], found["spec"], "{kind}");
    // Who reads it and writes it back changes nothing.
    assert_eq!(replace(&told, &[]), told, "{kind}");
}

#[test]
fn kubevirts_objects_survive_and_every_field_is_explained() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    let kubectl = cluster.kubectl();
    for kind in KINDS {
        goes_round(kubectl, kind);
    }
    for path in [
        "vmi.spec.domain",
        "vmi.spec.domain.devices.disks",
        "vm.spec.template.spec.domain.cpu",
        "vmirs.spec",
        "kv.status",
    ] {
        let told = kubectl.ok(&["explain", path]).unwrap();
        assert!(
            told.contains("FIELDS:") && !told.contains("<no description>"),
            "{path}: {told}"
        );
    }
    let domain = kubectl.ok(&["explain", "vmi.spec.domain"]).unwrap();
    for field in ["cpu", "devices", "firmware", "memory", "machine", "resources"] {
        assert!(domain.contains(&format!("  {field}\t")), "{field}: {domain}");
    }
}
