//! What a VMI is turned into when it comes in, and what is said of one that cannot run.
//!
//! [`default`] fills in what its author left out, as KubeVirt does on creation; [`validate`] then names everything
//! that is wrong with it, or that rvm cannot do yet. Both are pure: the local API calls them on creation, and the
//! handler calls them before it starts a machine, since a cluster without our admission lets anything through that
//! fits the CRD's schema.
//!
//! Two rules decide what is refused. What changes the guest and is not done is refused by its path; what only
//! advises the host or the placement is accepted. And a field that we have never heard of is refused like the
//! former: a typing mistake must not look like success.

mod boot;
mod config;
mod default;
mod devices;
pub mod kubevirt;
mod networks;
mod path;
mod pods;
pub mod replica_set;
pub(crate) mod unsupported;
mod validate;
pub mod vm;
mod volumes;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde::{Deserialize, Serialize};

pub use config::MAX_INLINE_DATA;
pub use default::default;
pub use path::Path;
pub use pods::validate_in_pods;
pub use validate::{MAX_CPUS, MAX_MEMORY, MAX_NAME, MIN_MEMORY, is_label, is_name, validate};

/// Why a VMI is refused: one field, one reason. The same form as the causes of a Kubernetes Status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// What kind of mistake it is.
    pub reason: Reason,
    /// A sentence for people; it names the field.
    pub message: String,
    /// The field's path: `spec.domain.devices.disks[0].name`.
    pub field: String,
}

/// Kinds of mistakes, spelled as Kubernetes spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The value can never be right.
    FieldValueInvalid,
    /// The value may be right elsewhere, and is not supported here.
    FieldValueNotSupported,
    /// The value is missing.
    FieldValueRequired,
    /// The value was used already.
    FieldValueDuplicate,
}

impl Reason {
    /// The reason as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FieldValueInvalid => "FieldValueInvalid",
            Self::FieldValueNotSupported => "FieldValueNotSupported",
            Self::FieldValueRequired => "FieldValueRequired",
            Self::FieldValueDuplicate => "FieldValueDuplicate",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Cause> for StatusCause {
    fn from(cause: Cause) -> Self {
        Self {
            reason: Some(cause.reason.as_str().to_owned()),
            message: Some(cause.message),
            field: Some(cause.field),
        }
    }
}

/// All causes as one sentence, for a Status' message and for a condition.
pub fn summary(causes: &[Cause]) -> String {
    causes
        .iter()
        .map(|cause| cause.message.as_str())
        .collect::<Vec<_>>()
        .join("; ")
}
