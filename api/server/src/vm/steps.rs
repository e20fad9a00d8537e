//! Does what was planned: the only caller of the API's writes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Client, Resource};
use rvm_types::condition::{self, Condition, TRUE};
use rvm_types::names::{annotations, conditions, events, finalizers};
use rvm_types::vm::{RunStrategy, StateChangeRequest, Template, VirtualMachineStatus};
use rvm_types::vmi::START_PAUSED;
use rvm_types::{VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceSpec};
use serde_json::{Value, json};

use super::plan::{self, Step};
use super::{revision, status};
use crate::story::{Story, event};

/// The API, and where events go.
pub struct Effects {
    /// The cluster.
    pub client: Client,
    /// Events on VMs.
    pub story: Story,
}

/// What came of a step.
#[derive(Debug)]
pub enum Outcome {
    /// Done; what there is has to be looked at anew.
    Done,
    /// Written; the VM is this now.
    Wrote(Box<VirtualMachine>),
    /// Somebody else wrote first, or it is gone.
    Outrun,
}

// === impl Effects ===

impl Effects {
    /// The instance of a VM's name, and the template that it was made from where the VM has changed since.
    ///
    /// # Errors
    /// The API's.
    pub async fn see(
        &self,
        vm: &VirtualMachine,
    ) -> kube::Result<(Option<VirtualMachineInstance>, Option<Template>)> {
        let Some(vmi) = self.vmis(vm).get_opt(name(vm)).await? else {
            return Ok((None, None));
        };
        let generation = status::generation(&vmi);
        let Some(generation) = generation.filter(|_| generation != vm.metadata.generation) else {
            return Ok((Some(vmi), None));
        };
        let kept = self
            .revisions(vm)
            .get_opt(&revision::name(vm, generation))
            .await?;
        Ok((Some(vmi), kept.and_then(revision::template)))
    }

