//! How each part of an object is merged: field by field, item by item, or as a whole.
//!
//! A custom kind's schema says it, and of a built-in one the same table that strategic merge patches go by; metadata is the same
//! in all. Where nothing is said, objects are merged by their fields and lists are replaced, as kube-apiserver does it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::set::keyed;
use crate::patch::strategic::{self, List, Lists};
use crate::resource::Resource;
use crate::schema::{ListKind, Schema};

/// A part of an object.
#[derive(Clone)]
pub(crate) enum Shape<'a> {
    /// All of it.
    Object(&'a Resource),
    /// What a schema describes.
    Schema(&'a Schema),
    /// What lies at this path of a kind that has these lists.
    Listed(Lists, String),
    /// Nothing is known of it.
    Free,
}

/// How the items of a list are told apart; a list of which nothing is said is one value.
pub(crate) enum Items<'a> {
    Whole,
    Values,
    Keyed(Vec<&'a str>),
}

impl<'a> Shape<'a> {
    pub(crate) fn field(&self, name: &str) -> Self {
        match self {
            Self::Object(resource) => match &resource.schema {
                Some(schema) if name != "metadata" => schema.field(name).map_or(Self::Free, Self::Schema),
                _ => Self::Listed(resource.merged.unwrap_or_default(), name.to_owned()),
            },
            Self::Schema(schema) => schema.field(name).map_or(Self::Free, Self::Schema),
            Self::Listed(lists, path) => Self::Listed(lists, format!("{path}.{name}")),
            Self::Free => Self::Free,
        }
    }

    /// An item of this list.
    pub(crate) fn item(&self) -> Self {
        match self {
            Self::Schema(schema) => schema.item().map_or(Self::Free, Self::Schema),
            Self::Listed(..) => self.clone(),
            Self::Object(_) | Self::Free => Self::Free,
        }
    }

    pub(crate) fn items(&self) -> Items<'a> {
        match self {
            Self::Schema(schema) => match schema.list() {
                ListKind::Atomic => Items::Whole,
                ListKind::Set => Items::Values,
                ListKind::Map(keys) => Items::Keyed(keys.iter().map(String::as_str).collect()),
            },
            Self::Listed(lists, path) => match strategic::known(lists, path) {
                None => Items::Whole,
                Some(List::Set) => Items::Values,
                Some(List::Keyed(key)) => Items::Keyed(vec![key]),
            },
            Self::Object(_) | Self::Free => Items::Whole,
        }
    }

    /// Whether an object is one value here.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Schema(schema) if schema.is_whole())
    }
}

impl Items<'_> {
    /// What tells an item apart; none where nothing does.
    pub(crate) fn identity(&self, item: &Value) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Values => Some(format!("v:{item}")),
            Self::Keyed(keys) => {
                let fields = item.as_object()?;
                let keys = keys.iter().filter_map(|key| Some((*key, fields.get(*key)?)));
                let keys: BTreeMap<&str, &Value> = keys.collect();
                (!keys.is_empty()).then(|| keyed(&keys))
            }
        }
    }

    /// Each item by what tells it apart; `None` where the list is one value, or two of its items cannot be told apart.
    pub(crate) fn of<'v>(&self, list: &'v [Value]) -> Option<BTreeMap<String, &'v Value>> {
        let mut found = BTreeMap::new();
        for item in list {
            if found.insert(self.identity(item)?, item).is_some() {
                return None;
            }
        }
        Some(found)
    }
}
