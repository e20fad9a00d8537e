//! A console by the Kubernetes API's websocket: one viewer at a time, who takes it from whoever had it.

use std::time::Duration;

use anyhow::{Context, Result};
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
        let path = self.cluster.below(Resource::Instance, &self.name, "console");
        let socket = match self.cluster.websocket(&path).await {
            Ok(socket) => socket,
            // The same answer as to one that has ended, which is not waited for.
            Err(why) if why.is_early() && !self.has_ended().await? => return Ok(Attempt::Early(why.into())),
            Err(why) => return Err(why.into()),
        };
        let (typed, orders) = mpsc::channel(QUEUE);
        let (out, seen) = halves(socket);
        tokio::spawn(carry(orders, out, self.read_only));
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

    async fn has_ended(&mut self) -> Result<bool> {
        Ok(self.phase().await?.is_some_and(|phase| phase.is_final()))
    }
}

/// From the keyboard to the server. What a viewer types who only looks goes nowhere.
async fn carry(mut orders: mpsc::Receiver<Typed>, mut out: Outgoing, read_only: bool) {
    while let Some(typed) = orders.recv().await {
        match typed {
            Typed::Input(_) if read_only => {}
            Typed::Input(input) => {
                if !out.send(input).await {
                    return;
                }
            }
            Typed::Close => out.close().await,
        }
    }
}
