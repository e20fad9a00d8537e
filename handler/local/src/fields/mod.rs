//! Who owns which field of an object: what server-side apply goes by.
//!
//! ```text
//!   apply    config ─► leaves ─► what is owned now ─┐        live ─┬─ laid over by config
//!                        what was owned before ─────┴─► given up ──┘─► taken out, where nobody else has it
//!            what changes that is another's ─► 409, unless forced
//!
//!   write    before, after ─► what changed ─► is the writer's, and no longer anybody else's
//! ```
//!
//! Owners are noted in `metadata.managedFields` as Kubernetes notes them. They cost about as much as the object itself, so an object
//! that nobody named themselves for when they made it (as kubectl does, and controllers do not) has none until somebody applies to it;
//! what is there then is `before-first-apply`'s. Events, of which there are many and short-lived ones, have none ever.

mod entries;
mod set;
mod shape;
mod value;

use serde_json::{Value, json};

use self::entries::{Entry, Operation};
use self::set::{Path, Set};
use self::shape::Shape;
use self::value::{Leaves, difference, leaves};
use crate::metadata;
use crate::object::metadata_mut;
use crate::resource::{Resource, View};
use crate::status::{Answer, Cause, Failure};

/// Who has what was there before somebody applied.
const BEFORE: &str = "before-first-apply";
/// Who takes over what it had applied before servers could.
const KUBECTL: &str = "kubectl";
/// Where that is noted.
const LAST_APPLIED: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";

/// Who writes.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    pub(crate) name: String,
    /// Whether that is what they call themselves, and not what their program is called.
    pub(crate) is_named: bool,
}

/// One write, as far as its owner is concerned.
#[derive(Clone, Copy)]
pub(crate) struct Write<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) subresource: Option<&'static str>,
    pub(crate) manager: &'a Manager,
}

/// What somebody applies.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) object: Value,
    /// Whether what is another's is taken.
    pub(crate) force: bool,
    fields: Set,
}

impl Config {
    /// What is applied, if it can be: items of lists have to be told apart.
    pub(crate) fn new(resource: &Resource, object: Value, force: bool) -> Answer<Self> {
        let shape = Shape::Object(resource);
        if let Some(path) = value::muddled(&shape, &object, &Path::default()) {
            return Err(Failure::bad_request(format!(
                "failed to create typed patch object: {path}: items without their keys, or with those of another"
            )));
        }
        let mut known = object.clone();
        if let Some(schema) = &resource.schema {
            schema.prune(&mut known);
        }
        let fields = leaves(&shape, &known).into_keys().collect();
        Ok(Self {
            object,
            force,
            fields,
        })
    }
}

