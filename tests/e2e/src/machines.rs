//! A VirtualMachine of the demo guest, and what is said of it.

use anyhow::Result;
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Kubectl, Manifest};
use serde_json::{Value, json};

use crate::guest::NAME;

/// What is asked of machines besides their objects.
pub const SUBRESOURCES: &str = "/apis/subresources.kubevirt.io/v1/namespaces/default";

/// A machine of the demo's name, whose template is the demo.
///
/// # Errors
/// The demo's manifest cannot be read.
pub fn machine(strategy: &str) -> Result<Manifest> {
    let demo = Manifest::demo()?.0;
    let metadata =
        json!({"annotations": demo["metadata"]["annotations"], "labels": {"kubevirt.io/vm": NAME}});
    Ok(Manifest(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": NAME},
        "spec": {"runStrategy": strategy, "template": {"metadata": metadata, "spec": demo["spec"]}},
    })))
}

/// Waits until the machine is said to be so, and returns it.
///
/// # Errors
/// It never is.
pub fn await_word(kubectl: &Kubectl, word: &str) -> Result<Value> {
    eventually(word, || {
        let vm = kubectl.get(&["vm", NAME])?;
        let found = vm["status"]["printableStatus"] == word;
        let status = vm["status"].to_string();
        Ok(Look::of(found.then_some(vm), || status))
    })
}
