//! This node's own object: its labels decide what may run here, its heartbeat tells others that we live, and the id
//! beside it, which handler that is.
//!
//! Two hosts may have one name. So a handler takes its node's name as it takes VMIs, by a write that carries the
//! version that it was decided on, and only where no other handler has beaten lately. One that finds the name taken ends.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use rvm_server::observe::Pulse;
use rvm_types::names::{ARCHITECTURE, MACHINE, annotations, labels};
use rvm_types::{Claim, admission};
use serde_json::json;
use tokio::sync::watch;

use crate::plan::Me;

/// Pause after a heartbeat that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Label: its processors' model. For who asks a node for it.
const MODEL: &str = "cpu-model.node.kubevirt.io/rv64";

/// How often a heartbeat is tried while others write the node, too.
const TRIES: u32 = 8;

/// Longest name of a node: a label's value.
const MAX_NAME: usize = 63;

/// How this node shows itself.
#[derive(Debug, Clone)]
pub struct Register {
    /// The node's name.
    pub name: String,
    /// The id of its handler.
    pub handler: String,
    /// Where rvm-api reaches its handler: `HOST:PORT`, or `:PORT` at the node's own address.
    pub address: Option<String>,
    /// Make its object where there is none; elsewhere the kubelet makes it.
    pub create: bool,
    /// Machines run in pods here.
    pub in_pods: bool,
    /// Guests run by the hardware here.
    pub has_kvm: bool,
    /// Time between heartbeats.
    pub interval: Duration,
    /// How old the heartbeat of a dead node is.
    pub stale_after: Duration,
}

/// A heartbeat could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BeatError {
    /// The node is another handler's.
    #[error(
        "node '{node}' is served by another rvm-handler ({handler}, last heard of {silent} s ago): give this one another \
         name with --node, or, if that one is gone for good, start this one when it has been silent for {stale} s"
    )]
    Taken {
        /// The node.
        node: String,
        /// The other's id.
        handler: String,
        /// Seconds since its last heartbeat.
        silent: i64,
        /// Seconds after which it counts as gone.
        stale: u64,
    },
    /// The API's; a node that is not there is one, unless it is made.
    #[error("the node's heartbeat cannot be written")]
    Api(#[from] kube::Error),
}

// === impl Register ===

impl Register {
    /// Writes a heartbeat and reads what the node is like.
    ///
    /// # Errors
    /// Any [`BeatError`].
    pub async fn beat(&self, client: &Client) -> Result<Me, BeatError> {
        let api: Api<Node> = Api::all(client.clone());
        let mut tries = 1;
        loop {
            match self.try_beat(&api).await {
                Err(BeatError::Api(kube::Error::Api(status)))
                    if tries < TRIES && (status.is_conflict() || status.is_already_exists()) =>
                {
                    tries += 1;
                }
                done => return done.map(|node| self.me(&node)),
            }
        }
    }

    async fn try_beat(&self, api: &Api<Node>) -> Result<Node, BeatError> {
        let node = match api.get_opt(&self.name).await? {
            Some(node) => node,
            None if self.create => api.create(&PostParams::default(), &new_node(&self.name)).await?,
            // Says that it is not there.
            None => api.get(&self.name).await?,
        };
        self.require_free(&node, Timestamp::now())?;
        let patch = Patch::Merge(self.patch(&node));
        Ok(api.patch(&self.name, &PatchParams::default(), &patch).await?)
    }

    /// Beats until it works once, so that nobody takes us for dead before we begin.
    ///
    /// # Errors
    /// [`BeatError::Taken`].
    pub async fn first_beat(&self, client: &Client) -> Result<Me, BeatError> {
        loop {
            match self.beat(client).await {
                Err(BeatError::Api(error)) => {
                    tracing::warn!(node = self.name, %error, "the node's heartbeat cannot be written, trying again");
                    tokio::time::sleep(RETRY).await;
                }
                done => return done,
            }
        }
    }

    /// Beats until the node is another handler's, and tells when the node has changed.
    ///
    /// # Errors
    /// [`BeatError::Taken`].
    pub async fn keep_beating(
        &self,
        client: &Client,
        me: &watch::Sender<Me>,
        pulse: &Pulse,
    ) -> Result<(), BeatError> {
        loop {
            tokio::time::sleep(self.interval).await;
            let beaten = self.beat(client).await;
            pulse.beat(beaten.is_ok());
            match beaten {
                Ok(now) => {
                    me.send_if_modified(|before| {
                        let changed = *before != now;
                        *before = now;
                        changed
                    });
                }
                Err(BeatError::Api(error)) => {
                    tracing::warn!(node = self.name, %error, "the node's heartbeat cannot be written");
                }
                Err(taken) => return Err(taken),
            }
        }
    }

    fn require_free(&self, node: &Node, now: Timestamp) -> Result<(), BeatError> {
        let (Some(handler), Some(beat)) = (read_handler(node), read_heartbeat(node)) else {
            return Ok(());
        };
        let silent = now.duration_since(beat);
        let gone = Duration::try_from(silent).is_ok_and(|silent| silent >= self.stale_after);
        if handler == &self.handler || gone {
            return Ok(());
        }
        Err(BeatError::Taken {
            node: self.name.clone(),
            handler: handler.clone(),
            silent: silent.as_secs(),
            stale: self.stale_after.as_secs(),
        })
    }

