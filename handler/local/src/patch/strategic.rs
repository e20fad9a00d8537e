//! Strategic merge patch: what `kubectl` sends for a change of Kubernetes' own kinds.
//!
//! Like a merge patch, but it knows what tells the items of some lists apart, so that two authors can each change their own. Which
//! lists these are is a fact of each kind ([`Lists`]); every other list is replaced as a whole. `$patch`, `$retainKeys`,
//! `$deleteFromPrimitiveList/…` and `$setElementOrder/…` are understood.

use serde_json::{Map, Value};

use crate::limits;
use crate::status::{Answer, Failure};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// How the items of a list are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// By this field.
    Keyed(&'static str),
    /// By what they are.
    Set,
}

/// Lists that are merged, by the names of the fields that lead to them.
pub(crate) type Lists = &'static [(&'static str, List)];

/// Those of every kind.
const EVERYWHERE: Lists = &[
    ("metadata.ownerReferences", List::Keyed("uid")),
    ("metadata.finalizers", List::Set),
];

/// How the items of the list at this path are told apart; none where it is replaced as a whole.
pub(crate) fn known(lists: Lists, path: &str) -> Option<List> {
    let mut known = EVERYWHERE.iter().chain(lists);
    known.find(|(name, _)| *name == path).map(|(_, list)| *list)
}

/// Applies a patch to an object of a kind that has these lists.
pub(crate) fn apply(object: &mut Value, patch: &Map<String, Value>, lists: Lists) -> Answer<()> {
    match object {
        Value::Object(fields) => Merge { lists }.fields(fields, patch, ""),
        _ => Err(Failure::bad_request("only objects are patched")),
    }
}

struct Merge {
    lists: Lists,
}

impl Merge {
    fn list(&self, path: &str) -> Option<List> {
        known(self.lists, path)
    }

    fn fields(&self, object: &mut Map<String, Value>, patch: &Map<String, Value>, path: &str) -> Answer<()> {
        match directive(patch)? {
            Some(Directive::Delete) => {
                object.clear();
                return Ok(());
            }
            Some(Directive::Replace) => object.clear(),
            None => {}
        }
        retain(object, patch)?;
        let below = |field: &str| match path {
            "" => field.to_owned(),
            path => format!("{path}.{field}"),
        };
        for (name, value) in patch {
            if let Some(field) = name.strip_prefix(DELETE_FROM) {
                let gone = items(value, name)?;
                if let Some(Value::Array(list)) = object.get_mut(field) {
                    list.retain(|item| !gone.contains(item));
                }
            } else if let Some(field) = name.strip_prefix(ORDER) {
                self.ordered(object, patch, field, items(value, name)?, &below(field))?;
            } else if !name.starts_with('$') && !patch.contains_key(&format!("{ORDER}{name}")) {
                self.field(object, name, value, &below(name))?;
            }
        }
        Ok(())
    }

    fn field(&self, object: &mut Map<String, Value>, name: &str, value: &Value, path: &str) -> Answer<()> {
        match (value, self.list(path)) {
            (Value::Null, _) => {
                object.remove(name);
            }
            (Value::Object(patch), _) => {
                let field = object.entry(name).or_insert(Value::Null);
                if !field.is_object() {
                    *field = Value::Object(Map::new());
                }
                if let Value::Object(fields) = field {
                    self.fields(fields, patch, path)?;
                }
            }
            (Value::Array(patch), Some(kind)) => {
                let field = object.entry(name).or_insert(Value::Null);
                if !field.is_array() {
                    *field = Value::Array(Vec::new());
                }
                if let Value::Array(list) = field {
                    self.items(list, patch, kind, path)?;
                }
            }
            _ => {
                object.insert(name.to_owned(), value.clone());
            }
        }
        Ok(())
    }

