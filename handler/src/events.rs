//! Records events on VMIs: what `kubectl describe` and `kubectl get events` show.
//!
//! Recording never holds anything up: a bounded queue and one task that writes. What does not fit, or what the API
//! refuses, is logged and lost; events tell a story and carry no state.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource};
use rvm_types::VirtualMachineInstance;
use tokio::sync::mpsc;

use crate::status::bounded;

/// Events that wait to be written.
const QUEUE: usize = 256;

/// Who we are in an event's source.
const COMPONENT: &str = "rvm-handler";

/// Longest VMI name that leaves room for the rest of an event's name.
const MAX_NAME: usize = 253 - 17;

/// An event to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Something that should not be.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
}

/// Takes events.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
    node: String,
}

// === impl Happening ===

impl Happening {
    /// What is expected to happen.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason,
            message: message.into(),
        }
    }

    /// What is not.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            reason,
            message: message.into(),
        }
    }
}

// === impl Recorder ===

impl Recorder {
    /// Starts the task that writes.
    pub fn new(client: Client, node: &str) -> Self {
        let (queue, mut events) = mpsc::channel::<Event>(QUEUE);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
                if let Err(error) = api.create(&PostParams::default(), &event).await {
                    tracing::debug!(reason = event.reason, %error, "an event was not recorded");
                }
            }
        });
        Self {
            queue,
            node: node.to_owned(),
        }
    }

    /// Records what happened to a VMI.
    pub fn record(&self, vmi: &VirtualMachineInstance, happening: &Happening) {
        let event = event(vmi, happening, &self.node, Timestamp::now());
        if self.queue.try_send(event).is_err() {
            tracing::warn!(reason = happening.reason, "too many events wait, one is dropped");
        }
    }
}

fn event(vmi: &VirtualMachineInstance, happening: &Happening, node: &str, now: Timestamp) -> Event {
    let meta = &vmi.metadata;
    let name: String = meta
        .name
        .as_deref()
        .unwrap_or_default()
        .chars()
        .take(MAX_NAME)
        .collect();
    let unique = uuid::Uuid::new_v4().as_u64_pair().0;
    let second = Timestamp::from_second(now.as_second()).map(Time).ok();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{unique:016x}")),
            namespace: meta.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(VirtualMachineInstance::api_version(&()).into_owned()),
            kind: Some(VirtualMachineInstance::kind(&()).into_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            ..ObjectReference::default()
        },
        type_: Some(if happening.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(happening.reason.to_owned()),
        message: Some(bounded(&happening.message)),
        action: Some(happening.reason.to_owned()),
        source: Some(EventSource {
            component: Some(COMPONENT.to_owned()),
            host: Some(node.to_owned()),
        }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(node.to_owned()),
        count: Some(1),
        first_timestamp: second.clone(),
        last_timestamp: second,
        event_time: Some(MicroTime(now)),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_still_makes_an_events_name() {
        let mut vmi = crate::sample::vmi_in("Running");
        vmi.metadata.name = Some("x".repeat(253));
        let event = event(&vmi, &Happening::normal("Started", "s"), "n", Timestamp::now());
        assert_eq!(event.metadata.name.unwrap().len(), 253);
        assert_eq!(event.type_.as_deref(), Some("Normal"));
    }
}
