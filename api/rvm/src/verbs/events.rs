//! `rvm events`: what the cluster has recorded about machines, the latest last.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::bare_name;
use crate::args::{Events, EventsOutput};
use crate::cluster::Cluster;
use crate::screen::{age, columns, progress, say};

/// The kinds of objects whose events are machines'.
const KINDS: [&str; 2] = ["VirtualMachine", "VirtualMachineInstance"];

/// Where an event's time may stand: recorders differ.
const TIMES: [&str; 4] = [
    "/series/lastObservedTime",
    "/lastTimestamp",
    "/eventTime",
    "/metadata/creationTimestamp",
];

pub async fn run(cluster: &Cluster, args: &Events) -> Result<()> {
    let name = args.name.as_deref().map(bare_name).transpose()?;
    let path = format!("/api/v1/namespaces/{}/events", cluster.namespace());
    let events = chosen(cluster.get(&path).await?, name);
    match args.output {
        EventsOutput::Json => Ok(say(&serde_json::to_string_pretty(&json!(events))?)?),
        EventsOutput::Table if events.is_empty() => {
            progress(&format!(
                "No events found in namespace {:?}.",
                cluster.namespace()
            ));
            Ok(())
        }
        EventsOutput::Table => {
            let now = Timestamp::now();
            let rows: Vec<_> = events.iter().map(|event| row(event, now)).collect();
            let header = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
            Ok(say(&columns(header, &rows))?)
        }
    }
}

/// The events of machines, or of this one, in the order of their times.
fn chosen(mut list: Value, name: Option<&str>) -> Vec<Value> {
    let Value::Array(items) = list["items"].take() else {
        return Vec::new();
    };
    let about = |event: &Value| {
        let object = &event["involvedObject"];
        let is_machine = object["kind"].as_str().is_some_and(|kind| KINDS.contains(&kind));
        is_machine && name.is_none_or(|name| object["name"] == name)
    };
    let mut events: Vec<Value> = items.into_iter().filter(about).collect();
    events.sort_by_key(time);
    events
}

fn time(event: &Value) -> Option<Timestamp> {
    let mut times = TIMES.iter().filter_map(|path| event.pointer(path)?.as_str());
    times.find_map(|time| time.parse().ok())
}

fn row(event: &Value, now: Timestamp) -> [String; 5] {
    let text = |path: &str| {
        let text = event.pointer(path).and_then(Value::as_str);
        text.unwrap_or_default().trim().to_owned()
    };
    let seen = time(event).map_or("<unknown>".to_owned(), |time| {
        age(now.as_second() - time.as_second())
    });
    let object = format!(
        "{}/{}",
        text("/involvedObject/kind").to_lowercase(),
        text("/involvedObject/name")
    );
    [seen, text("/type"), text("/reason"), object, text("/message")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, name: &str, field: &str, time: &str) -> Value {
        let mut event = json!({
            "involvedObject": {"kind": kind, "name": name}, "type": "Normal", "reason": time, "message": "It is so.\n",
        });
        event[field] = time.into();
        event
    }

    #[test]
    fn the_events_of_machines_are_in_the_order_of_their_times() {
        let list = || {
            json!({"items": [
                event("VirtualMachineInstance", "a", "lastTimestamp", "2026-01-01T00:00:09Z"),
                event("VirtualMachine", "b", "eventTime", "2026-01-01T00:00:03.000001Z"),
                event("Node", "a", "lastTimestamp", "2026-01-01T00:00:01Z"),
            ]})
        };
        let reasons = |name| -> Vec<String> {
            let chosen = chosen(list(), name);
            chosen.iter().map(|event| event["reason"].to_string()).collect()
        };
        assert_eq!(
            reasons(None),
            ["\"2026-01-01T00:00:03.000001Z\"", "\"2026-01-01T00:00:09Z\""]
        );
        assert_eq!(reasons(Some("a")), ["\"2026-01-01T00:00:09Z\""]);
        let now = "2026-01-01T00:01:09Z".parse().unwrap();
        assert_eq!(
            row(&chosen(list(), Some("a"))[0], now),
            [
                "60s",
                "Normal",
                "2026-01-01T00:00:09Z",
                "virtualmachineinstance/a",
                "It is so."
            ]
        );
    }
}
