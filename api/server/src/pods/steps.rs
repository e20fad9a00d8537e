//! Does what was planned: the only caller of the API's writes.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::runtime::events::EventType;
use kube::{Client, ResourceExt};
use rvm_types::names::{events, labels};
use rvm_types::{KubeVirt, VirtualMachineInstance, VirtualMachineInstanceStatus};
use serde_json::{Map, Value, json};

use super::claims::Claims;
use super::plan::Step;
use super::render::Launcher;
use crate::evictions;
use crate::story::{Story, event};

/// The API, and where events go.
pub struct Effects {
    /// The cluster.
    pub client: Client,
    /// Events on VMIs.
    pub story: Story,
    /// How pods are made.
    pub launcher: Launcher,
}

/// A step could not be done; it will be tried again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The cluster.
    #[error("the cluster's API does not do what was asked")]
    Api(#[from] kube::Error),
    /// The cluster does not take the pod.
    #[error("the pod is refused: {0}")]
    Refused(String),
    /// A claim is not there, so it is not known what the pod would need for it.
    #[error("failed to render launch manifest: didn't find PVC {0}")]
    NoClaim(String),
}

// === impl Effects ===

impl Effects {
    /// The VMI as it is now, if it is still the same one, and its pods.
    ///
    /// # Errors
    /// The API's.
    pub async fn see(
        &self,
        vmi: &VirtualMachineInstance,
    ) -> kube::Result<Option<(VirtualMachineInstance, Vec<Pod>)>> {
        let found = self.vmis(vmi).get_opt(&vmi.name_any()).await?;
        let Some(found) = found.filter(|found| found.metadata.uid == vmi.metadata.uid) else {
            return Ok(None);
        };
        let uid = found.uid().unwrap_or_default();
        let of_it = ListParams::default().labels(&format!("{}={uid}", labels::CREATED_BY));
        let mut pods = self.pods(vmi).list(&of_it).await?.items;
        // Anybody may have written the label.
        pods.retain(|pod| is_of(pod, &uid));
        Ok(Some((found, pods)))
    }

    /// Does one step. That somebody else was faster is no error: the next look tells.
    ///
    /// # Errors
    /// [`StepError`].
    pub async fn perform(&self, vmi: &VirtualMachineInstance, step: Step<'_>) -> Result<(), StepError> {
        let done = match step {
            Step::Create => self.create(vmi).await,
            Step::Delete(pod) => self.delete(vmi, pod).await,
            Step::Report(status) => self.report(vmi, &status).await.map_err(StepError::from),
            Step::Wait(_) => Ok(()),
        };
        match done {
            Err(StepError::Api(kube::Error::Api(status)))
                if status.is_conflict() || status.is_not_found() =>
            {
                Ok(())
            }
            done => done,
        }
    }