    /// Does one step.
    ///
    /// # Errors
    /// The API's, but for those that say that we were too late.
    pub async fn perform(
        &self,
        vm: &VirtualMachine,
        vmi: Option<&VirtualMachineInstance>,
        step: Step,
    ) -> kube::Result<Outcome> {
        let done = match (step, vmi) {
            (Step::Hold, _) => self.patch(vm, &held(vm, true)).await,
            (Step::LetGo, _) => self.let_go(vm).await,
            (Step::Rearrange, _) => self.rearrange(vm, vmi).await,
            (Step::BeAlways, _) => self.patch(vm, &with_strategy(vm, &RunStrategy::Always)).await,
            (Step::Report(status), _) => self.report(vm, *status).await,
            (Step::Request, _) => {
                let mut status = vm.status.clone().unwrap_or_default();
                status.state_change_requests.push(StateChangeRequest::start());
                self.report(vm, status).await
            }
            (Step::Create { paused }, _) => self.create(vm, paused).await,
            (Step::Delete, Some(vmi)) => self.delete(vm, vmi).await,
            (Step::Adopt, Some(vmi)) => self.change(vm, vmi, adopted).await,
            (Step::Disown, Some(vmi)) => self.change(vm, vmi, disowned).await,
            (Step::Release, Some(vmi)) => self.change(vm, vmi, released).await,
            (Step::Follow, Some(vmi)) => self.follow(vm, vmi).await,
            (Step::Wait(_), _) | (_, None) => Ok(Outcome::Done),
        };
        match done {
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                Ok(Outcome::Outrun)
            }
            done => done,
        }
    }

    /// Tells that an instance cannot be made, in the VM's status and as an event.
    pub async fn tell(&self, vm: &VirtualMachine, error: &kube::Error) {
        let why = match error {
            kube::Error::Api(status) => status.message.clone(),
            error => error.to_string(),
        };
        let mut status = vm.status.clone().unwrap_or_default();
        let failure = Condition::new(conditions::FAILURE, TRUE).because(events::FAILED_CREATE, why.clone());
        if !condition::upsert(&mut status.conditions, failure) {
            return;
        }
        let note = format!("Error creating virtual machine instance: {why}");
        self.story
            .tell(vm, event(EventType::Warning, events::FAILED_CREATE, note))
            .await;
        if let Err(error) = self.report(vm, status).await {
            tracing::debug!(vm = name(vm), %error, "its failure was not written");
        }
    }

    async fn create(&self, vm: &VirtualMachine, paused: bool) -> kube::Result<Outcome> {
        let kept = self
            .revisions(vm)
            .create(&PostParams::default(), &revision::of(vm))
            .await;
        if let Err(error) = kept
            && !already_there(&error)
        {
            return Err(error);
        }
        self.vmis(vm)
            .create(&PostParams::default(), &made(vm, paused))
            .await?;
        let note = format!(
            "Started the virtual machine by creating the new virtual machine instance {}",
            name(vm)
        );
        self.story
            .tell(vm, event(EventType::Normal, events::SUCCESSFUL_CREATE, note))
            .await;
        Ok(Outcome::Done)
    }

    async fn delete(&self, vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> kube::Result<Outcome> {
        let only = Preconditions {
            uid: vmi.metadata.uid.clone(),
            resource_version: None,
        };
        let params = DeleteParams::default().preconditions(only);
        self.vmis(vm).delete(name(vm), &params).await?;
        let note = format!(
            "Stopped the virtual machine by deleting the virtual machine instance {}",
            name(vm)
        );
        self.story
            .tell(vm, event(EventType::Normal, events::SUCCESSFUL_DELETE, note))
            .await;
        Ok(Outcome::Done)
    }

    /// Does to the template what is asked for of volumes, then to the instance, which its handler follows.
    async fn rearrange(
        &self,
        vm: &VirtualMachine,
        vmi: Option<&VirtualMachineInstance>,
    ) -> kube::Result<Outcome> {
        let requests = plan::requests(vm);
        let wanted = |spec: &VirtualMachineInstanceSpec| {
            let mut wanted = spec.clone();
            requests.iter().for_each(|request| request.apply(&mut wanted));
            (wanted != *spec).then_some(wanted)
        };
        if let Some(template) = wanted(&vm.spec.template.spec) {
            let metadata = json!({"resourceVersion": vm.metadata.resource_version});
            let spec = json!({"template": {"spec": volumes(&template)}});
            return self.patch(vm, &json!({"metadata": metadata, "spec": spec})).await;
        }
        if let Some((vmi, spec)) = vmi.and_then(|vmi| Some((vmi, wanted(&vmi.spec)?))) {
            let patch = Patch::Merge(with_volumes(&vmi.metadata, &spec));
            self.vmis(vm)
                .patch(name(vm), &PatchParams::default(), &patch)
                .await?;
        }
        Ok(Outcome::Done)
    }

    /// Its revisions go with it. A cluster would see to that by their owner, local mode has nobody who does.
    async fn let_go(&self, vm: &VirtualMachine) -> kube::Result<Outcome> {
        let its = ListParams::default().labels(&revision::selector(vm));
        self.revisions(vm)
            .delete_collection(&DeleteParams::default(), &its)
            .await?;
        self.patch(vm, &held(vm, false)).await
    }

    /// The new generation is kept, too: what the instance fits now is what it will be compared with.
    async fn follow(&self, vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> kube::Result<Outcome> {
        let kept = self
            .revisions(vm)
            .create(&PostParams::default(), &revision::of(vm))
            .await;
        match kept {
            Err(error) if !already_there(&error) => Err(error),
            _ => self.change(vm, vmi, followed).await,
        }
    }

    async fn report(&self, vm: &VirtualMachine, status: VirtualMachineStatus) -> kube::Result<Outcome> {
        let mut vm = vm.clone();
        vm.status = Some(status);
        let api: Api<VirtualMachine> = Api::namespaced(self.client.clone(), namespace(&vm));
        let newer = api.replace_status(name(&vm), &PostParams::default(), &vm).await?;
        Ok(Outcome::Wrote(Box::new(newer)))
    }

    async fn patch(&self, vm: &VirtualMachine, patch: &Value) -> kube::Result<Outcome> {
        let api: Api<VirtualMachine> = Api::namespaced(self.client.clone(), namespace(vm));
        let newer = api
            .patch(name(vm), &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(Outcome::Wrote(Box::new(newer)))
    }

    async fn change(
        &self,
        vm: &VirtualMachine,
        vmi: &VirtualMachineInstance,
        metadata: fn(&VirtualMachine, &VirtualMachineInstance) -> Value,
    ) -> kube::Result<Outcome> {
        let mut metadata = metadata(vm, vmi);
        metadata["resourceVersion"] = json!(vmi.metadata.resource_version);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        self.vmis(vm)
            .patch(name(vm), &PatchParams::default(), &patch)
            .await?;
        Ok(Outcome::Done)
    }

    fn vmis(&self, vm: &VirtualMachine) -> Api<VirtualMachineInstance> {
        Api::namespaced(self.client.clone(), namespace(vm))
    }

    fn revisions(&self, vm: &VirtualMachine) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), namespace(vm))
    }
}

