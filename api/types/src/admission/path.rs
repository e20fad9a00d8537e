//! The path of a field, and the causes that are said about it.

use std::fmt;

use super::{Cause, Reason};

/// The path of a field: `spec.domain.devices.disks[0].name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A field of the object itself.
    pub fn new(field: &str) -> Self {
        Self(field.to_owned())
    }

    /// A field of this one.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        Self(format!("{}.{name}", self.0))
    }

    /// An element of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The value can never be right; `why` completes "… is wrong, because it" from the field's name on.
    pub fn invalid(&self, why: impl fmt::Display) -> Cause {
        self.cause(Reason::FieldValueInvalid, why)
    }

    /// The value is not supported here.
    pub fn not_supported(&self, why: impl fmt::Display) -> Cause {
        self.cause(Reason::FieldValueNotSupported, why)
    }

    /// The value is missing.
    pub fn required(&self, why: impl fmt::Display) -> Cause {
        self.cause(Reason::FieldValueRequired, why)
    }

    /// The value was used already, there.
    pub fn duplicate(&self, of: &Self) -> Cause {
        self.cause(
            Reason::FieldValueDuplicate,
            format_args!("must not be the same as {of}"),
        )
    }

    fn cause(&self, reason: Reason, why: impl fmt::Display) -> Cause {
        Cause {
            reason,
            message: format!("{self} {why}"),
            field: self.0.clone(),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
