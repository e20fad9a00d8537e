//! Objects taken apart into the fields that can be owned, and put together again.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::{Path, Set};
use super::shape::{Items, Shape};

/// What nobody owns: who an object is, and what the server says of it.
const NOBODYS: [&str; 2] = ["apiVersion", "kind"];
const NOBODYS_IN_METADATA: [&str; 10] = [
    "name",
    "namespace",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// That an item of a list is there.
static THERE: Value = Value::Null;

/// All that can be owned of an object, by its path.
pub(crate) type Leaves<'v> = BTreeMap<Path, &'v Value>;

/// What became of an object's fields.
pub(crate) struct Difference {
    /// Fields that are new or have another value.
    pub(crate) changed: Set,
    /// Fields that are no longer there.
    pub(crate) removed: Set,
}

/// Takes a value apart.
pub(crate) fn leaves<'v>(shape: &Shape<'_>, value: &'v Value) -> Leaves<'v> {
    let mut found = Leaves::new();
    take_apart(shape, value, &Path::default(), &mut found);
    found
}

fn take_apart<'v>(shape: &Shape<'_>, value: &'v Value, path: &Path, found: &mut Leaves<'v>) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !shape.is_whole() => {
            for (name, inner) in fields.iter().filter(|(name, _)| !is_nobodys(path, name)) {
                take_apart(&shape.field(name), inner, &path.field(name), found);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let items = shape.items();
            match (items.of(list), &items) {
                (Some(known), Items::Values) => {
                    let paths = known.values().map(|item| (path.value(item), &THERE));
                    found.extend(paths);
                }
                (Some(known), Items::Keyed(keys)) => {
                    for item in known.into_values() {
                        let fields = keys.iter().filter_map(|key| Some((*key, item.get(*key)?)));
                        let inner = path.keyed(&fields.collect());
                        take_apart(&shape.item(), item, &inner, found);
                        found.insert(inner, &THERE);
                    }
                }
                _ => {
                    found.insert(path.clone(), value);
                }
            }
        }
        _ => {
            found.insert(path.clone(), value);
        }
    }
}

fn is_nobodys(path: &Path, name: &str) -> bool {
    match path.elements() {
        [] => NOBODYS.contains(&name),
        [only] if only == "f:metadata" => NOBODYS_IN_METADATA.contains(&name),
        _ => false,
    }
}

/// What changed from one form of an object to the next.
pub(crate) fn difference(before: &Leaves<'_>, after: &Leaves<'_>) -> Difference {
    let changed = after
        .iter()
        .filter(|(path, value)| before.get(*path) != Some(*value));
    let removed = before.keys().filter(|path| !after.contains_key(*path));
    Difference {
        changed: changed.map(|(path, _)| path.clone()).collect(),
        removed: removed.cloned().collect(),
    }
}

/// The first list in what somebody applies whose items cannot be told apart, though they should.
pub(crate) fn muddled(shape: &Shape<'_>, value: &Value, path: &Path) -> Option<Path> {
    match value {
        Value::Object(fields) => {
            let mut fields = fields.iter();
            fields.find_map(|(name, inner)| muddled(&shape.field(name), inner, &path.field(name)))
        }
        Value::Array(list) => {
            let items = shape.items();
            if !matches!(items, Items::Whole) && items.of(list).is_none() {
                return Some(path.clone());
            }
            let item = shape.item();
            list.iter().find_map(|inner| muddled(&item, inner, path))
        }
        _ => None,
    }
}

/// An object with what somebody applies laid over it.
pub(crate) fn merge(shape: &Shape<'_>, live: &Value, applied: &Value) -> Value {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) if !shape.is_whole() => {
            let mut merged: Map<String, Value> = live.clone();
            for (name, value) in applied {
                let value = match live.get(name) {
                    Some(live) => merge(&shape.field(name), live, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(applied)) => merge_lists(shape, live, applied),
        (_, applied) => applied.clone(),
    }
}

/// Items that are there already stay where they are, new ones come behind them.
fn merge_lists(shape: &Shape<'_>, live: &[Value], applied: &[Value]) -> Value {
    let items = shape.items();
    let (Some(known), Some(wanted)) = (items.of(live), items.of(applied)) else {
        return Value::Array(applied.to_vec());
    };
    let counterpart = |item: &Value| wanted.get(&items.identity(item)?).copied();
    let old = live.iter().map(|item| {
        let applied = counterpart(item);
        applied.map_or_else(|| item.clone(), |applied| merge(&shape.item(), item, applied))
    });
    let is_new = |item: &&Value| {
        items
            .identity(item)
            .is_some_and(|identity| !known.contains_key(&identity))
    };
    let new = applied.iter().filter(is_new);
    Value::Array(old.chain(new.cloned()).collect())
}

/// Takes fields out of an object that nobody wants any more. What holds nothing else goes with them, unless somebody owns it.
pub(crate) fn remove(object: &mut Value, gone: &Set, owned: &Set) {
    for path in gone {
        // An item goes as a whole, unless something in it is somebody's.
        if !owned
            .range(path.clone()..)
            .next()
            .is_some_and(|next| next.is_within(path))
        {
            take_out(object, path, 0, owned);
        }
    }
}

fn take_out(value: &mut Value, path: &Path, depth: usize, owned: &Set) {
    let Some(element) = path.elements().get(depth) else {
        return;
    };
    let is_last = depth + 1 == path.elements().len();
    // Whether what is at this element goes, too, once it is empty.
    let mut empties = |inner: &mut Value| {
        take_out(inner, path, depth + 1, owned);
        let is_empty = match inner {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        is_empty && !owned.contains(&path.up_to(depth + 1))
    };
    match (value, element.split_at_checked(2)) {
        (Value::Object(fields), Some(("f:", name))) => {
            let goes = is_last || fields.get_mut(name).is_some_and(&mut empties);
            if goes {
                fields.remove(name);
            }
        }
        (Value::Array(items), Some((kind, key))) => {
            let Ok(key) = serde_json::from_str::<Value>(key) else {
                return;
            };
            let is_it = |item: &Value| match (kind, &key) {
                ("k:", Value::Object(keys)) => keys.iter().all(|(name, value)| item.get(name) == Some(value)),
                ("v:", key) => item == key,
                _ => false,
            };
            let Some(at) = items.iter().position(is_it) else {
                return;
            };
            if is_last || items.get_mut(at).is_some_and(&mut empties) {
                items.remove(at);
            }
        }
        _ => {}
    }
}
