//! Events in their newer form: `events.k8s.io/v1` shows, under other field names, the same objects as core `v1`.

use serde_json::Value;

use crate::resource::View;

/// (name in core/v1, name in events.k8s.io/v1)
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// How `events.k8s.io/v1` sees the events of core `v1`.
pub(crate) const EVENTS: View = View::Form {
    stored: ("", "events"),
    show: newer,
    store: core,
};

fn newer(event: Value) -> Value {
    renamed(event, "events.k8s.io/v1", |(core, newer)| (core, newer))
}

fn core(event: Value) -> Value {
    renamed(event, "v1", |(core, newer)| (newer, core))
}

fn renamed(
    mut event: Value,
    api_version: &str,
    direction: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    if let Some(fields) = event.as_object_mut() {
        for (from, to) in RENAMED.map(direction) {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
        fields.insert("apiVersion".to_owned(), Value::from(api_version));
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_survives_both_ways() {
        let stored = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "a"}, "message": "m", "count": 2});
        let shown = newer(stored.clone());
        assert_eq!(shown["regarding"]["name"], "a");
        assert_eq!(shown["note"], "m");
        assert_eq!(core(shown), stored);
    }
}
