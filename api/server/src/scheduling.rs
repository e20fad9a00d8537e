//! VMIs that no node can take are told so.
//!
//! ```text
//!   a VMI waits, claimed by nobody ─► which nodes could take it? ─┬─ one can: it is given time
//!                                                                └─ none:    PodScheduled=False and why; an event
//! ```
//!
//! Handlers claim VMIs themselves, each for its own node, and none of them knows of the others. What is said here chooses
//! nothing and keeps nobody from a claim: a node that comes, or gains a label, takes the VMI, and its handler takes the
//! words back. Words and condition are those of a pod that waits for a scheduler, since tools look for them there.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use rvm_types::condition::{self, Condition, FALSE};
use rvm_types::names::{annotations, conditions, events, labels, reasons};
use rvm_types::{Phase, VirtualMachineInstance};
use serde_json::json;

use crate::story::{Story, event};

/// What a handler has to claim a VMI before anybody wonders.
const PATIENCE: Duration = Duration::from_secs(2);
/// VMIs that are looked at at once.
const CONCURRENCY: u16 = 4;
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(5);

/// What is to be said of a VMI.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Nothing: it does not wait, or a node can take it.
    Nothing,
    /// Nothing before this much time.
    NotBefore(Duration),
    /// No node can, and why.
    Nowhere(String),
}

struct Context {
    client: Client,
    story: Story,
}

/// Follows the VMIs of the cluster until `shutdown` is done.
pub async fn run(client: Client, shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
    let vmis: Api<VirtualMachineInstance> = Api::all(client.clone());
    let nodes: Api<Node> = Api::all(client.clone());
    let story = Story::new(&client);
    let context = Arc::new(Context { client, story });
    let controller = Controller::new(vmis, watcher::Config::default());
    let known = controller.store();
    // What changes at a node is news for who waits.
    let waiting = move |_: Node| {
        let all = known.state().into_iter();
        let waiting = all.filter(|vmi| waits(vmi));
        waiting.map(|vmi| ObjectRef::from_obj(&*vmi)).collect::<Vec<_>>()
    };
    controller
        .watches(nodes, watcher::Config::default(), waiting)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(reconcile, |_, _, _| Action::requeue(RETRY), context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "whether a VMI has a node was not found out");
            }
        })
        .await;
}

