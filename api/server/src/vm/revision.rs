//! What an instance was made from, kept as KubeVirt keeps it: a `ControllerRevision` that the VM owns, with the VM's spec in it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Resource;
use rvm_types::names::labels::CREATED_BY;
use rvm_types::vm::Template;
use rvm_types::{VirtualMachine, VirtualMachineSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    spec: VirtualMachineSpec,
}

/// The name of the revision of a generation of a VM.
pub fn name(vm: &VirtualMachine, generation: i64) -> String {
    rvm_types::vm::revision_name(uid(vm), generation)
}

/// Selects the revisions of a VM.
pub fn selector(vm: &VirtualMachine) -> String {
    format!("{CREATED_BY}={}", uid(vm))
}

fn uid(vm: &VirtualMachine) -> &str {
    vm.metadata.uid.as_deref().unwrap_or_default()
}

/// The revision of a VM as it is now.
pub fn of(vm: &VirtualMachine) -> ControllerRevision {
    let generation = vm.metadata.generation.unwrap_or_default();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name(vm, generation)),
            namespace: vm.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([(CREATED_BY.to_owned(), uid(vm).to_owned())])),
            owner_references: vm.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(json!({ "spec": vm.spec }))),
        revision: generation,
    }
}

/// The template in a revision; none if somebody else wrote something else there.
pub fn template(revision: ControllerRevision) -> Option<Template> {
    let kept: Kept = serde_json::from_value(revision.data?.0).ok()?;
    Some(kept.spec.template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::sample::machine;

    #[test]
    fn a_revision_gives_its_template_back() {
        let vm = machine("Always");
        let revision = of(&vm);
        assert_eq!(
            revision.metadata.name.as_deref(),
            Some("revision-start-vm-vm-uid-3")
        );
        assert_eq!(template(revision), Some(vm.spec.template));
    }
}
