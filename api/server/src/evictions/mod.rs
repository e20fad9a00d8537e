//! What becomes of a machine whose pod somebody wants off its node (`kubectl drain`): its eviction strategy says, as with KubeVirt.
//!
//! ```text
//!   kubectl drain ─► pods/eviction ─► kube-apiserver ─┬─ asks here (a validating webhook)      may it go?
//!                                                     └─ looks at the PodDisruptionBudget      guard.rs
//! ```
//!
//! | strategy | a machine that cannot move, as none here can |
//! | --- | --- |
//! | none, `None` | its pod goes, and the machine ends as if its pod were deleted |
//! | `LiveMigrateIfPossible` | the same: it is not possible |
//! | `LiveMigrate` | stays, and whoever drains is told why |
//! | `External` | stays, and is told in `status.evacuationNodeName` that it should go: somebody else sees to that |
//!
//! A machine's own strategy counts, else the KubeVirt's (`configuration.evictionStrategy`). Where nobody answers here, evictions go on
//! and machines that are to stay are kept by their budgets alone.
//!
//! kube-apiserver shows webhooks no certificate, so whoever reaches this port may ask. What is done for them is the least: an instance
//! with the strategy `External`, which lives on that pod's node, is told once that it should go.

mod guard;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use kube::core::{DynamicObject, Status};
use kube::{Client, ResourceExt};
use rvm_types::names::{annotations, conditions, labels};
use rvm_types::{KubeVirt, VirtualMachineInstance, condition};
use serde_json::json;

pub use guard::guard;

/// Where kube-apiserver asks.
pub const PATH: &str = "/launcher-eviction-validate";
/// Field of a VMI's status: the node that it should leave.
const EVACUATION: &str = "evacuationNodeName";

/// What a machine's author wants of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nothing is done about it.
    Leave,
    /// It moves, or it stays.
    Migrate,
    /// It moves where it can.
    MigrateIfPossible,
    /// Somebody else moves it.
    External,
}

/// What is said of an eviction.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Goes,
    Stays(String),
    /// It stays, and the VMI is told that it should go.
    Told(String),
}

// === impl Strategy ===

impl Strategy {
    fn read(text: &str) -> Self {
        match text {
            "LiveMigrate" => Self::Migrate,
            "LiveMigrateIfPossible" => Self::MigrateIfPossible,
            "External" => Self::External,
            _ => Self::Leave,
        }
    }

    /// That of a VMI, in this cluster.
    ///
    /// # Errors
    /// The API's, where the VMI leaves it to the KubeVirt.
    pub async fn of(client: &Client, vmi: &VirtualMachineInstance) -> kube::Result<Self> {
        if let Some(own) = &vmi.spec.eviction_strategy {
            return Ok(Self::read(own));
        }
        let all: Api<KubeVirt> = Api::all(client.clone());
        let all = all.list(&ListParams::default()).await?.items;
        let settings = all.iter().filter_map(|one| one.spec.configuration.as_ref());
        let mut said = settings.filter_map(|one| one.extra.get("evictionStrategy")?.as_str());
        Ok(said.next().map_or(Self::Leave, Self::read))
    }
}

/// Answers kube-apiserver.
pub async fn review(
    State(client): State<Client>,
    asked: Result<Json<AdmissionReview<DynamicObject>>, JsonRejection>,
) -> Result<Json<AdmissionReview<DynamicObject>>, (StatusCode, String)> {
    let bad = |error: String| (StatusCode::BAD_REQUEST, error);
    let Json(asked) = asked.map_err(|rejection| bad(rejection.body_text()))?;
    let request: AdmissionRequest<DynamicObject> = asked
        .try_into()
        .map_err(|error: kube::core::admission::ConvertAdmissionReviewError| bad(error.to_string()))?;
    let namespace = request.namespace.clone().unwrap_or_default();
    let verdict = judged(&client, &namespace, &request.name, request.dry_run).await;
    let mut response = AdmissionResponse::from(&request);
    if let Verdict::Stays(why) | Verdict::Told(why) = verdict {
        response.allowed = false;
        response.result = Status::failure(&why, "TooManyRequests").with_code(429);
    }
    Ok(Json(response.into_review()))
}

async fn judged(client: &Client, namespace: &str, pod: &str, dry_run: bool) -> Verdict {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    // One that is not there, or cannot be read, is not ours to keep.
    let Ok(pod) = pods.get(pod).await else {
        return Verdict::Goes;
    };
    let Some(name) = machine(&pod) else {
        return Verdict::Goes;
    };
    let vmis: Api<VirtualMachineInstance> = Api::namespaced(client.clone(), namespace);
    let looked = async {
        let vmi = vmis.get(name).await?;
        let strategy = Strategy::of(client, &vmi).await?;
        Ok::<_, kube::Error>((vmi, strategy))
    };
    let (vmi, strategy) = match looked.await {
        Ok(looked) => looked,
        Err(error) => return Verdict::Stays(format!("kubevirt failed getting the vmi: {error}")),
    };
    let verdict = judge(&vmi, strategy, &pod);
    if !matches!(verdict, Verdict::Told(_)) || dry_run {
        return verdict;
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    // The one that was judged, and no namesake.
    let patch = json!({"metadata": {"uid": vmi.metadata.uid}, "status": {EVACUATION: node}});
    match vmis
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => verdict,
        Err(error) => Verdict::Stays(format!("kubevirt failed marking the vmi for eviction: {error}")),
    }
}