    async fn create(&self, vmi: &VirtualMachineInstance) -> Result<(), StepError> {
        // A pod that is to stay is guarded from its beginning.
        evictions::guard(&self.client, vmi).await?;
        let accelerator = self.launcher.accelerator(self.use_emulation().await?);
        let claims = Claims::of(&self.client, vmi).await?;
        let pod = self.launcher.pod(vmi, accelerator, &claims);
        match self.make(vmi, pod).await {
            Ok(made) => {
                let note = format!("Created virtual machine pod {}", made.name_any());
                self.story
                    .tell(vmi, event(EventType::Normal, events::SUCCESSFUL_CREATE, note))
                    .await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Err(kube::Error::Api(status).into()),
            // A quota, a policy, or what its author has written.
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                let note = format!("Error creating pod: {}", status.message);
                self.story
                    .tell(vmi, event(EventType::Warning, events::FAILED_CREATE, note))
                    .await;
                Err(StepError::Refused(status.message.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn make(&self, vmi: &VirtualMachineInstance, pod: Value) -> kube::Result<DynamicObject> {
        let pod = serde_json::from_value(pod).map_err(kube::Error::SerdeError)?;
        let kind = ApiResource::erase::<Pod>(&());
        let near = vmi.namespace().unwrap_or_default();
        let pods: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &near, &kind);
        pods.create(&PostParams::default(), &pod).await
    }

    async fn delete(&self, vmi: &VirtualMachineInstance, pod: &Pod) -> Result<(), StepError> {
        let only = Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        };
        let name = pod.name_any();
        let params = DeleteParams::default().preconditions(only);
        self.pods(vmi).delete(&name, &params).await?;
        let note = format!("Deleted virtual machine pod {name}");
        self.story
            .tell(vmi, event(EventType::Normal, events::SUCCESSFUL_DELETE, note))
            .await;
        Ok(())
    }

    /// Writes the status onto the VMI that it was decided on.
    ///
    /// # Errors
    /// The API's.
    pub async fn report(
        &self,
        vmi: &VirtualMachineInstance,
        status: &VirtualMachineInstanceStatus,
    ) -> kube::Result<()> {
        let fields = difference(&json!(vmi.status), &json!(status));
        if fields.is_empty() {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": vmi.metadata.uid, "resourceVersion": vmi.metadata.resource_version},
            "status": fields,
        });
        let (vmis, params) = (self.vmis(vmi), PatchParams::default());
        let written = vmis.patch(&vmi.name_any(), &params, &Patch::Merge(patch)).await;
        written.map(drop)
    }

    /// Whether the KubeVirt has guests emulated where there is no KVM, if it says so.
    async fn use_emulation(&self) -> kube::Result<Option<bool>> {
        let all: Api<KubeVirt> = Api::all(self.client.clone());
        let found = all.list(&ListParams::default()).await?.items;
        let settings = found.iter().filter_map(|one| one.spec.configuration.as_ref());
        let mut said =
            settings.filter_map(|one| one.extra.get("developerConfiguration")?["useEmulation"].as_bool());
        Ok(said.next())
    }

    fn vmis(&self, vmi: &VirtualMachineInstance) -> Api<VirtualMachineInstance> {
        Api::namespaced(self.client.clone(), &vmi.namespace().unwrap_or_default())
    }

    fn pods(&self, vmi: &VirtualMachineInstance) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &vmi.namespace().unwrap_or_default())
    }
}

/// Whether a pod is the VMI's of this UID.
fn is_of(pod: &Pod, uid: &str) -> bool {
    let owners = pod.owner_references().iter();
    owners
        .filter(|owner| owner.controller == Some(true))
        .any(|owner| owner.uid == uid)
}

/// The fields of `new` that are not those of `old`; null for what is gone.
fn difference(old: &Value, new: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let (old, new) = (
        old.as_object().unwrap_or(&empty),
        new.as_object().unwrap_or(&empty),
    );
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let gone = gone.map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
    let mut fields: Map<String, Value> = changed
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain(gone)
        .collect();
    // A merge would keep the pods that are gone.
    if let (Some(Value::Object(pods)), Some(Value::Object(had))) =
        (fields.get_mut("activePods"), old.get("activePods"))
    {
        let gone: Vec<String> = had
            .keys()
            .filter(|uid| !pods.contains_key(*uid))
            .cloned()
            .collect();
        pods.extend(gone.into_iter().map(|uid| (uid, Value::Null)));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_is_gone_goes_from_the_status() {
        let old = json!({"phase": "Running", "activePods": {"a": "n1"}, "reason": "x"});
        let new = json!({"phase": "Running", "activePods": {"b": "n2"}});
        let patch = Value::Object(difference(&old, &new));
        let mut patched = old.clone();
        json_patch::merge(&mut patched, &patch);
        assert_eq!(patched, new);
        assert!(difference(&old, &old).is_empty());
    }

    #[test]
    fn a_pod_belongs_to_whose_uid_its_controller_has() {
        let pod = crate::pods::sample::running();
        assert!(is_of(&pod, "vmi-uid") && !is_of(&pod, "another"));
        let labelled = Pod::default();
        assert!(!is_of(&labelled, "vmi-uid"));
    }
}
