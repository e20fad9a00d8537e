//! The JSON form of [`Vsock`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{SpecError, Vsock};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct VsockDocument {
    cid: u32,
    socket: PathBuf,
}

impl TryFrom<VsockDocument> for Vsock {
    type Error = SpecError;

    fn try_from(document: VsockDocument) -> Result<Self, SpecError> {
        Self::new(document.cid, document.socket)
    }
}

impl From<&Vsock> for VsockDocument {
    fn from(vsock: &Vsock) -> Self {
        Self {
            cid: vsock.cid(),
            socket: vsock.socket().to_owned(),
        }
    }
}
