//! How objects go: at once, after their finalizers, with their namespace, or with their owner.
//!
//! ```text
//!   delete   finalizers left? mark with deletionTimestamp : remove
//!
//!   Background   the owner goes ─► what only it owned is deleted, and so on
//!   Foreground   the owner waits (a finalizer) ─► what it owns is deleted ─► the last that blocks it goes ─► so does the owner
//!   Orphan       what it owns forgets it ─► the owner goes
//! ```
//!
//! A cluster's garbage collector does that some time later. Here it is one write together with the deletion, so that nobody
//! sees the half of it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::batch::Batch;
use crate::builtin::DEFAULT_NAMESPACE;
use crate::metadata;
use crate::object::{Key, Object, Prefix, has_finalizers, metadata_mut};
use crate::status::{Answer, Failure};

/// Keeps an owner until all that it owns, and that blocks it, is gone.
const FOREGROUND: &str = "foregroundDeletion";

/// What a deletion came to.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object is gone.
    Gone(Arc<Object>),
    /// It is marked, and goes when its finalizers are gone.
    Marked(Arc<Object>),
}

/// What becomes of what an object owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// It is deleted after the object.
    #[default]
    Background,
    /// It is deleted before the object.
    Foreground,
    /// It stays.
    Orphan,
}

impl Propagation {
    /// From the word in DeleteOptions.
    pub(crate) fn of(word: &str) -> Answer<Self> {
        match word {
            "Background" => Ok(Self::Background),
            "Foreground" => Ok(Self::Foreground),
            "Orphan" => Ok(Self::Orphan),
            other => Err(Failure::bad_request(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            ))),
        }
    }
}

/// Deletes an object, or marks it where finalizers are in the way.
pub(crate) fn delete(
    batch: &mut Batch<'_>,
    object: &Arc<Object>,
    propagation: Propagation,
) -> Answer<Deleted> {
    match propagation {
        Propagation::Background => {}
        Propagation::Orphan => {
            for dependent in dependents(batch, object) {
                batch.put(dependent.key.clone(), without_owner(&dependent, object))?;
            }
        }
        Propagation::Foreground if !object.is_terminating() => return delete_last(batch, object),
        Propagation::Foreground => {}
    }
    let deleted = mark_or_remove(batch, object)?;
    if let Deleted::Gone(gone) = &deleted {
        follow(batch, Arc::clone(gone))?;
    }
    Ok(deleted)
}

/// Removes an object whose last finalizer has gone, in its last form, with all that goes with it.
pub(crate) fn remove(batch: &mut Batch<'_>, key: &Key, last: Value) -> Answer<Option<Arc<Object>>> {
    let Some(gone) = batch.remove(key, Some(last)) else {
        return Ok(None);
    };
    follow(batch, Arc::clone(&gone))?;
    Ok(Some(gone))
}

/// Marks an owner, deletes what it owns, and lets it go if that was all.
fn delete_last(batch: &mut Batch<'_>, owner: &Arc<Object>) -> Answer<Deleted> {
    let mut value = owner.value.clone();
    mark(&mut value);
    let finalizers = metadata_mut(&mut value)
        .entry("finalizers")
        .or_insert_with(|| json!([]));
    if let Some(finalizers) = finalizers.as_array_mut() {
        finalizers.push(json!(FOREGROUND));
    }
    let marked = batch.put(owner.key.clone(), value)?;
    for dependent in dependents(batch, &marked) {
        delete(batch, &dependent, Propagation::Background)?;
    }
    match batch.get(&marked.key) {
        Some(left) if has_blocking_dependents(batch, &left) => Ok(Deleted::Marked(left)),
        Some(left) => match unblock(batch, &left)? {
            Some(gone) => {
                follow(batch, Arc::clone(&gone))?;
                Ok(Deleted::Gone(gone))
            }
            None => Ok(Deleted::Marked(batch.get(&left.key).unwrap_or(left))),
        },
        // The last that it owned has taken it along.
        None => Ok(Deleted::Gone(marked)),
    }
}

/// After an object: what it alone owned, and the owners that waited for it.
fn follow(batch: &mut Batch<'_>, first: Arc<Object>) -> Answer<()> {
    let mut gone = vec![first];
    while let Some(object) = gone.pop() {
        for dependent in dependents(batch, &object) {
            let left = without_owner(&dependent, &object);
            if owners(&left).next().is_some() {
                batch.put(dependent.key.clone(), left)?;
            } else if let Deleted::Gone(next) = mark_or_remove(batch, &dependent)? {
                gone.push(next);
            }
        }
        for owner in waiting_for(batch, &object) {
            if !has_blocking_dependents(batch, &owner) {
                gone.extend(unblock(batch, &owner)?);
            }
        }
    }
    Ok(())
}

fn mark_or_remove(batch: &mut Batch<'_>, object: &Arc<Object>) -> Answer<Deleted> {
    if !object.has_finalizers() {
        let gone = batch.remove(&object.key, None);
        return Ok(Deleted::Gone(gone.unwrap_or_else(|| Arc::clone(object))));
    }
    if object.is_terminating() {
        return Ok(Deleted::Marked(Arc::clone(object)));
    }
    let mut value = object.value.clone();
    mark(&mut value);
    Ok(Deleted::Marked(batch.put(object.key.clone(), value)?))
}

