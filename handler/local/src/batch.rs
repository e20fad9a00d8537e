//! Changes that become true together: what a write decides on, before any of it is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::history::Change;
use crate::limits;
use crate::object::{Key, Object, Prefix};
use crate::status::{Answer, Failure};
use crate::store::State;

/// The state as it is, with what was staged so far on top.
pub(crate) struct Batch<'a> {
    state: &'a State,
    changes: Vec<Change>,
    staged: BTreeMap<Key, Option<Arc<Object>>>,
    objects: usize,
    bytes: usize,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        let (objects, bytes) = (state.objects.len(), state.bytes);
        Self {
            state,
            changes: Vec::new(),
            staged: BTreeMap::new(),
            objects,
            bytes,
        }
    }

    /// The object as this batch leaves it.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        match self.staged.get(key) {
            Some(staged) => staged.clone(),
            None => self.state.objects.get(key).cloned(),
        }
    }

    /// All objects under a prefix, as this batch leaves them.
    pub(crate) fn list(&self, prefix: &Prefix) -> Vec<Arc<Object>> {
        let stored = self
            .state
            .under(prefix, None)
            .filter(|object| !self.staged.contains_key(&object.key));
        let staged = self
            .staged
            .values()
            .flatten()
            .filter(|object| prefix.covers(&object.key));
        stored.chain(staged).cloned().collect()
    }

    /// All objects, as this batch leaves them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Object>> {
        let stored = self
            .state
            .objects
            .values()
            .filter(|object| !self.staged.contains_key(&object.key));
        stored.chain(self.staged.values().flatten())
    }

    /// Stages an object and returns it as it will be.
    pub(crate) fn put(&mut self, key: Key, value: Value) -> Answer<Arc<Object>> {
        if crate::patch::depth(&value) > limits::NESTING {
            return Err(Failure::bad_request(format!(
                "the object is nested deeper than {} levels",
                limits::NESTING
            )));
        }
        let object = Arc::new(Object::new(key.clone(), value, self.next_revision()));
        if object.size > limits::OBJECT_BYTES {
            let (size, most) = (object.size, limits::OBJECT_BYTES);
            return Err(Failure::too_large(format!(
                "the object takes {size} bytes, at most {most} are kept"
            )));
        }
        let before = self.get(&key);
        let objects = self.objects + usize::from(before.is_none());
        let bytes = self.bytes + object.size - before.as_ref().map_or(0, |before| before.size);
        let grows = objects > self.objects || bytes > self.bytes;
        if grows && (objects > limits::OBJECTS || bytes > limits::STORE_BYTES) {
            let message = format!(
                "the local store is full: it keeps at most {} objects and {} bytes",
                limits::OBJECTS,
                limits::STORE_BYTES
            );
            return Err(Failure::refused(message));
        }
        (self.objects, self.bytes) = (objects, bytes);
        self.stage(key, before, Some(Arc::clone(&object)), Arc::clone(&object));
        Ok(object)
    }

    /// Stages an object's removal and returns its last state; `last` where that differs from what is stored.
    pub(crate) fn remove(&mut self, key: &Key, last: Option<Value>) -> Option<Arc<Object>> {
        let before = self.get(key)?;
        self.objects -= 1;
        self.bytes -= before.size;
        let value = last.unwrap_or_else(|| before.value.clone());
        let shown = Arc::new(Object::new(key.clone(), value, self.next_revision()));
        self.stage(key.clone(), Some(before), None, Arc::clone(&shown));
        Some(shown)
    }

    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    fn next_revision(&self) -> u64 {
        self.state.revision + self.changes.len() as u64 + 1
    }

    fn stage(
        &mut self,
        key: Key,
        before: Option<Arc<Object>>,
        after: Option<Arc<Object>>,
        shown: Arc<Object>,
    ) {
        self.staged.insert(key.clone(), after.clone());
        self.changes.push(Change {
            key,
            revision: shown.revision,
            before,
            after,
            shown,
        });
    }
}
