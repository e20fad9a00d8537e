//! Objects that are kept for a while only, such as events, go when they are old: whenever a new one comes.

use std::sync::Arc;
use std::time::Instant;

use crate::batch::Batch;
use crate::object::{Key, Object};
use crate::resource::Resource;

/// Most objects removed along with one write, so that no write takes long.
const AT_ONCE: usize = 64;

/// Stages the removal of those objects of this kind that are too old at `now`.
pub(crate) fn sweep(batch: &mut Batch<'_>, resource: &Resource, now: Instant) {
    let Some(kept) = resource.kept else {
        return;
    };
    let prefix = resource.prefix();
    let age = |object: &Object| now.saturating_duration_since(object.written);
    let old = |object: &&Arc<Object>| prefix.covers(&object.key) && age(object) > kept;
    let keys: Vec<Key> = batch
        .all()
        .filter(old)
        .take(AT_ONCE)
        .map(|object| object.key.clone())
        .collect();
    for key in keys {
        batch.remove(&key, None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits;
    use crate::store::Store;
    use serde_json::json;

    #[test]
    fn old_events_go_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let resources = crate::builtin::resources();
        let events = resources
            .iter()
            .find(|resource| resource.plural == "events")
            .unwrap();
        let nodes = resources
            .iter()
            .find(|resource| resource.plural == "nodes")
            .unwrap();
        let event = Key::new(&events.prefix(), Some("default"), "e");
        let node = Key::new(&nodes.prefix(), None, "n");
        let later = Instant::now() + limits::EVENT_KEPT + Duration::from_secs(1);
        let left = store.write_blocking(false, |batch| {
            batch.put(event.clone(), json!({}))?;
            batch.put(node.clone(), json!({}))?;
            sweep(batch, events, Instant::now());
            let young = batch.get(&event).is_some();
            sweep(batch, nodes, later);
            sweep(batch, events, later);
            Ok((young, batch.get(&event).is_some(), batch.get(&node).is_some()))
        });
        assert_eq!(left.unwrap(), (true, false, true));
    }
}
