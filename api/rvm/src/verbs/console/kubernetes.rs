//! A console by the Kubernetes API's websocket: one viewer at a time, who takes it from whoever had it. Who only looks takes nothing: that is
//! rvm's own (`?readOnly=true`), and is asked of nobody else, whose console would be taken all the same.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use rvm_types::{Phase, VirtualMachineInstance};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::machine::tell;
use super::{Attached, Attempt, QUEUE, Typed};
use crate::cluster::{Cluster, Resource};
use crate::websocket::{Outgoing, halves};

/// Between two attempts to attach, as virtctl waits.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Kubernetes {
    cluster: Cluster,
    name: String,
    read_only: bool,
}

// === impl Kubernetes ===

impl Kubernetes {
    pub(super) fn new(cluster: Cluster, name: &str, read_only: bool) -> Self {
        Self {
            cluster,
            name: name.to_owned(),
            read_only,
        }
    }

    pub(super) async fn attach(&mut self) -> Result<Attempt> {
        let mut path = self.cluster.below(Resource::Instance, &self.name, "console");
        if self.read_only {
            self.must_be_ours().await?;
            path.push_str("?readOnly=true");
        }
        let socket = match self.cluster.websocket(&path).await {
            Ok(socket) => socket,
            // The same answer as to one that has ended, which is not waited for.
            Err(why) if why.is_early() && !self.has_ended().await? => return Ok(Attempt::Early(why.into())),
            Err(why) => return Err(why.into()),
        };
        let (typed, orders) = mpsc::channel(QUEUE);
        let (out, seen) = halves(socket);
        tokio::spawn(carry(orders, out));
        Ok(Attempt::Attached(Attached {
            typed,
            seen: seen.boxed(),
        }))
    }

    pub(super) async fn until_it_should_run(&mut self, said: &mut Option<Phase>) -> Result<()> {
        let phase = self.phase().await?.unwrap_or(Phase::Pending);
        if phase.is_before_running() {
            tell(&self.name, phase, said);
        }
        sleep(AGAIN).await;
        Ok(())
    }

    pub(super) async fn phase(&mut self) -> Result<Option<Phase>> {
        let path = self.cluster.object(Resource::Instance, &self.name);
        let vmi: VirtualMachineInstance = serde_json::from_value(self.cluster.get(&path).await?)
            .context("the server sent an object that cannot be understood")?;
        Ok(vmi.phase().cloned())
    }

    /// KubeVirt itself gives a console to one viewer, whatever that wants it for.
    async fn must_be_ours(&self) -> Result<()> {
        let version = self.cluster.get(&self.cluster.of_group("version")).await?;
        if version["gitCommit"]
            .as_str()
            .is_some_and(|commit| commit.starts_with("rvm-"))
        {
            return Ok(());
        }
        bail!(
            "this cluster's machines are KubeVirt's own, whose console has one viewer: it would be taken from whoever types; \
             use rvm console without --read-only, or kubectl logs with the machine's pod"
        )
    }

    async fn has_ended(&mut self) -> Result<bool> {
        Ok(self.phase().await?.is_some_and(|phase| phase.is_final()))
    }
}

/// From the keyboard to the server, which does not listen to a viewer who only looks.
async fn carry(mut orders: mpsc::Receiver<Typed>, mut out: Outgoing) {
    while let Some(typed) = orders.recv().await {
        match typed {
            Typed::Input(input) => {
                if !out.send(input).await {
                    return;
                }
            }
            Typed::Close => out.close().await,
        }
    }
}
