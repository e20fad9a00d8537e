//! The custom resources of local mode: those of `kubevirt.io`, by the rules of `rvm-types`.

use std::sync::Arc;

use rvm_types::admission::{self, Path};
use rvm_types::hotplug;
use rvm_types::volume::Volume;
use rvm_types::{
    Phase, VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceReplicaSet,
    VirtualMachineInstanceStatus, condition,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::resource::{Admission, Resource, ResourceError};
use crate::status::Cause;

/// The kinds of `kubevirt.io` in all their versions: what the generated CRDs define, with what KubeVirt does beyond a CRD, which is
/// defaults, and checks of the whole machine.
pub fn kubevirt() -> Result<Vec<Resource>, ResourceError> {
    let kinds: [(_, Arc<dyn Admission>); 4] = [
        (rvm_types::crd::virtual_machine_instances(), Arc::new(VmiRules)),
        (rvm_types::crd::virtual_machines(), Arc::new(VmRules)),
        (rvm_types::crd::replica_sets(), Arc::new(SetRules)),
        (rvm_types::crd::kubevirts(), Arc::new(KubeVirtRules)),
    ];
    let mut resources = Vec::new();
    for (crd, rules) in kinds {
        resources.extend(Resource::from_crd(&crd, Some(&rules))?);
    }
    Ok(resources)
}

struct VmiRules;

struct VmRules;

struct SetRules;

struct KubeVirtRules;

impl Admission for VmiRules {
    /// What the author wrote stays as it was written, lists above all: `kubectl apply` compares them whole, and would find the
    /// same manifest changed each time if their items gained fields here. The handler fills in the rest for itself.
    ///
    /// A new VMI is Pending from the beginning, as with KubeVirt, whatever status its author wrote.
    fn default(&self, object: &mut Value, before: Option<&Value>) {
        // What cannot be read is left as it is; the schema or `validate` says why.
        let Ok(mut vmi) = VirtualMachineInstance::deserialize(&*object) else {
            return;
        };
        admission::default(&mut vmi);
        if let Ok(mut defaulted) = serde_json::to_value(&vmi) {
            // The types know one version; the object is of the one that its author chose.
            defaulted["apiVersion"] = object["apiVersion"].clone();
            fill(object, defaulted);
        }
        if before.is_none() {
            let mut status = VirtualMachineInstanceStatus::default();
            status.enter(Phase::Pending, condition::now());
            object["status"] = json!(status);
        }
    }

    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        if before.is_some_and(|before| is_another(before, object)) {
            let restricted = "update of VMI object is restricted";
            return vec![Cause::new("FieldValueNotSupported", "spec", restricted)];
        }
        judged(object, before, |vmi: &VirtualMachineInstance| {
            let mut causes = admission::validate(vmi);
            causes.extend(accounts(&vmi.spec.volumes, "spec.volumes"));
            causes
        })
    }
}

/// Whether a VMI would be another one than it was, in more than the volumes that come and go while it runs. What both leave out is the
/// same: what was stored had the defaults of its day.
fn is_another(before: &Value, object: &Value) -> bool {
    let fixed = |object: &Value| {
        let mut vmi = VirtualMachineInstance::deserialize(object).ok()?;
        admission::default(&mut vmi);
        Some(hotplug::fixed(&vmi.spec))
    };
    before.get("spec") != object.get("spec") && fixed(before) != fixed(object)
}

impl Admission for VmRules {
    /// Its defaults are filled in where an instance is made.
    fn default(&self, _object: &mut Value, _before: Option<&Value>) {}

    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        judged(object, before, |vm: &VirtualMachine| {
            let mut causes = admission::vm::validate(vm);
            let template = &vm.spec.template.spec;
            causes.extend(accounts(&template.volumes, "spec.template.spec.volumes"));
            causes
        })
    }
}

impl Admission for SetRules {
    /// Its defaults are filled in where an instance is made.
    fn default(&self, _object: &mut Value, _before: Option<&Value>) {}

    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        judged(object, before, |set: &VirtualMachineInstanceReplicaSet| {
            let mut causes = admission::replica_set::validate(set);
            let template = &set.spec.template.spec;
            causes.extend(accounts(&template.volumes, "spec.template.spec.volumes"));
            causes
        })
    }
}

impl Admission for KubeVirtRules {
    fn default(&self, _object: &mut Value, _before: Option<&Value>) {}

    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        judged(object, before, admission::kubevirt::validate)
    }
}

/// The volumes that need what only a cluster has.
fn accounts(volumes: &[Volume], path: &str) -> Vec<admission::Cause> {
    let path = Path::new(path);
    let named = volumes
        .iter()
        .enumerate()
        .filter(|(_, volume)| volume.service_account.is_some());
    named
        .map(|(index, _)| {
            let field = path.index(index).field("serviceAccount");
            field.not_supported("is not supported in local mode, which has no ServiceAccounts and nobody who would trust their tokens")
        })
        .collect()
}

