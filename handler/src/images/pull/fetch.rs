//! Fetches one image from a registry into the store: name → manifest for riscv64 → blobs.
//!
//! ```text
//!   manifest or index ──► the one for linux/riscv64 ──► configuration, checked ──► layers, several at a time ──► record
//! ```
//!
//! Nothing is believed that was not held against its digest; what is named without one is what the registry says it is.

use std::cell::Cell;

use futures::{StreamExt, TryStreamExt};
use oci_client::Reference;
use oci_client::errors::OciDistributionError;
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::authorities::AuthoritiesError;
use super::blob;
use super::job::{Asked, Job};
use super::session::Session;
use crate::images::layout::{LayoutError, MAX_DOCUMENT, MAX_INDEX_DEPTH, MAX_MANIFESTS, hex};
use crate::images::store::{Record, Store, StoreError};
use crate::steps::chain;

/// Layers that are fetched at once.
const PARALLEL: usize = 3;

/// Most bytes of all layers together, as they are fetched.
const MAX_BYTES: u64 = 64 << 30;

/// What we understand.
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// The image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No such name or digest.
    #[error("the registry '{0}' has no image '{1}'")]
    NoImage(String, String),
    /// Not for us.
    #[error("the registry '{0}' does not let us have it: {1}")]
    Denied(String, &'static str),
    /// It does not answer, or not as a registry does.
    #[error("the registry '{0}' failed")]
    Registry(String, #[source] Box<OciDistributionError>),
    /// No manifest, index or configuration.
    #[error("what the registry sent is not a valid OCI document")]
    Document(#[source] serde_json::Error),
    /// Beyond a bound.
    #[error("the image has more {0} than the {1} that are allowed")]
    TooMuch(&'static str, u64),
    /// Nothing for riscv64, or nothing sound.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The bytes are not those that were promised.
    #[error("blob {0} does not match its digest or size")]
    Mismatch(String),
    /// Whom we know to sign for it cannot be read.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// Nobody of several has it, each for its reason.
    #[error("{}", everywhere(.0))]
    Everywhere(Vec<FetchError>),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk, most often full.
    #[error("blob {0} cannot be written")]
    Write(String, #[source] std::io::Error),
}

// === impl FetchError ===

impl FetchError {
    /// Whether another registry may have what this one has not.
    fn is_of_the_registry(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::Write(..))
    }
}

fn everywhere(errors: &[FetchError]) -> String {
    let all: Vec<String> = errors.iter().map(|error| chain(error)).collect();
    all.join("; ")
}

/// Fetches an image and notes what its name leads to. `told` hears how many of how many bytes are here.
///
/// # Errors
/// Any [`FetchError`].
pub async fn fetch(job: &Job, store: &Store, told: &dyn Fn(u64, u64)) -> Result<Record, FetchError> {
    let _in_use = store.in_use()?;
    let mut failed = Vec::new();
    for (number, asked) in job.asked.iter().enumerate() {
        let is_last = number + 1 == job.asked.len();
        match fetch_from(asked, is_last, &job.image, store, told).await {
            Err(error) if error.is_of_the_registry() => failed.push(error),
            other => return other,
        }
    }
    Err(match failed.pop() {
        Some(only) if failed.is_empty() => only,
        last => FetchError::Everywhere(failed.into_iter().chain(last).collect()),
    })
}

async fn fetch_from(
    asked: &Asked,
    is_last: bool,
    name: &str,
    store: &Store,
    told: &dyn Fn(u64, u64),
) -> Result<Record, FetchError> {
    let session = Session::open(asked, is_last).await?;
    let (digest, size) = session.choose(store).await?;
    let image = store.layout().image_at(&digest, size)?;
    let total: u64 = image
        .layers
        .iter()
        .try_fold(0_u64, |sum, layer| sum.checked_add(layer.size()))
        .filter(|total| *total <= MAX_BYTES)
        .ok_or(FetchError::TooMuch("bytes", MAX_BYTES))?;
    let have = Cell::new(0_u64);
    let arrived = |more: u64| {
        have.set(have.get() + more);
        told(have.get(), total);
    };
    let layers = image
        .layers
        .iter()
        .map(|layer| blob::fetch(&session, store, layer.digest(), layer.size(), &arrived));
    futures::stream::iter(layers)
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let record = Record {
        image: name.to_owned(),
        digest,
        size,
        bytes: total,
    };
    store.record(&record)?;
    Ok(record)
}

/// Of a manifest or index, what tells them apart.
#[derive(Deserialize)]
struct Kind {
    manifests: Option<serde::de::IgnoredAny>,
}

// === impl Session ===

impl Session {
    /// Follows the name to the manifest for riscv64. It and its configuration are in the store then.
    async fn choose(&self, store: &Store) -> Result<(String, u64), FetchError> {
        let (digest, mut bytes) = self.manifest(store, &self.reference).await?;
        let mut found = (digest, bytes.len() as u64);
        for _ in 0..MAX_INDEX_DEPTH {
            let kind: Kind = serde_json::from_slice(&bytes).map_err(FetchError::Document)?;
            if kind.manifests.is_none() {
                let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(FetchError::Document)?;
                self.configuration(store, manifest.config()).await?;
                return Ok(found);
            }
            let index: ImageIndex = serde_json::from_slice(&bytes).map_err(FetchError::Document)?;
            let next = fitting(&index)?;
            let reference = self.reference.clone_with_digest(next.digest().to_string());
            let (digest, sent) = self.manifest(store, &reference).await?;
            if sent.len() as u64 != next.size() {
                return Err(FetchError::Mismatch(digest));
            }
            found = (digest, next.size());
            bytes = sent;
        }
        Err(FetchError::TooMuch("nested indexes", MAX_INDEX_DEPTH as u64))
    }

    /// A manifest or index, kept by its digest.
    async fn manifest(&self, store: &Store, reference: &Reference) -> Result<(String, Vec<u8>), FetchError> {
        let ask = async || {
            let asked = self.client.pull_manifest_raw(reference, &self.auth, &ACCEPTED);
            Ok(asked.await?.0)
        };
        let bytes = self.patiently(ask).await?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(FetchError::TooMuch("bytes in its manifest", MAX_DOCUMENT));
        }
        let digest = digest_of(&bytes);
        if let Some(promised) = reference.digest()
            && promised.strip_prefix("sha256:") != Some(&digest)
        {
            return Err(FetchError::Mismatch(promised.to_owned()));
        }
        store.put(&digest, &bytes)?;
        Ok((digest, bytes.to_vec()))
    }

    async fn configuration(&self, store: &Store, descriptor: &Descriptor) -> Result<(), FetchError> {
        if descriptor.size() > MAX_DOCUMENT {
            return Err(FetchError::TooMuch("bytes in its configuration", MAX_DOCUMENT));
        }
        let digest = crate::images::layout::sha256_of(descriptor)?;
        blob::fetch(self, store, &digest, descriptor.size(), &|_| {}).await
    }
}

/// The manifest for riscv64 of an index; one that does not say what it is for is looked at.
fn fitting(index: &ImageIndex) -> Result<&Descriptor, FetchError> {
    let manifests = index.manifests();
    if manifests.len() > MAX_MANIFESTS {
        return Err(FetchError::TooMuch("manifests", MAX_MANIFESTS as u64));
    }
    let fits = |descriptor: &&Descriptor| match descriptor.platform() {
        None => true,
        Some(platform) => *platform.os() == Os::Linux && *platform.architecture() == Arch::RISCV64,
    };
    manifests.iter().find(fits).ok_or_else(|| {
        let platforms = manifests
            .iter()
            .filter_map(|descriptor| descriptor.platform().as_ref());
        let others: Vec<String> = platforms
            .map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
            .collect();
        LayoutError::Platform(others.join(", ")).into()
    })
}

/// The sha256 of these bytes, in hex.
pub fn digest_of(bytes: &[u8]) -> String {
    let mut sha = Sha256::new();
    sha.update(bytes);
    hex(sha)
}
