//! This node's own object: its labels decide what may run here, its heartbeat tells others that we live.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use rvm_types::names::{ARCHITECTURE, annotations, labels};
use serde_json::json;
use tokio::sync::watch;

use crate::plan::Me;

/// Pause after a heartbeat that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Label: machines of this architecture may be put here.
const VM_ARCH: &str = "kubevirt.io/vm-arch-";

/// How this node shows itself.
#[derive(Debug, Clone)]
pub struct Register {
    /// The node's name.
    pub name: String,
    /// Make its object where there is none; elsewhere the kubelet makes it.
    pub create: bool,
    /// Time between heartbeats.
    pub interval: Duration,
    /// How old the heartbeat of a dead node is.
    pub stale_after: Duration,
}

// === impl Register ===

impl Register {
    /// Writes a heartbeat and reads what the node is like.
    ///
    /// # Errors
    /// The API's; a node that is not there is one, unless it is made.
    pub async fn beat(&self, client: &Client) -> kube::Result<Me> {
        let api: Api<Node> = Api::all(client.clone());
        let patch = json!({"metadata": {
            "annotations": {annotations::HEARTBEAT: heartbeat(Timestamp::now())},
            "labels": {labels::SCHEDULABLE: "true", format!("{VM_ARCH}{ARCHITECTURE}"): "true"},
        }});
        let params = PatchParams::default();
        let beaten = match api.patch(&self.name, &params, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() && self.create => {
                api.create(&PostParams::default(), &new_node(&self.name)).await?;
                api.patch(&self.name, &params, &Patch::Merge(&patch)).await
            }
            beaten => beaten,
        };
        beaten.map(|node| self.me(&node))
    }

    /// Beats until it works once, so that nobody takes us for dead before we begin.
    pub async fn first_beat(&self, client: &Client) -> Me {
        loop {
            match self.beat(client).await {
                Ok(me) => return me,
                Err(error) => {
                    tracing::warn!(node = self.name, %error, "the node's heartbeat cannot be written, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Beats for ever, and tells when the node has changed.
    pub async fn keep_beating(&self, client: &Client, me: &watch::Sender<Me>) {
        loop {
            tokio::time::sleep(self.interval).await;
            match self.beat(client).await {
                Ok(now) => {
                    me.send_if_modified(|before| {
                        let changed = *before != now;
                        *before = now;
                        changed
                    });
                }
                Err(error) => {
                    tracing::warn!(node = self.name, %error, "the node's heartbeat cannot be written");
                }
            }
        }
    }

    fn me(&self, node: &Node) -> Me {
        Me {
            node: self.name.clone(),
            labels: node.labels().clone(),
            cordoned: node
                .spec
                .as_ref()
                .and_then(|spec| spec.unschedulable)
                .unwrap_or(false),
            stale_after: self.stale_after,
        }
    }
}

/// When the handler of a node was last alive, as its object tells. None where it never was, or is gone.
///
/// # Errors
/// The API's.
pub async fn last_beat(client: &Client, name: &str) -> kube::Result<Option<Timestamp>> {
    let node = Api::<Node>::all(client.clone()).get_opt(name).await?;
    Ok(node.as_ref().and_then(read_heartbeat))
}

fn read_heartbeat(node: &Node) -> Option<Timestamp> {
    node.annotations().get(annotations::HEARTBEAT)?.parse().ok()
}

/// A time to the second, as KubeVirt writes it.
fn heartbeat(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn new_node(name: &str) -> Node {
    let own = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        (labels::ARCHITECTURE, host_architecture()),
    ];
    Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from(
                own.map(|(key, value)| (key.to_owned(), value.to_owned())),
            )),
            ..ObjectMeta::default()
        },
        ..Node::default()
    }
}

/// The host's architecture, as Go and so Kubernetes calls it.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_read_back_as_it_was_written() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let mut node = new_node("a");
        node.annotations_mut()
            .insert(annotations::HEARTBEAT.to_owned(), heartbeat(now));
        assert_eq!(heartbeat(now), "2023-11-14T22:13:20Z");
        assert_eq!(read_heartbeat(&node), Some(now));
    }

    #[test]
    fn nonsense_in_a_heartbeat_is_no_heartbeat() {
        let mut node = new_node("a");
        assert_eq!(read_heartbeat(&node), None);
        node.annotations_mut()
            .insert(annotations::HEARTBEAT.to_owned(), "soon".to_owned());
        assert_eq!(read_heartbeat(&node), None);
    }
}
