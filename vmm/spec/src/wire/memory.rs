//! The JSON form of [`MemoryBacking`].

use serde::{Deserialize, Serialize};

use crate::{HugePages, MemoryBacking, Thp};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct MemoryDocument {
    #[serde(skip_serializing_if = "is_false")]
    shared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    huge_pages: Option<HugePagesDocument>,
    #[serde(skip_serializing_if = "is_false")]
    prefault: bool,
    thp: ThpDocument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum HugePagesDocument {
    #[serde(rename = "2Mi")]
    TwoMib,
    #[serde(rename = "1Gi")]
    OneGib,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ThpDocument {
    #[default]
    Always,
    Never,
}

// === impl MemoryDocument ===

impl MemoryDocument {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<MemoryDocument> for MemoryBacking {
    fn from(document: MemoryDocument) -> Self {
        Self {
            shared: document.shared,
            huge_pages: document.huge_pages.map(|pages| match pages {
                HugePagesDocument::TwoMib => HugePages::TwoMib,
                HugePagesDocument::OneGib => HugePages::OneGib,
            }),
            prefault: document.prefault,
            thp: match document.thp {
                ThpDocument::Always => Thp::Always,
                ThpDocument::Never => Thp::Never,
            },
        }
    }
}

impl From<MemoryBacking> for MemoryDocument {
    fn from(backing: MemoryBacking) -> Self {
        Self {
            shared: backing.shared,
            huge_pages: backing.huge_pages.map(|pages| match pages {
                HugePages::TwoMib => HugePagesDocument::TwoMib,
                HugePages::OneGib => HugePagesDocument::OneGib,
            }),
            prefault: backing.prefault,
            thp: match backing.thp {
                Thp::Always => ThpDocument::Always,
                Thp::Never => ThpDocument::Never,
            },
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_false(flag: &bool) -> bool {
    !flag
}
