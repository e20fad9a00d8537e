//! Manifests of VMIs: the one that users are shown, and what a test changes of it.

use anyhow::{Context, Result};
use rvm_guests::cross::workspace;
use rvm_types::manifest;
use serde_json::{Value, json};

/// The manifest that users are shown.
const DEMO: &str = "guests/vmi-alpine.yaml";

/// The same with a network.
const NETWORK: &str = "guests/vmi-network.yaml";

/// The manifest of a VMI.
#[derive(Debug, Clone)]
pub struct Manifest(pub Value);

impl Manifest {
    /// `guests/vmi-alpine.yaml` as it is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn demo() -> Result<Self> {
        Self::of(DEMO)
    }

    /// `guests/vmi-network.yaml` as it is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn network() -> Result<Self> {
        Self::of(NETWORK)
    }

    fn of(file: &str) -> Result<Self> {
        let text = std::fs::read(workspace().join(file))?;
        let object = manifest::parse(&text)?.into_iter().next();
        object.map(Self).with_context(|| format!("{file} is empty"))
    }

    /// Under another name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.with(|object| object["metadata"]["name"] = json!(name))
    }

    /// With this much memory.
    #[must_use]
    pub fn memory(self, guest: &str) -> Self {
        self.with(|object| object["spec"]["domain"]["memory"]["guest"] = json!(guest))
    }

    /// On nodes with this label only.
    #[must_use]
    pub fn on(self, label: &str, value: &str) -> Self {
        self.with(|object| object["spec"]["nodeSelector"][label] = json!(value))
    }

    /// Changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.0);
        self
    }

    /// As a file that `apply -f` reads.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// Several, as one such file.
    #[must_use]
    pub fn list(manifests: &[Self]) -> String {
        let items: Vec<&Value> = manifests.iter().map(|manifest| &manifest.0).collect();
        json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
    }
}
