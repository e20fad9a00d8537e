//! What is said of a KubeVirt that nobody could mean so.
//!
//! Its settings are kept and not followed, but a field that KubeVirt has never heard of is a typing mistake here, too.

use super::{Cause, Path};
use crate::Extra;
use crate::kubevirt::KubeVirt;

/// The fields of a KubeVirt's spec, besides those that are modelled.
const FIELDS: [&str; 17] = [
    "certificateRotateStrategy",
    "customizeComponents",
    "imagePullPolicy",
    "imagePullSecrets",
    "imageRegistry",
    "imageTag",
    "infra",
    "monitorAccount",
    "monitorNamespace",
    "productComponent",
    "productName",
    "productVersion",
    "serviceMonitorNamespace",
    "synchronizationPort",
    "uninstallStrategy",
    "workloadUpdateStrategy",
    "workloads",
];
/// The fields of its configuration.
const SETTINGS: [&str; 43] = [
    "additionalGuestMemoryOverheadRatio",
    "apiConfiguration",
    "architectureConfiguration",
    "autoCPULimitNamespaceLabelSelector",
    "changedBlockTrackingLabelSelectors",
    "commonInstancetypesDeployment",
    "confidentialCompute",
    "controllerConfiguration",
    "cpuModel",
    "cpuRequest",
    "defaultRuntimeClass",
    "developerConfiguration",
    "emulatedMachines",
    "evictionStrategy",
    "handlerConfiguration",
    "hypervisors",
    "imagePullPolicy",
    "instancetype",
    "ksmConfiguration",
    "liveUpdateConfiguration",
    "machineType",
    "mediatedDevicesConfiguration",
    "memBalloonStatsPeriod",
    "migrations",
    "minCPUModel",
    "network",
    "obsoleteCPUModels",
    "ovmfPath",
    "permittedHostDevices",
    "persistentReservationConfiguration",
    "roleAggregationStrategy",
    "seccompConfiguration",
    "selinuxLauncherType",
    "smbios",
    "supportContainerResources",
    "supportedGuestAgentVersions",
    "tlsConfiguration",
    "virtTemplateDeployment",
    "virtualMachineInstancesPerNode",
    "virtualMachineOptions",
    "vmRolloutStrategy",
    "vmStateStorageClass",
    "webhookConfiguration",
];

/// Names every field that is none.
pub fn validate(kubevirt: &KubeVirt) -> Vec<Cause> {
    let spec = Path::new("spec");
    let mut causes = unknown(&kubevirt.spec.extra, &FIELDS, &spec);
    if let Some(configuration) = &kubevirt.spec.configuration {
        causes.extend(unknown(
            &configuration.extra,
            &SETTINGS,
            &spec.field("configuration"),
        ));
    }
    causes
}

fn unknown(fields: &Extra, known: &[&str], path: &Path) -> Vec<Cause> {
    let strange = fields.keys().filter(|name| !known.contains(&name.as_str()));
    strange
        .map(|name| path.field(name).invalid("is not a field of a KubeVirt"))
        .collect()
}