    /// The items of the patch, each into the one that it is about, or behind all others.
    fn items(&self, list: &mut Vec<Value>, patch: &[Value], kind: List, path: &str) -> Answer<()> {
        bounded(patch)?;
        let List::Keyed(key) = kind else {
            for item in patch {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
            return Ok(());
        };
        let replaces = |item: &Value| item[DIRECTIVE] == "replace" && item.get(key).is_none();
        if patch.iter().any(replaces) {
            list.clear();
        }
        for item in patch.iter().filter(|item| !replaces(item)) {
            let fields = item
                .as_object()
                .filter(|fields| fields.contains_key(key))
                .ok_or_else(|| {
                    Failure::bad_request(format!("the patch has an item of {path} without its key '{key}'"))
                })?;
            let at = list.iter().position(|other| other.get(key) == item.get(key));
            match (directive(fields)?, at) {
                (Some(Directive::Delete), Some(at)) => {
                    list.remove(at);
                }
                (Some(Directive::Delete), None) => {}
                (_, at) => {
                    let at = at.unwrap_or_else(|| {
                        list.push(Value::Object(Map::new()));
                        list.len() - 1
                    });
                    if let Value::Object(object) = &mut list[at] {
                        self.fields(object, fields, path)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Merges a list, and brings it into the order that the author has: those of others keep theirs.
    fn ordered(
        &self,
        object: &mut Map<String, Value>,
        patch: &Map<String, Value>,
        name: &str,
        order: &[Value],
        path: &str,
    ) -> Answer<()> {
        bounded(order)?;
        let before = object
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        if let Some(value) = patch.get(name) {
            self.field(object, name, value, path)?;
        }
        if let (Some(kind), Some(Value::Array(list))) = (self.list(path), object.get_mut(name)) {
            reorder(list, order, &before, kind);
        }
        Ok(())
    }
}

fn reorder(list: &mut Vec<Value>, order: &[Value], before: &[Value], kind: List) {
    let same = |one: &Value, other: &Value| match kind {
        List::Keyed(key) => one.get(key) == other.get(key),
        List::Set => one == other,
    };
    let place = |item: &Value, among: &[Value]| among.iter().position(|other| same(item, other));
    let (mut named, mut merged): (Vec<_>, Vec<_>) =
        list.drain(..).partition(|item| place(item, order).is_some());
    named.sort_by_key(|item| place(item, order));
    let mut from = 0;
    for item in named {
        let later = |was: usize| {
            let mut rest = merged[from..].iter();
            rest.position(|other| place(other, before) > Some(was))
                .map(|found| from + found)
        };
        let at = place(&item, before).and_then(later).unwrap_or(merged.len());
        merged.insert(at, item);
        from = at + 1;
    }
    *list = merged;
}

enum Directive {
    Delete,
    Replace,
}

fn directive(patch: &Map<String, Value>) -> Answer<Option<Directive>> {
    match patch
        .get(DIRECTIVE)
        .map(|value| value.as_str().unwrap_or_default())
    {
        None | Some("merge") => Ok(None),
        Some("delete") => Ok(Some(Directive::Delete)),
        Some("replace") => Ok(Some(Directive::Replace)),
        Some(other) => Err(Failure::bad_request(format!(
            "unknown directive in the patch: $patch: {other:?}"
        ))),
    }
}

/// Only the named fields stay: those of one variant, where another one was.
fn retain(object: &mut Map<String, Value>, patch: &Map<String, Value>) -> Answer<()> {
    let Some(kept) = patch.get(RETAIN) else {
        return Ok(());
    };
    let kept = items(kept, RETAIN)?;
    let stays = |name: &str| kept.iter().any(|kept| kept == name);
    if let Some(name) = patch.keys().find(|name| !name.starts_with('$') && !stays(name)) {
        return Err(Failure::bad_request(format!(
            "the patch sets {name}, which {RETAIN} does not name"
        )));
    }
    object.retain(|name, _| stays(name));
    Ok(())
}

fn items<'a>(value: &'a Value, name: &str) -> Answer<&'a [Value]> {
    let list = value.as_array().map(Vec::as_slice);
    list.ok_or_else(|| Failure::bad_request(format!("{name} of the patch is not a list")))
}

fn bounded(list: &[Value]) -> Answer<()> {
    match list.len() > limits::PATCHED_ITEMS {
        true => Err(Failure::too_large(format!(
            "The allowed maximum items of a merged list in a patch is {}, got {}",
            limits::PATCHED_ITEMS,
            list.len()
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const LISTS: Lists = &[("status.conditions", List::Keyed("type"))];

    fn patched(object: &Value, patch: &Value) -> Result<Value, u16> {
        let mut object = object.clone();
        apply(&mut object, patch.as_object().unwrap(), LISTS).map_err(|failure| failure.code().as_u16())?;
        Ok(object)
    }

    #[test]
    fn fields_are_set_and_removed() {
        let object = json!({"data": {"a": "1", "b": "2"}, "plain": [1, 2]});
        let patch = json!({"data": {"a": null, "c": {"d": null, "e": 1}}, "plain": [3]});
        assert_eq!(
            patched(&object, &patch),
            Ok(json!({"data": {"b": "2", "c": {"e": 1}}, "plain": [3]}))
        );
    }

    #[test]
    fn items_with_a_key_are_merged() {
        let object =
            json!({"status": {"conditions": [{"type": "A", "status": "True", "why": 1}, {"type": "B"}]}});
        let patch = json!({"status": {"conditions": [
            {"type": "A", "status": "False"}, {"type": "C"}, {"$patch": "delete", "type": "B"},
        ]}});
        let merged =
            json!({"status": {"conditions": [{"type": "A", "status": "False", "why": 1}, {"type": "C"}]}});
        assert_eq!(patched(&object, &patch), Ok(merged));
        let replaced = json!({"status": {"conditions": [{"$patch": "replace"}, {"type": "Z"}]}});
        assert_eq!(
            patched(&object, &replaced),
            Ok(json!({"status": {"conditions": [{"type": "Z"}]}}))
        );
        assert_eq!(
            patched(&object, &json!({"status": {"conditions": [{"status": "False"}]}})),
            Err(400)
        );
    }

    #[test]
    fn sets_grow_and_shrink_by_name() {
        let object = json!({"metadata": {"finalizers": ["a/b", "c/d"]}});
        let grown = json!({"metadata": {"finalizers": ["c/d", "e/f"]}});
        assert_eq!(
            patched(&object, &grown),
            Ok(json!({"metadata": {"finalizers": ["a/b", "c/d", "e/f"]}}))
        );
        let shrunk = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}});
        assert_eq!(
            patched(&object, &shrunk),
            Ok(json!({"metadata": {"finalizers": ["c/d"]}}))
        );
    }

    #[test]
    fn the_authors_order_is_kept_and_others_stay_where_they_were() {
        let object = json!({"metadata": {"finalizers": ["mine/1", "theirs/1", "mine/2", "theirs/2"]}});
        let order = json!(["mine/2", "mine/1", "mine/3"]);
        let patch = json!({"metadata": {"$setElementOrder/finalizers": order, "finalizers": ["mine/3"]}});
        assert_eq!(
            patched(&object, &patch),
            Ok(json!({"metadata": {"finalizers": ["theirs/1", "mine/2", "mine/1", "theirs/2", "mine/3"]}}))
        );
    }

    #[test]
    fn directives_replace_delete_and_retain() {
        let object = json!({"spec": {"a": 1, "b": 2}});
        let replace = json!({"spec": {"$patch": "replace", "c": 3}});
        assert_eq!(patched(&object, &replace), Ok(json!({"spec": {"c": 3}})));
        let delete = json!({"spec": {"$patch": "delete"}});
        assert_eq!(patched(&object, &delete), Ok(json!({"spec": {}})));
        let retain = json!({"spec": {"$retainKeys": ["b", "c"], "c": 3}});
        assert_eq!(patched(&object, &retain), Ok(json!({"spec": {"b": 2, "c": 3}})));
        assert_eq!(
            patched(&object, &json!({"spec": {"$retainKeys": ["b"], "c": 3}})),
            Err(400)
        );
        assert_eq!(
            patched(&object, &json!({"spec": {"$patch": "explode"}})),
            Err(400)
        );
    }

    #[test]
    fn long_lists_are_refused() {
        let long: Vec<_> = (0..=limits::PATCHED_ITEMS)
            .map(|index| json!({"type": index}))
            .collect();
        assert_eq!(
            patched(&json!({}), &json!({"status": {"conditions": long}})),
            Err(413)
        );
    }

    proptest! {
        #[test]
        fn a_patch_twice_is_a_patch_once(a in "[a-c]", b in "[a-c]", c in "[a-c]", order in prop::collection::vec("[a-c]", 0..3)) {
            let object = json!({"metadata": {"finalizers": [a, "x"]}, "status": {"conditions": [{"type": b}, {"type": "y"}]}});
            let patch = json!({
                "metadata": {"finalizers": [c], "$setElementOrder/finalizers": order},
                "status": {"conditions": [{"type": c, "status": "True"}]},
            });
            let once = patched(&object, &patch);
            prop_assert_eq!(patched(once.as_ref().unwrap(), &patch), once);
        }
    }
}