/// Takes away what kept an owner until now; returns it if nothing else does.
fn unblock(batch: &mut Batch<'_>, owner: &Arc<Object>) -> Answer<Option<Arc<Object>>> {
    let mut value = owner.value.clone();
    if let Some(finalizers) = metadata_mut(&mut value)
        .get_mut("finalizers")
        .and_then(Value::as_array_mut)
    {
        finalizers.retain(|finalizer| finalizer != FOREGROUND);
    }
    if has_finalizers(&value) {
        batch.put(owner.key.clone(), value)?;
        return Ok(None);
    }
    Ok(batch.remove(&owner.key, Some(value)))
}

/// What an object owns. Owners are of the same namespace, or of none.
fn dependents(batch: &Batch<'_>, owner: &Object) -> Vec<Arc<Object>> {
    let (uid, namespace) = (owner.text("uid"), owner.text("namespace"));
    let near = |object: &Object| namespace.is_empty() || object.text("namespace") == namespace;
    let found = batch.all().filter(|object| {
        owners(&object.value).any(|owner| owner["uid"] == uid) && near(object) && object.text("uid") != uid
    });
    found.cloned().collect()
}

/// Owners that go once this object is gone.
fn waiting_for(batch: &Batch<'_>, gone: &Object) -> Vec<Arc<Object>> {
    let blocks = |owner: &Object| owners(&gone.value).any(|of| of["uid"] == owner.text("uid") && blocks(of));
    let found = batch.all().filter(|owner| is_held(owner) && blocks(owner));
    found.cloned().collect()
}

fn has_blocking_dependents(batch: &Batch<'_>, owner: &Object) -> bool {
    let uid = owner.text("uid");
    let mut all = dependents(batch, owner).into_iter();
    all.any(|object| owners(&object.value).any(|of| of["uid"] == uid && blocks(of)))
}

fn blocks(owner: &Value) -> bool {
    owner["blockOwnerDeletion"] == true
}

fn is_held(object: &Object) -> bool {
    let finalizers = object.metadata("finalizers").and_then(Value::as_array);
    finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == FOREGROUND))
}

fn owners(value: &Value) -> impl Iterator<Item = &Value> {
    let owners = value.pointer("/metadata/ownerReferences");
    owners.and_then(Value::as_array).into_iter().flatten()
}

/// What an object is once it has forgotten an owner.
fn without_owner(object: &Object, owner: &Object) -> Value {
    let mut value = object.value.clone();
    let metadata = metadata_mut(&mut value);
    if let Some(owners) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) {
        owners.retain(|of| of["uid"] != owner.text("uid"));
        if owners.is_empty() {
            metadata.remove("ownerReferences");
        }
    }
    value
}

fn mark(value: &mut Value) {
    let metadata = metadata_mut(value);
    let generation = metadata.get("generation").and_then(Value::as_u64).unwrap_or(0);
    metadata.insert("deletionTimestamp".to_owned(), json!(metadata::now()));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
    metadata.insert("generation".to_owned(), json!(generation + 1));
}

/// Where a namespace lies.
pub(crate) fn namespace_key(namespace: &str) -> Key {
    Key::new(&Prefix::of("", "namespaces"), None, namespace)
}

fn within(object: &Object, namespace: &str) -> bool {
    object.text("namespace") == namespace
}

/// A namespace goes with all that is in it, once that has gone.
pub(crate) fn delete_namespace(
    batch: &mut Batch<'_>,
    namespace: &Arc<Object>,
    name: &str,
) -> Answer<Deleted> {
    if name == DEFAULT_NAMESPACE {
        return Err(Failure::forbidden(
            "",
            "namespaces",
            name,
            "this namespace may not be deleted",
        ));
    }
    let mut value = namespace.value.clone();
    if !namespace.is_terminating() {
        mark(&mut value);
    }
    value["status"] = json!({"phase": "Terminating"});
    let marked = batch.put(namespace.key.clone(), value)?;
    let content: Vec<Key> = batch
        .all()
        .filter(|object| within(object, name))
        .map(|object| object.key.clone())
        .collect();
    for key in content {
        // It may have gone with its owner.
        if let Some(object) = batch.get(&key) {
            delete(batch, &object, Propagation::Background)?;
        }
    }
    Ok(match settle_namespace(batch, Some(name)) {
        Some(gone) => Deleted::Gone(gone),
        None => Deleted::Marked(marked),
    })
}

/// Removes a namespace that is being deleted and has become empty.
pub(crate) fn settle_namespace(batch: &mut Batch<'_>, name: Option<&str>) -> Option<Arc<Object>> {
    let name = name?;
    let namespace = batch.get(&namespace_key(name))?;
    if !namespace.is_terminating()
        || namespace.has_finalizers()
        || batch.all().any(|object| within(object, name))
    {
        return None;
    }
    batch.remove(&namespace.key, None)
}
