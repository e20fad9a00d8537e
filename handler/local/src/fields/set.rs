//! Which fields somebody owns: a set of paths, and how it is written in `managedFields` (`fieldsV1`).
//!
//! An element of a path is kept as `fieldsV1` spells it, so that writing a set is laying its paths over each other:
//!
//! ```text
//!   f:NAME         a field                             .NAME
//!   k:{"name":…}   an item of a list, by its keys      [name=…]
//!   v:VALUE        an item of a list, by its value     [=VALUE]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::limits;

/// The mark of a path that is owned although others below it are, too.
const SELF: &str = ".";

/// Fields, by their paths.
pub(crate) type Set = BTreeSet<Path>;

/// The way from an object to one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path(Vec<String>);

/// A set as a tree, on its way into JSON.
#[derive(Default)]
struct Node<'a> {
    owned: bool,
    below: BTreeMap<&'a str, Node<'a>>,
}

// === impl Path ===

impl Path {
    /// A field of what this leads to.
    pub(crate) fn field(&self, name: &str) -> Self {
        self.then(format!("f:{name}"))
    }

    /// The item of a list that has these keys.
    pub(crate) fn keyed(&self, keys: &BTreeMap<&str, &Value>) -> Self {
        self.then(keyed(keys))
    }

    /// The item of a list that is this value.
    pub(crate) fn value(&self, value: &Value) -> Self {
        self.then(format!("v:{value}"))
    }

    fn then(&self, element: String) -> Self {
        let mut path = self.0.clone();
        path.push(element);
        Self(path)
    }

    pub(crate) fn elements(&self) -> &[String] {
        &self.0
    }

    /// The path of what holds the last element, as long as `length`.
    pub(crate) fn up_to(&self, length: usize) -> Self {
        Self(self.0.iter().take(length).cloned().collect())
    }

    /// Whether this is the other one, or leads to something in it.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

/// An item's keys as an element of a path.
pub(crate) fn keyed(keys: &BTreeMap<&str, &Value>) -> String {
    let fields: Vec<String> = keys
        .iter()
        .map(|(name, value)| format!("{}:{value}", Value::from(*name)))
        .collect();
    format!("k:{{{}}}", fields.join(","))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for element in &self.0 {
            match element.split_at_checked(2) {
                Some(("k:", keys)) => {
                    let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let keys: Vec<String> = keys
                        .iter()
                        .map(|(name, value)| format!("{name}={value}"))
                        .collect();
                    write!(f, "[{}]", keys.join(","))?;
                }
                Some(("v:", value)) => write!(f, "[={value}]")?,
                Some(("i:", index)) => write!(f, "[{index}]")?,
                Some((_, name)) => write!(f, ".{name}")?,
                None => {}
            }
        }
        Ok(())
    }
}

/// A set as `fieldsV1`.
pub(crate) fn encode(set: &Set) -> Value {
    let mut root = Node::default();
    for path in set {
        let mut at = &mut root;
        for element in &path.0 {
            at = at.below.entry(element).or_default();
        }
        at.owned = true;
    }
    root.into_json()
}

impl Node<'_> {
    fn into_json(self) -> Value {
        let mut fields = Map::new();
        if self.owned && !self.below.is_empty() {
            fields.insert(SELF.to_owned(), Value::Object(Map::new()));
        }
        for (element, node) in self.below {
            fields.insert(element.to_owned(), node.into_json());
        }
        Value::Object(fields)
    }
}

/// A set that somebody wrote; `None` where it is none.
pub(crate) fn decode(value: &Value) -> Option<Set> {
    let mut set = Set::new();
    read(value, &Path::default(), &mut set)?;
    Some(set)
}

fn read(value: &Value, path: &Path, set: &mut Set) -> Option<()> {
    let fields = value.as_object().filter(|_| path.0.len() <= limits::NESTING)?;
    for (name, below) in fields {
        if name == SELF {
            set.insert(path.clone());
            continue;
        }
        let inner = path.then(element(name)?);
        if below.as_object()?.is_empty() {
            set.insert(inner);
        } else {
            read(below, &inner, set)?;
        }
    }
    Some(())
}

/// An element, spelled as we spell it.
fn element(name: &str) -> Option<String> {
    match name.split_at_checked(2)? {
        ("f:", _) => Some(name.to_owned()),
        ("k:", keys) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).ok()?;
            let keys = keys.iter().map(|(name, value)| (name.as_str(), value)).collect();
            Some(keyed(&keys))
        }
        ("v:", value) => Some(format!("v:{}", serde_json::from_str::<Value>(value).ok()?)),
        ("i:", index) => index.parse::<u32>().ok().map(|index| format!("i:{index}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_is_written_as_kubernetes_writes_it_and_read_again() {
        let fields = json!({
            "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"a/b\"": {}}},
            "f:spec": {"f:ports": {".": {}, "k:{\"name\":\"http\"}": {".": {}, "f:name": {}, "f:port": {}}}},
        });
        let set = decode(&fields).unwrap();
        assert_eq!(set.len(), 6);
        assert_eq!(encode(&set), fields);
        let shown: Vec<String> = set.iter().map(ToString::to_string).collect();
        assert!(
            shown.contains(&".spec.ports[name=\"http\"].port".to_owned()),
            "{shown:?}"
        );
        assert!(
            shown.contains(&".metadata.finalizers[=\"a/b\"]".to_owned()),
            "{shown:?}"
        );
    }

    #[test]
    fn what_is_no_set_is_none() {
        for wrong in [
            json!([]),
            json!({"spec": {}}),
            json!({"f:a": 1}),
            json!({"k:{": {}}),
            json!({"ä": {}}),
        ] {
            assert_eq!(decode(&wrong), None, "{wrong}");
        }
        let mut deep = json!({});
        for _ in 0..limits::NESTING + 2 {
            deep = json!({ "f:a": deep });
        }
        assert_eq!(decode(&deep), None);
    }

    proptest! {
        #[test]
        fn any_set_survives(names in proptest::collection::vec("[a-z./\"]{0,4}", 0..6), key in "\\PC{0,6}") {
            let mut set = Set::new();
            let mut path = Path::default();
            for name in &names {
                path = path.field(name);
                set.insert(path.clone());
            }
            let value = Value::from(key);
            set.insert(path.keyed(&[("name", &value)].into()));
            prop_assert_eq!(decode(&encode(&set)), Some(set));
        }
    }
}
