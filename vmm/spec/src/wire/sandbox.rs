//! The JSON form of [`Sandbox`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Sandbox, SandboxMode};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct SandboxDocument {
    mode: ModeDocument,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModeDocument {
    #[default]
    On,
    Log,
    Off,
}

// === impl SandboxDocument ===

impl SandboxDocument {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<SandboxDocument> for Sandbox {
    fn from(document: SandboxDocument) -> Self {
        Self {
            mode: match document.mode {
                ModeDocument::On => SandboxMode::On,
                ModeDocument::Log => SandboxMode::Log,
                ModeDocument::Off => SandboxMode::Off,
            },
            allowed: document.allowed,
        }
    }
}

impl From<&Sandbox> for SandboxDocument {
    fn from(sandbox: &Sandbox) -> Self {
        Self {
            mode: match sandbox.mode {
                SandboxMode::On => ModeDocument::On,
                SandboxMode::Log => ModeDocument::Log,
                SandboxMode::Off => ModeDocument::Off,
            },
            allowed: sandbox.allowed.clone(),
        }
    }
}
