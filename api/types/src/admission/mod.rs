//! What a VMI is turned into when it comes in, and what is said of one that cannot run.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde::{Deserialize, Serialize};

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