async fn reconcile(vmi: Arc<VirtualMachineInstance>, context: Arc<Context>) -> kube::Result<Action> {
    if !waits(&vmi) {
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    if let Verdict::NotBefore(time) = judge(&vmi, &[], now) {
        return Ok(Action::requeue(time));
    }
    let nodes: Api<Node> = Api::all(context.client.clone());
    let nodes = nodes.list(&ListParams::default().match_any()).await?.items;
    if let Verdict::Nowhere(why) = judge(&vmi, &nodes, now) {
        context.tell(&vmi, why, now).await?;
    }
    Ok(Action::await_change())
}

// === impl Context ===

impl Context {
    /// Writes the condition, and an event where that is news.
    async fn tell(&self, vmi: &VirtualMachineInstance, why: String, now: Timestamp) -> kube::Result<()> {
        let mut conditions = vmi.status.clone().unwrap_or_default().conditions;
        let mut told =
            Condition::new(conditions::POD_SCHEDULED, FALSE).because(reasons::UNSCHEDULABLE, why.clone());
        told.last_transition_time = Timestamp::from_second(now.as_second()).ok().map(Time);
        if !condition::upsert(&mut conditions, told) {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": vmi.metadata.uid, "resourceVersion": vmi.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let vmis: Api<VirtualMachineInstance> =
            Api::namespaced(self.client.clone(), &vmi.namespace().unwrap_or_default());
        let written = vmis
            .patch(&vmi.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match written {
            // A handler was faster, or it is gone: the next look tells.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => return Ok(()),
            written => written.map(drop)?,
        }
        let event = Event {
            action: "Scheduling".to_owned(),
            ..event(EventType::Warning, events::FAILED_SCHEDULING, why)
        };
        self.story.tell(vmi, event).await;
        Ok(())
    }
}

/// Whether a VMI waits for a node to claim it.
fn waits(vmi: &VirtualMachineInstance) -> bool {
    let claim = vmi
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(annotations::CLAIM));
    claim.is_none() && vmi.phase() == Some(&Phase::Pending) && vmi.metadata.deletion_timestamp.is_none()
}

/// What is to be said of a VMI that waits.
fn judge(vmi: &VirtualMachineInstance, nodes: &[Node], now: Timestamp) -> Verdict {
    let age = vmi
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|created| now.duration_since(created.0));
    let age = age
        .and_then(|age| Duration::try_from(age).ok())
        .unwrap_or_default();
    if age < PATIENCE {
        return Verdict::NotBefore(PATIENCE - age);
    }
    let mut obstacles: BTreeMap<&str, usize> = BTreeMap::new();
    for node in nodes {
        match obstacle(vmi, node) {
            None => return Verdict::Nothing,
            Some(obstacle) => *obstacles.entry(obstacle).or_default() += 1,
        }
    }
    let told = obstacles
        .iter()
        .map(|(obstacle, count)| format!("{count} {obstacle}"));
    let told: Vec<String> = told.collect();
    let why = if told.is_empty() {
        String::new()
    } else {
        format!(": {}", told.join(", "))
    };
    Verdict::Nowhere(format!("0/{} nodes are available{why}.", nodes.len()))
}

/// Why a node cannot take a VMI, in the scheduler's words where it has some.
fn obstacle(vmi: &VirtualMachineInstance, node: &Node) -> Option<&'static str> {
    let none = BTreeMap::new();
    let has = node.metadata.labels.as_ref().unwrap_or(&none);
    if has.get(labels::SCHEDULABLE).map(String::as_str) != Some("true") {
        return Some("node(s) had no rvm-handler that takes virtual machines");
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        return Some("node(s) were unschedulable");
    }
    (!vmi.suits(has)).then_some("node(s) didn't match Pod's node affinity/selector")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().unwrap()
    }

    fn waiting(created: &str) -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a", "creationTimestamp": created},
            "spec": {"domain": {"devices": {}}, "nodeSelector": {"disk": "ssd"}},
            "status": {"phase": "Pending"},
        }))
        .unwrap()
    }

    fn node(labels: &serde_json::Value, unschedulable: bool) -> Node {
        let node = json!({"metadata": {"labels": labels}, "spec": {"unschedulable": unschedulable}});
        serde_json::from_value(node).unwrap()
    }

    fn long_ago() -> VirtualMachineInstance {
        waiting("2026-01-01T00:00:00Z")
    }

    #[test]
    fn whoever_has_just_come_is_given_time() {
        let young = waiting("2026-01-01T00:00:59Z");
        assert_eq!(
            judge(&young, &[], now()),
            Verdict::NotBefore(Duration::from_secs(1))
        );
    }

    #[test]
    fn nothing_is_said_where_a_node_will_do() {
        let nodes = [
            node(&json!({}), false),
            node(&json!({"kubevirt.io/schedulable": "true", "disk": "ssd"}), false),
        ];
        assert_eq!(judge(&long_ago(), &nodes, now()), Verdict::Nothing);
    }

    #[test]
    fn each_obstacle_is_counted() {
        let nodes = [
            node(&json!({"kubevirt.io/schedulable": "true", "disk": "tape"}), false),
            node(&json!({"kubevirt.io/schedulable": "true", "disk": "ssd"}), true),
            node(&json!({"kubevirt.io/schedulable": "true"}), false),
            node(&json!({"disk": "ssd"}), false),
        ];
        let told = "0/4 nodes are available: 2 node(s) didn't match Pod's node affinity/selector, \
                    1 node(s) had no rvm-handler that takes virtual machines, 1 node(s) were unschedulable.";
        assert_eq!(
            judge(&long_ago(), &nodes, now()),
            Verdict::Nowhere(told.to_owned())
        );
        let none = Verdict::Nowhere("0/0 nodes are available.".to_owned());
        assert_eq!(judge(&long_ago(), &[], now()), none);
    }

    #[test]
    fn only_who_is_claimed_by_nobody_waits() {
        assert!(waits(&long_ago()));
        let mut claimed = long_ago();
        let claim = (annotations::CLAIM.to_owned(), "n1/h/u".to_owned());
        claimed.metadata.annotations = Some([claim].into());
        assert!(!waits(&claimed));
        let mut running = long_ago();
        running.status.as_mut().unwrap().phase = Some(Phase::Running);
        assert!(!waits(&running));
    }
}
