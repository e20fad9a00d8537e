//! The JSON form of [`Share`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Share, SpecError};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ShareDocument {
    tag: String,
    socket: PathBuf,
}

impl TryFrom<ShareDocument> for Share {
    type Error = SpecError;

    fn try_from(document: ShareDocument) -> Result<Self, SpecError> {
        Self::new(document.tag, document.socket)
    }
}

impl From<&Share> for ShareDocument {
    fn from(share: &Share) -> Self {
        Self {
            tag: share.tag().to_owned(),
            socket: share.socket().to_owned(),
        }
    }
}
