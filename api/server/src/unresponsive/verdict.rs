//! What a node's silence means for it and for its VMIs. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use rvm_types::condition::{self, Condition, FALSE};
use rvm_types::names::{annotations, conditions, finalizers, reasons};
use rvm_types::status::PhaseTransition;
use rvm_types::{Claim, Phase, VirtualMachineInstance};
use serde_json::{Value, json};

/// By which people say that a node is down and stays down (Kubernetes, "Non-graceful node shutdown").
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Its handler beats, or it never had one.
    Well,
    /// Its handler does not.
    Silent,
    /// Its handler does not, and somebody has said that it will not again.
    Out,
}

/// What a VMI has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its handler's voice: nobody knows how it is.
    Silent,
    /// Its node, and so its machine.
    Gone,
}

// === impl Loss ===

impl Loss {
    /// In words for its owner.
    pub fn told(self, node: &str) -> String {
        match self {
            Self::Silent => format!(
                "The rvm-handler of node {node} is not responsive; nobody knows how the machine is. If the node is down for good, \
                 delete it, or give it the taint {OUT_OF_SERVICE}."
            ),
            Self::Gone => format!("Node {node} is gone, and the machine with it."),
        }
    }
}

/// How a node is whose handler may be silent for so long.
pub fn health(node: &Node, limit: Duration, now: Timestamp) -> Health {
    let beat = node.annotations().get(annotations::HEARTBEAT);
    let beat = beat.and_then(|beat| beat.parse::<Timestamp>().ok());
    // A clock that runs ahead makes nobody dead.
    let silent = beat.and_then(|beat| Duration::try_from(now.duration_since(beat)).ok());
    if silent.is_none_or(|silent| silent < limit) {
        return Health::Well;
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let is_out = taints.is_some_and(|taints| taints.iter().any(|taint| taint.key == OUT_OF_SERVICE));
    if is_out { Health::Out } else { Health::Silent }
}

/// The write that tells a VMI of this node what it has lost; none where there is nothing to tell.
pub fn patch(vmi: &VirtualMachineInstance, node: &str, loss: Loss, now: Timestamp) -> Option<Value> {
    // Its label may be anybody's word.
    if Claim::on(vmi).is_none_or(|claim| claim.node != node) {
        return None;
    }
    let is_over = matches!(vmi.phase(), Some(Phase::Succeeded | Phase::Failed));
    let mut patch = json!({"metadata": {
        "uid": vmi.metadata.uid, "resourceVersion": vmi.metadata.resource_version,
    }});
    let mut has_news = false;
    // Nobody else would let go of it.
    if loss == Loss::Gone && vmi.metadata.deletion_timestamp.is_some() {
        let held = vmi.finalizers();
        let left: Vec<&String> = held
            .iter()
            .filter(|held| *held != finalizers::FOREGROUND_DELETE)
            .collect();
        if left.len() < held.len() {
            patch["metadata"]["finalizers"] = json!(left);
            has_news = true;
        }
    }
    if !is_over && let Some(status) = status(vmi, node, loss, now) {
        patch["status"] = status;
        has_news = true;
    }
    has_news.then_some(patch)
}

fn status(vmi: &VirtualMachineInstance, node: &str, loss: Loss, now: Timestamp) -> Option<Value> {
    let now = Timestamp::from_second(now.as_second()).ok().map(Time);
    let mut status = vmi.status.clone().unwrap_or_default();
    let mut ready =
        Condition::new(conditions::READY, FALSE).because(reasons::NODE_UNRESPONSIVE, loss.told(node));
    ready.last_transition_time = now.clone();
    let has_news = condition::upsert(&mut status.conditions, ready);
    if loss == Loss::Silent {
        return has_news.then(|| json!({"conditions": status.conditions}));
    }
    status.phase_transition_timestamps.push(PhaseTransition {
        phase: Some(Phase::Failed),
        phase_transition_timestamp: now,
        ..PhaseTransition::default()
    });
    Some(json!({
        "phase": Phase::Failed, "reason": reasons::NODE_UNRESPONSIVE, "conditions": status.conditions,
        "phaseTransitionTimestamps": status.phase_transition_timestamps,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    fn node(beat: &str, taints: &Value) -> Node {
        let node = json!({
            "metadata": {"name": "n1", "annotations": {annotations::HEARTBEAT: beat}}, "spec": {"taints": taints},
        });
        serde_json::from_value(node).unwrap()
    }

    fn vmi(phase: &str, deleted: Option<&str>) -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {
                "name": "a", "uid": "u", "resourceVersion": "7", "deletionTimestamp": deleted,
                "annotations": {annotations::CLAIM: "n1/h/u"}, "finalizers": ["of/another", finalizers::FOREGROUND_DELETE],
            },
            "spec": {"domain": {"devices": {}}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_node_is_silent_when_its_last_beat_is_as_old_as_the_limit() {
        let beats = [
            ("2026-01-01T00:05:01Z", Health::Well),
            ("2026-01-01T00:05:00Z", Health::Silent),
            ("2026-01-01T09:00:00Z", Health::Well),
            ("never", Health::Well),
        ];
        for (beat, health) in beats {
            assert_eq!(
                super::health(&node(beat, &json!([])), LIMIT, now()),
                health,
                "{beat}"
            );
        }
    }

    #[test]
    fn whoever_beats_is_not_out_of_service_whatever_its_taints_say() {
        let taints = json!([{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]);
        assert_eq!(
            health(&node("2026-01-01T00:09:00Z", &taints), LIMIT, now()),
            Health::Well
        );
        assert_eq!(
            health(&node("2026-01-01T00:00:00Z", &taints), LIMIT, now()),
            Health::Out
        );
    }

    #[test]
    fn silence_is_told_once_and_fails_nobody() {
        let mut told = vmi("Running", None);
        let patch = patch(&told, "n1", Loss::Silent, now()).unwrap();
        assert_eq!(patch["status"]["phase"], Value::Null);
        assert_eq!(patch["status"]["conditions"][0]["reason"], "NodeUnresponsive");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let conditions = serde_json::from_value(patch["status"]["conditions"].clone()).unwrap();
        told.status.as_mut().unwrap().conditions = conditions;
        assert_eq!(super::patch(&told, "n1", Loss::Silent, now()), None);
    }

    #[test]
    fn whose_node_is_gone_has_failed_and_may_be_forgotten() {
        let running = patch(&vmi("Running", None), "n1", Loss::Gone, now()).unwrap();
        assert_eq!(running["status"]["phase"], "Failed");
        assert_eq!(running["status"]["reason"], "NodeUnresponsive");
        assert_eq!(
            running["status"]["phaseTransitionTimestamps"][0]["phase"],
            "Failed"
        );
        assert_eq!(running["metadata"]["finalizers"], Value::Null);
        let ended = patch(
            &vmi("Succeeded", Some("2026-01-01T00:00:00Z")),
            "n1",
            Loss::Gone,
            now(),
        )
        .unwrap();
        assert_eq!(ended["metadata"]["finalizers"], json!(["of/another"]));
        assert_eq!(ended["status"], Value::Null);
        assert_eq!(patch(&vmi("Failed", None), "n1", Loss::Gone, now()), None);
    }

    #[test]
    fn a_label_that_the_claim_does_not_bear_out_is_not_believed() {
        assert_eq!(patch(&vmi("Running", None), "n2", Loss::Gone, now()), None);
        let mut copied = vmi("Running", None);
        copied.metadata.uid = Some("other".to_owned());
        assert_eq!(patch(&copied, "n1", Loss::Gone, now()), None);
    }
}
