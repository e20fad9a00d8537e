//! What the controllers tell of objects: events, all by one reporter.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

/// Who we are in events.
const COMPONENT: &str = "rvm-controller";

/// Where events go.
pub struct Story(Recorder);

// === impl Story ===

impl Story {
    /// Of this cluster.
    pub fn new(client: &Client) -> Self {
        Self(Recorder::new(client.clone(), Reporter::from(COMPONENT)))
    }

    /// Tells it. Events tell a story and carry no state: one that is lost is missed by nobody but its reader.
    pub async fn tell(&self, about: &impl Resource<DynamicType = ()>, event: Event) {
        if let Err(error) = self.0.publish(&event, &about.object_ref(&())).await {
            tracing::debug!(reason = event.reason, %error, "an event was not recorded");
        }
    }
}

/// An event in which that was done which it is for.
pub fn event(type_: EventType, reason: &str, note: String) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: reason.to_owned(),
        secondary: None,
    }
}
