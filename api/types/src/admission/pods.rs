//! What can be wrong with a VMI whose machine runs in a pod: what a pod can do besides is no mistake, and what cannot be done in one
//! is.

use super::{Cause, Path, validate};
use crate::VirtualMachineInstance;

/// Fields that are the pod's, and that the cluster judges.
const OF_POD: [&str; 7] = [
    "spec.affinity",
    "spec.dnsConfig",
    "spec.livenessProbe",
    "spec.readinessProbe",
    "spec.resourceClaims",
    "spec.schedulerName",
    "spec.topologySpreadConstraints",
];

/// A volume that each machine's pod has, where rvmm waits.
pub const OWN_VOLUME: &str = "run";

/// All that is wrong with a VMI whose machine is to be in a pod, or cannot be done there.
pub fn validate_in_pods(vmi: &VirtualMachineInstance) -> Vec<Cause> {
    let mut causes = validate(vmi);
    causes.retain(|cause| !OF_POD.contains(&cause.field.as_str()));
    for (index, volume) in vmi.spec.volumes.iter().enumerate() {
        let claims = volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
        if claims && volume.name == OWN_VOLUME {
            let path = Path::new("spec.volumes").index(index).field("name");
            causes.push(path.invalid(format_args!(
                "is {OWN_VOLUME:?}, which the pod has as a volume of its own"
            )));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn causes(spec: &Value) -> Vec<String> {
        let mut vmi = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "vm"},
            "spec": {"domain": {"devices": {"interfaces": [{"name": "default", "masquerade": {}}]},
                                "memory": {"guest": "128Mi"}},
                     "networks": [{"name": "default", "pod": {}}]},
        });
        for (field, value) in spec.as_object().unwrap() {
            vmi["spec"][field] = value.clone();
        }
        let mut vmi: VirtualMachineInstance = serde_json::from_value(vmi).unwrap();
        crate::admission::default(&mut vmi);
        let causes = validate_in_pods(&vmi);
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn what_a_pod_can_do_is_no_mistake_and_what_it_cannot_is_named() {
        let none: [&str; 0] = [];
        let before = causes(&json!({}));
        let with = |spec| {
            causes(&spec)
                .into_iter()
                .filter(|cause| !before.contains(cause))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            with(json!({"affinity": {"nodeAffinity": {}}, "readinessProbe": {"httpGet": {"port": 80}}})),
            none
        );
        assert_eq!(with(json!({"livenessProbe": {"guestAgentPing": {}}})), none);
        assert_eq!(
            with(json!({"livenessProbe": {"exec": {"command": ["true"]}}})),
            none
        );
        let named =
            |name: &str| json!({"volumes": [{"name": name, "persistentVolumeClaim": {"claimName": "c"}}]});
        assert_eq!(with(named("run")), ["spec.volumes[0].name"]);
        assert_eq!(with(named("data")), none);
    }
}