/// The name of the machine that a pod runs, if it runs one.
fn machine(pod: &Pod) -> Option<&str> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_ours = pod
        .labels()
        .get(labels::APP)
        .is_some_and(|app| app == "virt-launcher");
    let runs = !matches!(phase, Some("Succeeded" | "Failed"));
    pod.annotations()
        .get(annotations::DOMAIN)
        .filter(|_| is_ours && runs)
        .map(String::as_str)
}

fn judge(vmi: &VirtualMachineInstance, strategy: Strategy, pod: &Pod) -> Verdict {
    let name = vmi.name_any();
    let status = vmi.status.as_ref();
    let migratable =
        status.and_then(|status| condition::find(&status.conditions, conditions::LIVE_MIGRATABLE));
    let migratable = migratable.is_some_and(condition::Condition::is_true);
    match strategy {
        Strategy::Leave => return Verdict::Goes,
        Strategy::MigrateIfPossible if !migratable => return Verdict::Goes,
        Strategy::Migrate if !migratable => {
            return Verdict::Stays(format!(
                "VMI {name} is configured with an eviction strategy but is not live-migratable"
            ));
        }
        Strategy::Migrate | Strategy::MigrateIfPossible | Strategy::External => {}
    }
    let told = format!(
        "Eviction triggered evacuation of VMI \"{}/{name}\"",
        vmi.namespace().unwrap_or_default()
    );
    let marked = status.and_then(|status| status.extra.get(EVACUATION)?.as_str());
    if marked.is_some_and(|node| !node.is_empty()) {
        return Verdict::Stays(format!("Evacuation in progress: {told}"));
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if node.is_none() || vmi.node_name() != node {
        return Verdict::Stays("Eviction request for target Pod".to_owned());
    }
    Verdict::Told(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::sample;
    use serde_json::Value;

    fn judged(strategy: &str, status: Value) -> Verdict {
        let vmi = sample::with(json!({}), json!({}), status);
        judge(&vmi, Strategy::read(strategy), &sample::running())
    }

    #[test]
    fn who_cannot_move_goes_or_stays_as_its_strategy_says() {
        let here = || json!({"phase": "Running", "nodeName": "n1"});
        assert_eq!(judged("None", here()), Verdict::Goes);
        assert_eq!(judged("LiveMigrateIfPossible", here()), Verdict::Goes);
        let why = "VMI vm is configured with an eviction strategy but is not live-migratable";
        assert_eq!(judged("LiveMigrate", here()), Verdict::Stays(why.to_owned()));
        let told = "Eviction triggered evacuation of VMI \"default/vm\"";
        assert_eq!(judged("External", here()), Verdict::Told(told.to_owned()));
    }

    #[test]
    fn who_cannot_move_is_known_by_its_condition_as_by_its_silence() {
        let stays = |strategy: &str, says: &str| {
            let condition = json!({"type": "LiveMigratable", "status": says, "reason": "NotMigratable"});
            let status = json!({"phase": "Running", "nodeName": "n1", "conditions": [condition]});
            judged(strategy, status)
        };
        assert_eq!(stays("LiveMigrateIfPossible", "False"), Verdict::Goes);
        assert!(
            matches!(stays("LiveMigrate", "False"), Verdict::Stays(why) if why.ends_with("is not live-migratable"))
        );
        // What said so of itself would be asked to move.
        assert!(matches!(stays("LiveMigrate", "True"), Verdict::Told(_)));
    }

    #[test]
    fn who_was_told_is_not_told_again_and_another_nodes_machine_not_at_all() {
        let told = json!({"phase": "Running", "nodeName": "n1", "evacuationNodeName": "n1"});
        let again = "Evacuation in progress: Eviction triggered evacuation of VMI \"default/vm\"";
        assert_eq!(judged("External", told), Verdict::Stays(again.to_owned()));
        let elsewhere = json!({"phase": "Running", "nodeName": "n2"});
        let why = "Eviction request for target Pod";
        assert_eq!(judged("External", elsewhere), Verdict::Stays(why.to_owned()));
    }

    #[test]
    fn only_pods_of_machines_that_run_are_kept() {
        let pod = |labels: Value, phase: &str| {
            let annotations = json!({"kubevirt.io/domain": "vm"});
            let metadata = json!({"labels": labels, "annotations": annotations});
            sample::pod(&json!({"metadata": metadata, "status": {"phase": phase}}))
        };
        let ours = || json!({"kubevirt.io": "virt-launcher"});
        assert_eq!(machine(&pod(ours(), "Running")), Some("vm"));
        assert_eq!(machine(&pod(ours(), "Succeeded")), None);
        assert_eq!(machine(&pod(json!({"app": "web"}), "Running")), None);
    }
}
