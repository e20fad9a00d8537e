//! Fetches one image from a registry into the store: name → manifest for riscv64 → blobs.
//!
//! ```text
//!   manifest or index ──► the one for linux/riscv64 ──► configuration, checked ──► layers, several at a time ──► record
//! ```
//!
//! Nothing is believed that was not held against its digest; what is named without one is what the registry says it is.

use std::cell::Cell;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::blob;
use super::job::{Job, Login, Source};
use crate::images::layout::{LayoutError, MAX_DOCUMENT, MAX_INDEX_DEPTH, MAX_MANIFESTS, hex};
use crate::images::store::{Record, Store, StoreError};

/// Layers that are fetched at once.
const PARALLEL: usize = 3;

/// Most bytes of all layers together, as they are fetched.
const MAX_BYTES: u64 = 64 << 30;

/// How long a registry may take to answer, and to send the next bytes.
const CONNECT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(60);

/// How often what may pass is tried again, and the first pause; each further one is twice as long.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

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
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk, most often full.
    #[error("blob {0} cannot be written")]
    Write(String, #[source] std::io::Error),
}

/// Someone to ask, for one image.
pub struct Session {
    /// The library.
    pub client: Client,
    /// The image, where it is asked for.
    pub reference: Reference,
    registry: String,
    auth: RegistryAuth,
}

/// Fetches an image and notes what its name leads to. `told` hears how many of how many bytes are here.
///
/// # Errors
/// Any [`FetchError`].
pub async fn fetch(job: &Job, store: &Store, told: &dyn Fn(u64, u64)) -> Result<Record, FetchError> {
    let _in_use = store.in_use()?;
    let session = Session::open(&job.source, job.login.as_ref()).await?;
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
        image: job.image.clone(),
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
    async fn open(source: &Source, login: Option<&Login>) -> Result<Self, FetchError> {
        let registry = source.registry.clone();
        let (host, name) = (registry.clone(), source.repository.clone());
        let reference = match (&source.tag, &source.digest) {
            (_, Some(digest)) => Reference::with_digest(host, name, digest.clone()),
            (tag, None) => Reference::with_tag(host, name, tag.as_deref().unwrap_or("latest").to_owned()),
        };
        let protocol = if source.plain {
            ClientProtocol::HttpsExcept(vec![reference.resolve_registry().to_owned()])
        } else {
            ClientProtocol::Https
        };
        let auth = login.map_or(RegistryAuth::Anonymous, |login| {
            RegistryAuth::Basic(login.user.clone(), login.password.clone())
        });
        // The one provider; it stands for the whole process, which does nothing else.
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
        let client = Client::try_from(ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("rvm/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        });
        let session = Self {
            client: client.map_err(|error| FetchError::Registry(registry.clone(), Box::new(error)))?,
            reference,
            registry,
            auth,
        };
        session
            .patiently(async || {
                let auth = session
                    .client
                    .auth(&session.reference, &session.auth, RegistryOperation::Pull);
                auth.await.map(drop)
            })
            .await?;
        Ok(session)
    }

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

    /// Asks until there is an answer that will stay the same, or too often.
    ///
    /// # Errors
    /// That answer, or the last one.
    pub async fn patiently<T>(
        &self,
        mut ask: impl AsyncFnMut() -> Result<T, OciDistributionError>,
    ) -> Result<T, FetchError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match ask().await {
                Err(error) if may_pass(&error) => {}
                answer => return answer.map_err(|error| self.said(error)),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        ask().await.map_err(|error| self.said(error))
    }

    /// What the registry's refusal means.
    pub fn said(&self, error: OciDistributionError) -> FetchError {
        let registry = self.registry.clone();
        let anonymous = self.auth == RegistryAuth::Anonymous;
        let denied = || {
            let why = if anonymous {
                "no login for it was found in a pull secret or auth file"
            } else {
                "the login that was found is not accepted"
            };
            FetchError::Denied(registry.clone(), why)
        };
        let image = || FetchError::NoImage(registry.clone(), asked_for(&self.reference));
        match &error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::ServerError { code: 401 | 403, .. } => denied(),
            OciDistributionError::ImageManifestNotFoundError(_)
            | OciDistributionError::ServerError { code: 404, .. } => image(),
            OciDistributionError::RegistryError { envelope, .. } => {
                match envelope.errors.first().map(|first| &first.code) {
                    Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => denied(),
                    Some(
                        OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound,
                    ) => image(),
                    _ => FetchError::Registry(registry.clone(), Box::new(error)),
                }
            }
            _ => FetchError::Registry(registry.clone(), Box::new(error)),
        }
    }
}

/// An image as its registry knows it.
fn asked_for(reference: &Reference) -> String {
    let name = reference.repository();
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("{name}@{digest}"),
        (None, tag) => format!("{name}:{}", tag.unwrap_or_default()),
    }
}

/// Whether the same question may have another answer soon.
pub fn may_pass(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code >= 500 || *code == 429,
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|error| error.code == OciErrorCode::Toomanyrequests),
        _ => false,
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