fn name(vm: &VirtualMachine) -> &str {
    vm.metadata.name.as_deref().unwrap_or_default()
}

fn namespace(vm: &VirtualMachine) -> &str {
    vm.metadata.namespace.as_deref().unwrap_or_default()
}

fn already_there(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

/// The instance that a VM wants now.
fn made(vm: &VirtualMachine, paused: bool) -> VirtualMachineInstance {
    let mut vmi = vm.instance();
    if paused {
        vmi.spec.start_strategy = Some(START_PAUSED.to_owned());
    }
    vmi.metadata.finalizers = Some(vec![finalizers::VM_CONTROLLER.to_owned()]);
    vmi.metadata.owner_references = vm.controller_owner_ref(&()).map(|owner| vec![owner]);
    let generation = vm.metadata.generation.unwrap_or_default().to_string();
    vmi.metadata
        .annotations
        .get_or_insert_with(BTreeMap::new)
        .insert(annotations::VM_GENERATION.to_owned(), generation);
    vmi
}

/// A change of a VM's finalizers. The one of those who orphan is ours to take away where nobody else does.
fn held(vm: &VirtualMachine, hold: bool) -> Value {
    let ours = [finalizers::VM_CONTROLLER, finalizers::ORPHAN];
    let mut left = others(vm.metadata.finalizers.as_deref(), &ours);
    if hold {
        left.push(finalizers::VM_CONTROLLER);
    }
    json!({"metadata": {"resourceVersion": vm.metadata.resource_version, "finalizers": left}})
}

/// A change of a VM's strategy to Always or Halted, in the words that its author chose.
pub fn with_strategy(vm: &VirtualMachine, strategy: &RunStrategy) -> Value {
    let spec = match vm.spec.running {
        Some(_) => json!({"running": *strategy == RunStrategy::Always}),
        None => json!({"runStrategy": strategy}),
    };
    json!({"metadata": {"resourceVersion": vm.metadata.resource_version}, "spec": spec})
}

/// A change of an object's spec to the volumes and disks of this one.
pub fn with_volumes(of: &ObjectMeta, spec: &VirtualMachineInstanceSpec) -> Value {
    json!({
        "metadata": {"resourceVersion": of.resource_version},
        "spec": volumes(spec),
    })
}

fn volumes(spec: &VirtualMachineInstanceSpec) -> Value {
    json!({"volumes": spec.volumes, "domain": {"devices": {"disks": spec.domain.devices.disks}}})
}

fn adopted(vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> Value {
    let mut owners = vmi.metadata.owner_references.clone().unwrap_or_default();
    owners.extend(vm.controller_owner_ref(&()));
    let mut held = others(vmi.metadata.finalizers.as_deref(), &[finalizers::VM_CONTROLLER]);
    held.push(finalizers::VM_CONTROLLER);
    json!({"ownerReferences": owners, "finalizers": held})
}

fn disowned(vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> Value {
    let mut owners = vmi.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|owner| Some(&owner.uid) != vm.metadata.uid.as_ref());
    let held = others(vmi.metadata.finalizers.as_deref(), &[finalizers::VM_CONTROLLER]);
    json!({"ownerReferences": owners, "finalizers": held})
}

fn released(_: &VirtualMachine, vmi: &VirtualMachineInstance) -> Value {
    json!({"finalizers": others(vmi.metadata.finalizers.as_deref(), &[finalizers::VM_CONTROLLER])})
}

fn followed(vm: &VirtualMachine, _: &VirtualMachineInstance) -> Value {
    let generation = vm.metadata.generation.unwrap_or_default().to_string();
    json!({"annotations": {annotations::VM_GENERATION: generation}})
}

fn others<'a>(held: Option<&'a [String]>, but: &[&str]) -> Vec<&'a str> {
    let names = held.unwrap_or_default().iter().map(String::as_str);
    names.filter(|name| !but.contains(name)).collect()
}
