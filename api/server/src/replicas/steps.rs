//! Does what was planned: the only caller of the API's writes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Client, Resource};
use rvm_types::condition;
use rvm_types::names::{conditions, events};
use rvm_types::replica_set::VirtualMachineInstanceReplicaSetStatus;
use rvm_types::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet};
use serde_json::json;

use super::plan::Step;
use super::status;
use crate::story::{Story, event};

/// The API, and where events go.
pub struct Effects {
    /// The cluster.
    pub client: Client,
    /// Events on sets.
    pub story: Story,
}

// === impl Effects ===

impl Effects {
    /// The set as it is now, if it is still the same one, and all VMIs of its namespace.
    ///
    /// # Errors
    /// The API's.
    pub async fn see(
        &self,
        set: &VirtualMachineInstanceReplicaSet,
    ) -> kube::Result<Option<(VirtualMachineInstanceReplicaSet, Vec<VirtualMachineInstance>)>> {
        let found = self.sets(set).get_opt(name(set)).await?;
        let Some(found) = found.filter(|found| found.metadata.uid == set.metadata.uid) else {
            return Ok(None);
        };
        let vmis = self.vmis(set).list(&ListParams::default()).await?;
        Ok(Some((found, vmis.items)))
    }

    /// Does one step. That somebody else was faster is no error: the next look tells. Where it cannot be done, that is added to
    /// what was `wanted` to be said of the set.
    ///
    /// # Errors
    /// The API's.
    pub async fn perform(
        &self,
        set: &VirtualMachineInstanceReplicaSet,
        wanted: &VirtualMachineInstanceReplicaSetStatus,
        step: Step<'_>,
    ) -> kube::Result<()> {
        let done = match step {
            Step::Adopt(vmi) => self.own(set, vmi, adopted(set, vmi)).await,
            Step::Release(vmi) => self.own(set, vmi, released(set, vmi)).await,
            Step::Create => self.create(set, wanted).await,
            Step::Delete(vmi) => {
                let note = "Stopped the virtual machine by deleting the virtual machine instance";
                self.delete(set, wanted, vmi, note).await
            }
            Step::Clean(vmi) => {
                let note = "Deleted finished virtual machine:";
                self.delete(set, wanted, vmi, note).await
            }
            Step::Report(status) => self.report(set, *status).await,
            Step::Wait(_) => Ok(()),
        };
        match done {
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(()),
            done => done,
        }
    }

    async fn create(
        &self,
        set: &VirtualMachineInstanceReplicaSet,
        wanted: &VirtualMachineInstanceReplicaSetStatus,
    ) -> kube::Result<()> {
        let made = self.vmis(set).create(&PostParams::default(), &made(set)).await;
        match made {
            Ok(vmi) => {
                let name = vmi.metadata.name.unwrap_or_default();
                let note = format!(
                    "Started the virtual machine by creating the new virtual machine instance {name}"
                );
                self.story
                    .tell(set, event(EventType::Normal, events::SUCCESSFUL_CREATE, note))
                    .await;
                Ok(())
            }
            Err(error) => {
                let note = format!("Error creating virtual machine instance: {}", text(&error));
                self.story
                    .tell(set, event(EventType::Warning, events::FAILED_CREATE, note))
                    .await;
                self.fail(set, status::failed(wanted, events::FAILED_CREATE, text(&error)))
                    .await;
                Err(error)
            }
        }
    }

