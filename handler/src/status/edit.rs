//! Changes to a VMI that become one patch: what changed and nothing else, on the state that it was decided on.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rvm_types::condition::{self, Condition};
use rvm_types::qos;
use rvm_types::{Phase, VirtualMachineInstance, VirtualMachineInstanceStatus};
use serde_json::{Map, Value, json};

const NOT_RUNNING: &str = "Guest VM is not reported as running";

/// Changes to a VMI, collected until they are one patch.
#[derive(Debug, Clone)]
pub struct Edit {
    old: VirtualMachineInstance,
    new: VirtualMachineInstance,
}

// === impl Edit ===

impl Edit {
    /// No change yet.
    pub fn of(vmi: &VirtualMachineInstance) -> Self {
        Self {
            old: vmi.clone(),
            new: vmi.clone(),
        }
    }

    /// The object before any change.
    pub fn before(&self) -> &VirtualMachineInstance {
        &self.old
    }

    /// The status, to be changed.
    pub fn status(&mut self) -> &mut VirtualMachineInstanceStatus {
        self.new.status.get_or_insert_default()
    }

    /// Enters a phase, unless it is the one that holds.
    pub fn enter(&mut self, phase: Phase, now: Timestamp) {
        self.status().enter(phase, second(now));
    }

    /// Enters a phase, even the one that holds: a claim that is taken over begins anew.
    pub fn re_enter(&mut self, phase: Phase, now: Timestamp) {
        let status = self.status();
        if status.phase.as_ref() == Some(&phase) {
            status.phase = None;
            status
                .phase_transition_timestamps
                .retain(|transition| transition.phase.as_ref() != Some(&phase));
        }
        self.enter(phase, now);
        self.condition(super::not_ready(NOT_RUNNING), now);
    }

    /// Sets a condition.
    pub fn condition(&mut self, mut condition: Condition, now: Timestamp) {
        condition.last_transition_time = Some(second(now));
        condition::upsert(&mut self.status().conditions, condition);
    }

    /// Leaves a condition as it was.
    pub fn keep_condition(&mut self, kind: &str) {
        let old = self
            .old
            .status
            .as_ref()
            .and_then(|status| condition::find(&status.conditions, kind));
        let old = old.cloned();
        let conditions = &mut self.status().conditions;
        match (conditions.iter_mut().find(|now| now.condition_type == kind), old) {
            (Some(now), Some(old)) => *now = old,
            (_, None) => {
                condition::remove(conditions, kind);
            }
            (None, Some(old)) => conditions.push(old),
        }
    }

    /// Takes a condition away.
    pub fn without_condition(&mut self, kind: &str) {
        condition::remove(&mut self.status().conditions, kind);
    }

    /// The VMI's UID.
    pub fn uid(&self) -> &str {
        self.old.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Forgets all that the status says.
    pub fn forget_status(&mut self) {
        self.new.status = Some(VirtualMachineInstanceStatus::default());
    }

    /// Notes what follows from the object alone and does not change while the machine lives.
    pub fn note_origin(&mut self) {
        let revision = self.new.revision_name();
        let class = qos::class(self.new.spec.domain.resources.as_ref());
        let status = self.status();
        status.virtual_machine_revision_name = revision;
        status.qos_class = Some(class.to_owned());
    }

    /// Sets an annotation.
    pub fn annotation(&mut self, key: &str, value: &str) {
        let annotations = self.new.metadata.annotations.get_or_insert_default();
        annotations.insert(key.to_owned(), value.to_owned());
    }

    /// Sets a label.
    pub fn label(&mut self, key: &str, value: &str) {
        let labels = self.new.metadata.labels.get_or_insert_default();
        labels.insert(key.to_owned(), value.to_owned());
    }

    /// Adds a finalizer.
    pub fn add_finalizer(&mut self, finalizer: &str) {
        let finalizers = self.new.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|known| known == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
    }

    /// Takes a finalizer away.
    pub fn remove_finalizer(&mut self, finalizer: &str) {
        let finalizers = self.new.metadata.finalizers.get_or_insert_default();
        finalizers.retain(|known| known != finalizer);
    }

    /// The merge patch, or nothing where nothing changed.
    pub fn patch(&self) -> Option<Value> {
        let (old, new) = (&self.old.metadata, &self.new.metadata);
        let mut metadata = Map::new();
        if old.labels != new.labels {
            metadata.insert("labels".into(), json!(new.labels));
        }
        if old.annotations != new.annotations {
            metadata.insert("annotations".into(), json!(new.annotations));
        }
        if old.finalizers.clone().unwrap_or_default() != new.finalizers.clone().unwrap_or_default() {
            metadata.insert("finalizers".into(), json!(new.finalizers));
        }
        let status = difference(&json!(self.old.status), &json!(self.new.status));
        if metadata.is_empty() && status.is_empty() {
            return None;
        }
        metadata.insert("uid".into(), json!(old.uid));
        metadata.insert("resourceVersion".into(), json!(old.resource_version));
        let mut patch = Map::from_iter([("metadata".to_owned(), Value::Object(metadata))]);
        if !status.is_empty() {
            patch.insert("status".into(), Value::Object(status));
        }
        Some(Value::Object(patch))
    }
}

/// The fields of `new` that are not those of `old`; null for what is gone. Deeper down a field is given whole: a
/// merge patch cannot say less than a whole list.
fn difference(old: &Value, new: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let (old, new) = (
        old.as_object().unwrap_or(&empty),
        new.as_object().unwrap_or(&empty),
    );
    let gone = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
    changed
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain(gone)
        .collect()
}

/// Kubernetes keeps no finer time.
fn second(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).expect("a timestamp's own seconds are in range"))
}