/// What is said of an object at creation and when its spec changes; a status must get through whatever was allowed in before.
fn judged<K: DeserializeOwned>(
    object: &Value,
    before: Option<&Value>,
    judge: fn(&K) -> Vec<admission::Cause>,
) -> Vec<Cause> {
    if before.is_some_and(|before| before.get("spec") == object.get("spec")) {
        return Vec::new();
    }
    match K::deserialize(object) {
        Ok(object) => judge(&object).iter().map(cause).collect(),
        Err(error) => vec![Cause::new(
            "FieldValueInvalid",
            "spec",
            format!("Invalid value: {error}"),
        )],
    }
}

/// Takes over what is new in `defaulted`, except into lists that are there.
fn fill(object: &mut Value, defaulted: Value) {
    match (object, defaulted) {
        (Value::Object(fields), Value::Object(defaults)) => {
            for (name, value) in defaults {
                fill(fields.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(_), Value::Array(_)) => {}
        (object, defaulted) => *object = defaulted,
    }
}

fn cause(cause: &admission::Cause) -> Cause {
    // The message names the field for those who read it alone; in a Status the field stands before it anyway.
    let message = cause
        .message
        .strip_prefix(&cause.field)
        .map_or(cause.message.as_str(), str::trim_start);
    Cause::new(cause.reason.as_str(), cause.field.clone(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_needs_a_cluster_is_refused_by_its_field() {
        let volumes = json!([{"name": "id", "serviceAccount": {"serviceAccountName": "robot"}}]);
        let spec = json!({"domain": {"devices": {}, "memory": {"guest": "256Mi"}}, "volumes": volumes});
        let refused = |rules: &dyn Admission, object: Value| {
            let causes = rules.validate(&object, None).into_iter();
            causes
                .map(|cause| cause.field)
                .filter(|field| field.contains("volumes"))
                .collect::<Vec<_>>()
        };
        let vmi = json!({"metadata": {"name": "a"}, "spec": spec});
        assert_eq!(refused(&VmiRules, vmi), ["spec.volumes[0].serviceAccount"]);
        let vm =
            json!({"metadata": {"name": "a"}, "spec": {"runStrategy": "Halted", "template": {"spec": spec}}});
        assert_eq!(
            refused(&VmRules, vm),
            ["spec.template.spec.volumes[0].serviceAccount"]
        );
    }

    #[test]
    fn defaults_leave_written_lists_as_they_are() {
        let volumes = json!([{"name": "root", "containerDisk": {"image": "example/disk:1"}}]);
        let mut vmi = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
            "spec": {"domain": {"devices": {}, "memory": {"guest": "256Mi"}}, "networks": [], "volumes": volumes},
        });
        VmiRules.default(&mut vmi, None);
        assert_eq!(vmi["spec"]["volumes"], volumes);
        assert_eq!(vmi["spec"]["networks"], json!([]));
        assert_eq!(vmi["spec"]["architecture"], "riscv64");
        assert_eq!(vmi["spec"]["domain"]["devices"]["disks"][0]["name"], "root");
        let once = vmi.clone();
        VmiRules.default(&mut vmi, Some(&once));
        assert_eq!(vmi, once);
    }

    #[test]
    fn a_vmi_is_the_same_for_life_but_for_volumes_that_come_and_go() {
        let vmi = |devices: Value, volumes: Value| {
            let mut vmi = json!({
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
                "spec": {"domain": {"devices": devices, "memory": {"guest": "256Mi"}}, "volumes": volumes},
            });
            VmiRules.default(&mut vmi, None);
            vmi
        };
        let root = json!({"name": "root", "containerDisk": {"image": "example/disk:1"}});
        let plugged = json!({"name": "d", "persistentVolumeClaim": {"claimName": "d", "hotpluggable": true}});
        let (before, with) = (
            vmi(json!({}), json!([root])),
            vmi(json!({}), json!([root, plugged])),
        );
        assert_eq!(VmiRules.validate(&with, Some(&before)), []);
        assert_eq!(VmiRules.validate(&before, Some(&with)), []);
        let virtio = json!({"disks": [{"name": "d", "disk": {"bus": "virtio"}}]});
        let refused = VmiRules.validate(&vmi(virtio, json!([root, plugged])), Some(&with));
        assert_eq!(refused.len(), 1);
        let other = vmi(json!({"autoattachSerialConsole": false}), json!([root]));
        let messages = |object: &Value| -> Vec<String> {
            let causes = VmiRules.validate(object, Some(&before)).into_iter();
            causes.map(|cause| cause.message).collect()
        };
        assert_eq!(messages(&other), ["update of VMI object is restricted"]);
        assert_eq!(
            messages(&vmi(json!({}), json!([]))),
            ["update of VMI object is restricted"]
        );
    }

    #[test]
    fn a_new_vmi_is_pending_whatever_its_author_wrote() {
        let mut vmi = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
            "spec": {"domain": {"devices": {}, "memory": {"guest": "256Mi"}}},
            "status": {"phase": "Running", "nodeName": "elsewhere"},
        });
        VmiRules.default(&mut vmi, None);
        assert_eq!(vmi["status"]["phase"], "Pending");
        assert_eq!(vmi["status"]["nodeName"], Value::Null);
        let running = json!({"phase": "Running", "nodeName": "n1"});
        vmi["status"] = running.clone();
        let before = vmi.clone();
        VmiRules.default(&mut vmi, Some(&before));
        assert_eq!(vmi["status"], running);
    }
}