    async fn delete(
        &self,
        set: &VirtualMachineInstanceReplicaSet,
        wanted: &VirtualMachineInstanceReplicaSetStatus,
        vmi: &VirtualMachineInstance,
        note: &str,
    ) -> kube::Result<()> {
        let only = Preconditions {
            uid: vmi.metadata.uid.clone(),
            resource_version: None,
        };
        let params = DeleteParams::default().preconditions(only);
        let name = vmi.metadata.name.as_deref().unwrap_or_default();
        match self.vmis(set).delete(name, &params).await {
            Ok(_) => {
                let note = format!("{note} {}", vmi.metadata.uid.as_deref().unwrap_or_default());
                self.story
                    .tell(set, event(EventType::Normal, events::SUCCESSFUL_DELETE, note))
                    .await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => {
                let note = format!("Error deleting virtual machine instance {name}: {}", text(&error));
                self.story
                    .tell(set, event(EventType::Warning, events::FAILED_DELETE, note))
                    .await;
                self.fail(set, status::failed(wanted, events::FAILED_DELETE, text(&error)))
                    .await;
                Err(error)
            }
        }
    }

    /// Tells that something was not done.
    async fn fail(
        &self,
        set: &VirtualMachineInstanceReplicaSet,
        status: VirtualMachineInstanceReplicaSetStatus,
    ) {
        if set.status.as_ref() != Some(&status)
            && let Err(error) = self.report(set, status).await
        {
            tracing::debug!(set = name(set), %error, "its failure was not written");
        }
    }

    async fn report(
        &self,
        set: &VirtualMachineInstanceReplicaSet,
        status: VirtualMachineInstanceReplicaSetStatus,
    ) -> kube::Result<()> {
        let told = |status: Option<&VirtualMachineInstanceReplicaSetStatus>| {
            let conditions = status.map_or(&[][..], |status| &status.conditions);
            condition::find(conditions, conditions::REPLICA_PAUSED).is_some()
        };
        let (before, after) = (told(set.status.as_ref()), told(Some(&status)));
        let mut newer = set.clone();
        newer.status = Some(status);
        self.sets(set)
            .replace_status(name(set), &PostParams::default(), &newer)
            .await?;
        if before != after {
            let (reason, note) = match after {
                true => (events::SUCCESSFUL_PAUSED, "Paused"),
                false => (events::SUCCESSFUL_RESUMED, "Resumed"),
            };
            self.story
                .tell(set, event(EventType::Normal, reason, note.to_owned()))
                .await;
        }
        Ok(())
    }

    /// Writes whose an instance is, if it is still as it was seen.
    async fn own(
        &self,
        set: &VirtualMachineInstanceReplicaSet,
        vmi: &VirtualMachineInstance,
        owners: Vec<OwnerReference>,
    ) -> kube::Result<()> {
        let metadata = json!({
            "uid": vmi.metadata.uid, "resourceVersion": vmi.metadata.resource_version, "ownerReferences": owners,
        });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let name = vmi.metadata.name.as_deref().unwrap_or_default();
        let written = self.vmis(set).patch(name, &PatchParams::default(), &patch).await;
        written.map(drop)
    }

    fn vmis(&self, set: &VirtualMachineInstanceReplicaSet) -> Api<VirtualMachineInstance> {
        Api::namespaced(self.client.clone(), namespace(set))
    }

    fn sets(&self, set: &VirtualMachineInstanceReplicaSet) -> Api<VirtualMachineInstanceReplicaSet> {
        Api::namespaced(self.client.clone(), namespace(set))
    }
}

fn name(set: &VirtualMachineInstanceReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

fn namespace(set: &VirtualMachineInstanceReplicaSet) -> &str {
    set.metadata.namespace.as_deref().unwrap_or_default()
}

fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// An instance of the set; the API completes its name.
fn made(set: &VirtualMachineInstanceReplicaSet) -> VirtualMachineInstance {
    let mut vmi = set.spec.template.instance();
    vmi.metadata.generate_name = Some(set.basename().to_owned());
    vmi.metadata.owner_references = Some(owner(set).into_iter().collect());
    vmi
}

/// The reference by which a set controls an instance. It blocks a deletion in the foreground.
fn owner(set: &VirtualMachineInstanceReplicaSet) -> Option<OwnerReference> {
    let owner = set.controller_owner_ref(&())?;
    Some(OwnerReference {
        block_owner_deletion: Some(true),
        ..owner
    })
}

fn adopted(set: &VirtualMachineInstanceReplicaSet, vmi: &VirtualMachineInstance) -> Vec<OwnerReference> {
    let mut owners = released(set, vmi);
    owners.extend(owner(set));
    owners
}

fn released(set: &VirtualMachineInstanceReplicaSet, vmi: &VirtualMachineInstance) -> Vec<OwnerReference> {
    let mut owners = vmi.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|owner| Some(&owner.uid) != set.metadata.uid.as_ref());
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicas::sample::{owned, set};

    #[test]
    fn an_instance_is_of_the_template_and_its_name_begins_as_the_set_s() {
        let made = made(&set(1));
        assert_eq!(
            (made.metadata.name, made.metadata.generate_name.as_deref()),
            (None, Some("web"))
        );
        assert_eq!(made.metadata.annotations.unwrap()["who"], "me");
        assert_eq!(made.metadata.labels.unwrap()["app"], "web");
        let owner = &made.metadata.owner_references.unwrap()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str()),
            ("VirtualMachineInstanceReplicaSet", "set-uid")
        );
        assert_eq!(
            (owner.controller, owner.block_owner_deletion),
            (Some(true), Some(true))
        );
    }

    #[test]
    fn an_instance_is_let_go_by_the_set_alone() {
        let mut vmi = owned("a", "Running");
        let mut other = vmi.metadata.owner_references.as_ref().unwrap()[0].clone();
        (other.uid, other.controller) = ("other".to_owned(), None);
        vmi.metadata
            .owner_references
            .as_mut()
            .unwrap()
            .push(other.clone());
        assert_eq!(released(&set(1), &vmi), [other]);
        assert_eq!(adopted(&set(1), &vmi).len(), 2);
    }
}