impl Write<'_> {
    fn entry(&self, operation: Operation, fields: Set) -> Entry {
        Entry {
            manager: self.manager.name.clone(),
            operation,
            api_version: self.resource.api_version(),
            subresource: self.subresource.map(str::to_owned),
            time: metadata::now(),
            fields,
        }
    }

    fn leaves<'v>(&self, object: &'v Value) -> Leaves<'v> {
        leaves(&Shape::Object(self.resource), object)
    }

    /// The live object with what is applied laid over it, and without what is given up; or who is in the way.
    pub(crate) fn apply(&self, live: &Value, config: &Config) -> Answer<Value> {
        let shape = Shape::Object(self.resource);
        let entries = self.entries_for_apply(live);
        let ours = self.entry(Operation::Apply, config.fields.clone());
        let (before, others): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().partition(|entry| entry.is_as(&ours));
        let mut merged = value::merge(&shape, live, &config.object);
        if !config.force {
            let changed = difference(&self.leaves(live), &self.leaves(&merged)).changed;
            self.refuse_conflicts(live, &changed, &others)?;
        }
        let owned: Set = others
            .iter()
            .flat_map(|entry| &entry.fields)
            .chain(&config.fields)
            .cloned()
            .collect();
        let gone: Set = before
            .iter()
            .flat_map(|entry| &entry.fields)
            .filter(|path| !owned.contains(*path))
            .cloned()
            .collect();
        value::remove(&mut merged, &gone, &owned);
        Ok(merged)
    }

    fn refuse_conflicts(&self, live: &Value, changed: &Set, others: &[&Entry]) -> Answer<()> {
        let allowed = if self.manager.name == KUBECTL {
            self.last_applied(live)
        } else {
            Set::new()
        };
        let mut causes = Vec::new();
        for entry in others {
            let conflicts = entry
                .fields
                .intersection(changed)
                .filter(|path| !allowed.contains(*path));
            causes.extend(conflicts.map(|path| (entry.title(), path.to_string())));
        }
        match causes.is_empty() {
            true => Ok(()),
            false => Err(Failure::apply_conflict(&causes)),
        }
    }

    /// What kubectl has applied by itself and nobody has changed since.
    fn last_applied(&self, live: &Value) -> Set {
        let noted = live.pointer(LAST_APPLIED).and_then(Value::as_str);
        let Some(noted) = noted.and_then(|noted| serde_json::from_str::<Value>(noted).ok()) else {
            return Set::new();
        };
        let (noted, live) = (self.leaves(&noted), self.leaves(live));
        let same = noted
            .into_iter()
            .filter(|(path, value)| live.get(path) == Some(value));
        same.map(|(path, _)| path).collect()
    }

    /// Whose what is there is; somebody's in any case.
    fn entries_for_apply(&self, live: &Value) -> Vec<Entry> {
        let entries = noted(live);
        if !entries.is_empty() {
            return entries;
        }
        vec![Entry {
            manager: BEFORE.to_owned(),
            subresource: None,
            ..self.entry(Operation::Update, self.leaves(live).into_keys().collect())
        }]
    }

    /// Notes in an object who owns what after this write. `told` is what the writer said of that.
    pub(crate) fn note(
        &self,
        before: Option<&Value>,
        after: &mut Value,
        told: Option<&Value>,
        config: Option<&Config>,
    ) {
        metadata_mut(after).remove("managedFields");
        if !is_noted(self.resource) {
            return;
        }
        let mut entries = match (told.and_then(entries_told), before, config) {
            (Some(told), ..) => told,
            (None, Some(before), Some(_)) => self.entries_for_apply(before),
            (None, Some(before), None) => noted(before),
            (None, None, _) => Vec::new(),
        };
        let begins = config.is_some() || (before.is_none() && self.manager.is_named);
        if entries.is_empty() && !begins {
            return;
        }
        let change = difference(
            &before.map(|before| self.leaves(before)).unwrap_or_default(),
            &self.leaves(after),
        );
        let mut ours = match config {
            Some(config) => self.entry(Operation::Apply, config.fields.clone()),
            None => self.entry(Operation::Update, change.changed.clone()),
        };
        let was = entries
            .iter()
            .position(|entry| entry.is_as(&ours))
            .map(|at| entries.remove(at));
        for entry in &mut entries {
            entry
                .fields
                .retain(|path| !change.changed.contains(path) && !change.removed.contains(path));
        }
        if let Some(was) = was {
            if config.is_none() {
                ours.fields.extend(was.fields.iter().cloned());
                ours.fields.retain(|path| !change.removed.contains(path));
            }
            let is_same = ours.fields == was.fields && ours.api_version == was.api_version;
            if is_same && change.changed.is_empty() && change.removed.is_empty() {
                ours.time = was.time;
            }
        }
        entries.push(ours);
        entries::bound(&mut entries);
        // In an order that does not depend on who wrote last, so that a write that changes nothing changes nothing.
        entries.sort_by_key(|entry| (entry.operation == Operation::Update, entry.title()));
        metadata_mut(after).insert("managedFields".to_owned(), entries::write(&entries));
    }
}

/// What is noted in an object.
fn noted(object: &Value) -> Vec<Entry> {
    let noted = object.pointer("/metadata/managedFields");
    noted.and_then(entries::read).unwrap_or_default()
}

/// What a writer says of owners, if it says anything that makes sense: `[{}]` forgets them all.
fn entries_told(told: &Value) -> Option<Vec<Entry>> {
    if *told == json!([{}]) {
        return Some(Vec::new());
    }
    entries::read(told).filter(|entries| !entries.is_empty())
}

/// Whether owners are noted in objects of this kind.
pub(crate) fn is_noted(resource: &Resource) -> bool {
    resource.kept.is_none() && !matches!(resource.view, Some(View::Form { .. }))
}

impl Failure {
    /// 409: fields are others', named by who and which.
    fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let message = match conflicts {
            [(who, field)] => format!("Apply failed with 1 conflict: conflict with {who}: {field}"),
            _ => {
                let mut lines: Vec<String> = Vec::new();
                let mut last = None;
                for (who, field) in conflicts {
                    if last != Some(who) {
                        lines.push(format!("conflicts with {who}:"));
                    }
                    last = Some(who);
                    lines.push(format!("- {field}"));
                }
                format!(
                    "Apply failed with {} conflicts: {}",
                    conflicts.len(),
                    lines.join("\n")
                )
            }
        };
        let cause = |(who, field): &(String, String)| {
            Cause::new(
                "FieldManagerConflict",
                field.clone(),
                format!("conflict with {who}"),
            )
        };
        Self::conflicting(message, conflicts.iter().map(cause).collect())
    }
}

#[cfg(test)]
mod tests;
