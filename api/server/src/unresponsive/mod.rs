//! Nodes whose handler has fallen silent, and nodes that are no more.
//!
//! ```text
//!   heartbeat older than the limit ─► node: schedulable=false; its VMIs: Ready=False, NodeUnresponsive
//!   it beats again                 ─► its handler says of both what is so
//!   the Node is gone for as long, or is out of service ─► its VMIs have failed, and nothing keeps them from being deleted
//! ```
//!
//! A handler that is silent says nothing of its machines: they outlive it, and a second one of a machine that still runs would
//! break its disks. So silence alone fails nobody; KubeVirt, too, waits until a machine's pod is gone. That a node is no more is
//! told as it is for pods: somebody deletes the Node, or gives it the taint `node.kubernetes.io/out-of-service`.
//!
//! This is a round every so often and follows nothing: whatever it would say is minutes late by its nature.

mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::{Duration, Instant};

use futures::future::{self, Either};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Client, ResourceExt};
use rvm_types::VirtualMachineInstance;
use rvm_types::names::{labels, reasons};
use serde_json::{Value, json};

use crate::story::{Story, event};
use verdict::{Health, Loss};

/// Rounds in the time that a node may be silent.
const ROUNDS: u32 = 5;
/// The shortest time between two rounds.
const SHORTEST: Duration = Duration::from_secs(1);
/// VMIs that are asked for at once.
const PAGE: u32 = 500;

/// Looks after the nodes of a cluster until `shutdown` is done. Their handlers may be silent for `limit`.
pub async fn run(client: Client, limit: Duration, shutdown: impl Future<Output = ()>) {
    let story = Story::new(&client);
    let mut watched = Watched {
        client,
        story,
        limit,
        missed: BTreeMap::new(),
    };
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let pause = tokio::time::sleep((limit / ROUNDS).max(SHORTEST));
        if let Either::Left(_) = future::select(shutdown.as_mut(), std::pin::pin!(pause)).await {
            return;
        }
        if let Err(error) = watched.round().await {
            tracing::warn!(%error, "the nodes could not be looked after, trying again");
        }
    }
}

struct Watched {
    client: Client,
    story: Story,
    limit: Duration,
    /// Nodes of VMIs that have no object, and since when.
    missed: BTreeMap<String, Instant>,
}

// === impl Watched ===

impl Watched {
    async fn round(&mut self) -> kube::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        // From the API server's memory: nothing here is in a hurry.
        let all = nodes.list(&ListParams::default().match_any()).await?.items;
        let now = Timestamp::now();
        for node in &all {
            match verdict::health(node, self.limit, now) {
                Health::Well => {}
                Health::Silent => {
                    self.close(&nodes, node).await?;
                    self.lose(&node.name_any(), Loss::Silent, now).await?;
                }
                Health::Out => self.lose(&node.name_any(), Loss::Gone, now).await?,
            }
        }
        let known = all.iter().map(ResourceExt::name_any).collect();
        for node in self.gone(known).await? {
            self.lose(&node, Loss::Gone, now).await?;
        }
        Ok(())
    }

    /// Keeps others from waiting for a node. Its handler takes that back with its next heartbeat.
    async fn close(&self, nodes: &Api<Node>, node: &Node) -> kube::Result<()> {
        if node.labels().get(labels::SCHEDULABLE).map(String::as_str) != Some("true") {
            return Ok(());
        }
        tracing::warn!(node = node.name_any(), "its rvm-handler is silent");
        let patch = json!({"metadata": {
            "resourceVersion": node.metadata.resource_version,
            "labels": {labels::SCHEDULABLE: "false"},
        }});
        let written = nodes
            .patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await;
        unless_outrun(written).map(drop)
    }

    /// The nodes that VMIs are on and that have had no object for as long as a handler may be silent.
    async fn gone(&mut self, known: BTreeSet<String>) -> kube::Result<Vec<String>> {
        let vmis: Api<VirtualMachineInstance> = Api::all(self.client.clone());
        let mut page = ListParams::default().labels(labels::NODE_NAME).limit(PAGE);
        let mut missing = BTreeSet::new();
        loop {
            let found = vmis.list_metadata(&page).await?;
            let named = found
                .items
                .iter()
                .filter_map(|vmi| vmi.labels().get(labels::NODE_NAME));
            missing.extend(named.filter(|node| !known.contains(*node)).cloned());
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        self.missed.retain(|node, _| missing.contains(node));
        for node in missing {
            self.missed.entry(node).or_insert_with(Instant::now);
        }
        let long = self
            .missed
            .iter()
            .filter(|(_, since)| since.elapsed() >= self.limit);
        Ok(long.map(|(node, _)| node.clone()).collect())
    }

    /// Tells of all VMIs of a node what it is to them.
    async fn lose(&self, node: &str, loss: Loss, now: Timestamp) -> kube::Result<()> {
        let vmis: Api<VirtualMachineInstance> = Api::all(self.client.clone());
        let mut page = ListParams::default()
            .labels(&format!("{}={node}", labels::NODE_NAME))
            .limit(PAGE);
        loop {
            let found = vmis.list(&page).await?;
            for vmi in &found.items {
                if let Some(patch) = verdict::patch(vmi, node, loss, now) {
                    self.write(vmi, node, loss, patch).await?;
                }
            }
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    async fn write(
        &self,
        vmi: &VirtualMachineInstance,
        node: &str,
        loss: Loss,
        patch: Value,
    ) -> kube::Result<()> {
        let namespace = vmi.namespace().unwrap_or_default();
        tracing::warn!(
            vm = format!("{namespace}/{}", vmi.name_any()),
            node,
            ?loss,
            "its node does not answer"
        );
        let vmis: Api<VirtualMachineInstance> = Api::namespaced(self.client.clone(), &namespace);
        let written = vmis
            .patch(&vmi.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await;
        if unless_outrun(written)? {
            let event = Event {
                action: "NodeCheck".to_owned(),
                ..event(EventType::Warning, reasons::NODE_UNRESPONSIVE, loss.told(node))
            };
            self.story.tell(vmi, event).await;
        }
        Ok(())
    }
}

/// Whether it was written. Whoever wrote first, or took the object away, knows better; the next round sees what is so then.
fn unless_outrun<T>(written: kube::Result<T>) -> kube::Result<bool> {
    match written {
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        written => written.map(|_| true),
    }
}