    /// The heartbeat; it takes hold on the node as it was read, or not at all.
    fn patch(&self, node: &Node) -> serde_json::Value {
        json!({"metadata": {
            "resourceVersion": node.metadata.resource_version,
            "annotations": {
                annotations::HEARTBEAT: heartbeat(Timestamp::now()),
                annotations::HANDLER: self.handler,
                annotations::HANDLER_ADDRESS: self.address,
            },
            "labels": {
                labels::SCHEDULABLE: "true", MODEL: "true",
                labels::ACCELERATOR: if self.has_kvm { "kvm" } else { "tcg" },
                format!("{}{ARCHITECTURE}", labels::VM_ARCHITECTURE): "true",
                format!("{}{MACHINE}", labels::MACHINE_TYPE): "true",
            },
        }})
    }

    fn me(&self, node: &Node) -> Me {
        Me {
            node: self.name.clone(),
            handler: self.handler.clone(),
            labels: node.labels().clone(),
            cordoned: node
                .spec
                .as_ref()
                .and_then(|spec| spec.unschedulable)
                .unwrap_or(false),
            stale_after: self.stale_after,
            in_pods: self.in_pods,
        }
    }
}

/// When the handler that made a claim was last alive, as its node's object tells. None where it never was, or is gone, or where
/// the node is another handler's by now.
///
/// # Errors
/// The API's.
pub async fn last_beat(client: &Client, claim: Claim<'_>) -> kube::Result<Option<Timestamp>> {
    let node = Api::<Node>::all(client.clone()).get_opt(claim.node).await?;
    let node = node.filter(|node| read_handler(node).is_some_and(|handler| handler == claim.handler));
    Ok(node.as_ref().and_then(read_heartbeat))
}

/// What tells a cluster from every other, wherever its API is reached: the UID of a namespace that it has as long as it
/// exists. Asks until it is told.
pub async fn cluster_id(client: &Client, namespace: &str) -> String {
    let api: Api<Namespace> = Api::all(client.clone());
    loop {
        match api.get(namespace).await.map(|namespace| namespace.metadata.uid) {
            Ok(Some(uid)) => return uid,
            Ok(None) => tracing::warn!(namespace, "the cluster's namespace has no UID, asking again"),
            Err(error) => {
                tracing::warn!(namespace, %error, "the cluster cannot be asked who it is, trying again");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether a text can be a node's name, and so a label's value and a part of a claim.
pub fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && admission::is_name(text)
}

fn read_handler(node: &Node) -> Option<&String> {
    node.annotations().get(annotations::HANDLER)
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

    const BEATEN: i64 = 1_700_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A node that the handler `other` served then.
    fn taken(beaten: i64) -> Node {
        let mut node = new_node("a");
        let annotations = node.annotations_mut();
        annotations.insert(annotations::HANDLER.to_owned(), "other".to_owned());
        annotations.insert(annotations::HEARTBEAT.to_owned(), heartbeat(at(beaten)));
        node
    }

    fn register(handler: &str) -> Register {
        Register {
            name: "a".to_owned(),
            handler: handler.to_owned(),
            address: None,
            create: true,
            interval: Duration::from_secs(60),
            stale_after: Duration::from_secs(300),
            in_pods: false,
            has_kvm: false,
        }
    }

    #[test]
    fn a_name_that_another_living_handler_has_is_not_taken() {
        let refused = register("me")
            .require_free(&taken(BEATEN), at(BEATEN + 299))
            .unwrap_err();
        let text = refused.to_string();
        assert!(
            text.starts_with("node 'a' is served by another rvm-handler (other, last heard of 299 s ago)")
                && text.lines().count() == 1,
            "{text}"
        );
        // A clock that runs behind makes nobody dead.
        assert!(
            register("me")
                .require_free(&taken(BEATEN), at(BEATEN - 999))
                .is_err()
        );
    }

    #[test]
    fn a_name_is_free_to_the_one_who_has_it_and_after_a_long_silence() {
        assert!(
            register("other")
                .require_free(&taken(BEATEN), at(BEATEN + 1))
                .is_ok()
        );
        assert!(
            register("me")
                .require_free(&taken(BEATEN), at(BEATEN + 300))
                .is_ok()
        );
        assert!(register("me").require_free(&new_node("a"), at(BEATEN)).is_ok());
    }

    #[test]
    fn a_heartbeat_takes_hold_on_the_node_as_it_was_read() {
        let mut node = taken(BEATEN);
        node.metadata.resource_version = Some("7".to_owned());
        let patch = register("me").patch(&node);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["annotations"][annotations::HANDLER], "me");
    }

    #[test]
    fn only_what_kubernetes_takes_is_a_nodes_name() {
        assert!(["a", "n1", "node-1.example.org"].iter().all(|name| is_name(name)));
        assert!(
            ["", "A", "a/b", "a..b", "-a", "a.-b", "a_b"]
                .iter()
                .all(|name| !is_name(name))
        );
        assert!(!is_name(&"a".repeat(64)));
    }

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
