//! Keeps machines to the cluster's NetworkPolicies, in local mode: there is no network plugin that would.
//!
//! ```text
//!   policies, namespaces, VMIs ──any change──► all of them are read ──► a ruleset for each machine ──► the keeper
//!   a machine that starts ──────────────────►                          for that one, before its rvmm runs
//! ```
//!
//! Nothing is remembered: the keeper knows to what it keeps each machine, and only changes what is different. One at a time
//! reads and tells, so that nobody tells what is older than what was told before.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams};
use kube::core::Resource;
use kube::{Client, ResourceExt};
use rvm_types::VirtualMachineInstance;
use rvm_types::names::{events, labels};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::client::{NetworkError, Networks};
use super::model::Plan;
use super::policy::{self, Labels, Pod};
use crate::changes::{self, Changes};
use crate::events::{Happening, Recorder};
use crate::steps::chain;
use crate::vm::VmId;

/// What a launcher's pod is labelled with in KubeVirt, and so the label by which policies know machines.
const LAUNCHER: &str = "virt-launcher";

/// The policies of a cluster, and the machines here that they are about.
pub struct Policies {
    client: Client,
    networks: Arc<Networks>,
    /// Held from the reading until what was read is told.
    turn: Mutex<()>,
}

/// Policies cannot be kept to.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// They are not known.
    #[error("the NetworkPolicies cannot be read")]
    Read(#[from] kube::Error),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Only when we end.
    #[error("interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// All that policies speak of, at one moment.
struct Seen {
    policies: Vec<NetworkPolicy>,
    namespaces: BTreeMap<String, Labels>,
    machines: Vec<Machine>,
}

/// A machine that has a network.
struct Machine {
    vmi: VirtualMachineInstance,
    plan: Plan,
    pod: Pod,
}

// === impl Policies ===

impl Policies {
    /// Of this cluster, for the machines with these networks.
    pub fn new(client: Client, networks: Arc<Networks>) -> Self {
        Self {
            client,
            networks,
            turn: Mutex::default(),
        }
    }

    /// Keeps one machine to them, as they are now.
    ///
    /// # Errors
    /// [`EnforceError`].
    pub async fn hold(&self, id: &VmId) -> Result<(), EnforceError> {
        let _turn = self.turn.lock().await;
        let seen = self.see().await?;
        let me = seen
            .machines
            .iter()
            .find(|machine| machine.vmi.metadata.uid.as_ref() == Some(&id.uid));
        match me {
            Some(machine) => self.tell(&seen, machine).await,
            // It has no network.
            None => Ok(()),
        }
    }

    /// Keeps all machines to them, however they change.
    pub async fn follow(&self, recorder: &Recorder) {
        let mut changes = Changes::any([
            changes::of(Api::<NetworkPolicy>::all(self.client.clone())),
            changes::of(Api::<Namespace>::all(self.client.clone())),
            changes::of(Api::<VirtualMachineInstance>::all(self.client.clone())),
        ]);
        let (mut told, mut settled) = (BTreeMap::new(), true);
        while changes.next(settled).await {
            let held = self.hold_all(recorder, &mut told).await;
            settled = held.is_ok();
            if let Err(error) = held {
                tracing::warn!(error = chain(&error), "NetworkPolicies are not kept to yet");
            }
        }
    }

    /// Keeps each machine to them that can be; the first that cannot is the error. What is wrong with one is told once.
    async fn hold_all(
        &self,
        recorder: &Recorder,
        told: &mut BTreeMap<String, String>,
    ) -> Result<(), EnforceError> {
        let _turn = self.turn.lock().await;
        let seen = self.see().await?;
        let mut failed = None;
        for machine in &seen.machines {
            let uid = machine.vmi.metadata.uid.clone().unwrap_or_default();
            let Err(error) = self.tell(&seen, machine).await else {
                told.remove(&uid);
                continue;
            };
            let why = chain(&error);
            if told.get(&uid) != Some(&why) {
                recorder.record(
                    &machine.vmi,
                    &Happening::warning(events::SYNC_FAILED, why.as_str()),
                );
                told.insert(uid, why);
            }
            failed = failed.or(Some(error));
        }
        failed.map_or(Ok(()), Err)
    }

    async fn see(&self) -> Result<Seen, EnforceError> {
        let networks = Arc::clone(&self.networks);
        let mut plans = tokio::task::spawn_blocking(move || networks.all()).await??;
        let vmis = match plans.is_empty() {
            true => Vec::new(),
            false => self.list::<VirtualMachineInstance>().await?,
        };
        let machines = vmis
            .into_iter()
            .filter_map(|vmi| {
                plans
                    .remove(vmi.metadata.uid.as_ref()?)
                    .map(|plan| Machine::of(vmi, plan))
            })
            .collect();
        let namespaces = self.list::<Namespace>().await?.into_iter();
        Ok(Seen {
            policies: self.list().await?,
            namespaces: namespaces
                .map(|namespace| (namespace.name_any(), namespace.labels().clone()))
                .collect(),
            machines,
        })
    }

    async fn list<K>(&self) -> kube::Result<Vec<K>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        Ok(api.list(&ListParams::default()).await?.items)
    }

    async fn tell(&self, seen: &Seen, machine: &Machine) -> Result<(), EnforceError> {
        let pods: Vec<Pod> = seen.machines.iter().map(|machine| machine.pod.clone()).collect();
        let isolation = policy::isolation(&machine.pod, &seen.policies, &pods, &seen.namespaces);
        let rules = policy::ruleset(&machine.plan, &isolation);
        let (networks, plan) = (Arc::clone(&self.networks), machine.plan.clone());
        let uid = machine.vmi.metadata.uid.clone().unwrap_or_default();
        Ok(tokio::task::spawn_blocking(move || networks.isolate(&uid, &plan, rules)).await??)
    }
}

// === impl Machine ===

impl Machine {
    /// With the labels that its launcher's pod has in KubeVirt.
    fn of(vmi: VirtualMachineInstance, plan: Plan) -> Self {
        let mut labels = vmi.labels().clone();
        labels.insert(labels::APP.to_owned(), LAUNCHER.to_owned());
        labels.insert(labels::CREATED_BY.to_owned(), vmi.uid().unwrap_or_default());
        for name in [labels::VMI_ID, labels::VM_NAME] {
            labels.insert(name.to_owned(), vmi.name_any());
        }
        let pod = Pod {
            namespace: vmi.namespace().unwrap_or_default(),
            labels,
            v4: plan.pod.v4,
            v6: plan.pod.v6,
        };
        Self { vmi, plan, pod }
    }
}
