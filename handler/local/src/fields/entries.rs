//! `metadata.managedFields`: for each manager what it owns, and since when.

use serde_json::{Value, json};

use super::set::{self, Set};
use crate::limits;

/// Who has what was there before anybody was asked.
const ANCIENT: &str = "ancient-changes";

/// How fields came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// By saying which they are to be; what is no longer said is given up.
    Apply,
    /// By writing them.
    Update,
}

/// What one manager owns by one operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    pub(crate) operation: Operation,
    pub(crate) api_version: String,
    pub(crate) subresource: Option<String>,
    pub(crate) time: String,
    pub(crate) fields: Set,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

impl Entry {
    /// Whether both are what one manager does in one way. Who applies does so in any version.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        let version = self.operation == Operation::Apply || self.api_version == other.api_version;
        version
            && (&self.manager, self.operation, &self.subresource)
                == (&other.manager, other.operation, &other.subresource)
    }

    /// As it is named in a conflict.
    pub(crate) fn title(&self) -> String {
        let mut title = format!("{:?}", self.manager);
        if let Some(subresource) = &self.subresource {
            title = format!("{title} with subresource {subresource:?}");
        }
        match self.operation {
            Operation::Apply => title,
            Operation::Update => format!("{title} using {}", self.api_version),
        }
    }

    fn write(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": self.operation.word(), "apiVersion": self.api_version,
            "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": set::encode(&self.fields),
        });
        if let Some(subresource) = &self.subresource {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    fn read(entry: &Value) -> Option<Self> {
        let text = |field: &str| entry.get(field).and_then(Value::as_str);
        let operation = match text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let is_known = text("fieldsType").is_none_or(|kind| kind == "FieldsV1");
        Some(Self {
            manager: text("manager").unwrap_or_default().to_owned(),
            operation,
            api_version: text("apiVersion")?.to_owned(),
            subresource: text("subresource")
                .filter(|text| !text.is_empty())
                .map(str::to_owned),
            time: text("time").unwrap_or_default().to_owned(),
            fields: set::decode(entry.get("fieldsV1").filter(|_| is_known)?)?,
        })
    }
}

/// What is noted in an object; `None` where somebody wrote something there that is no such list.
pub(crate) fn read(noted: &Value) -> Option<Vec<Entry>> {
    noted.as_array()?.iter().map(Entry::read).collect()
}

/// What is to be noted in an object, without those who own nothing.
pub(crate) fn write(entries: &[Entry]) -> Value {
    let entries = entries.iter().filter(|entry| !entry.fields.is_empty());
    entries.map(Entry::write).collect()
}

/// Writers that have come and gone are remembered together.
pub(crate) fn bound(entries: &mut Vec<Entry>) {
    let updates = |entry: &&Entry| entry.operation == Operation::Update && entry.manager != ANCIENT;
    while entries.iter().filter(updates).count() > limits::FIELD_MANAGERS {
        let oldest = entries.iter().enumerate().filter(|(_, entry)| updates(entry));
        let Some((at, _)) = oldest.min_by_key(|(_, entry)| entry.time.clone()) else {
            return;
        };
        let mut oldest = entries.remove(at);
        oldest.manager = ANCIENT.to_owned();
        match entries.iter_mut().find(|entry| entry.is_as(&oldest)) {
            Some(ancient) => ancient.fields.append(&mut oldest.fields),
            None => entries.push(oldest),
        }
    }
}
