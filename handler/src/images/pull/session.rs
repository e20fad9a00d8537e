//! A registry that is asked for one image: how it is reached, with what patience, and what its refusals mean.

use std::time::Duration;

use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};

use super::authorities;
use super::fetch::FetchError;
use super::job::{Asked, Source, Trust};

/// How long a registry may take to answer, and to send the next bytes.
const CONNECT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(60);

/// How often what may pass is tried again, and the first pause; each further one is twice as long.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// Someone to ask, for one image.
pub struct Session {
    /// The library.
    pub client: Client,
    /// The image, where it is asked for.
    pub reference: Reference,
    /// Who asks.
    pub(super) auth: RegistryAuth,
    registry: String,
    /// How often it is asked what may pass.
    tries: u32,
}

// === impl Session ===

impl Session {
    /// Reaches a registry. Where others can be asked after it, it gets one chance.
    ///
    /// # Errors
    /// Any [`FetchError`].
    pub async fn open(asked: &Asked, is_last: bool) -> Result<Self, FetchError> {
        // The one provider; it stands for the whole process, which does nothing else.
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
        let tries = if is_last { TRIES } else { 1 };
        match asked.source.trust {
            Trust::Anybody => match Self::reached(asked, Trust::Anybody, 1).await {
                // It has no TLS, or is not there.
                Err(FetchError::Registry(..)) => Self::reached(asked, Trust::Plain, tries).await,
                other => other,
            },
            trust => Self::reached(asked, trust, tries).await,
        }
    }

    async fn reached(asked: &Asked, trust: Trust, tries: u32) -> Result<Self, FetchError> {
        let (source, registry) = (&asked.source, asked.source.registry.clone());
        let reference = reference(source);
        let host = reference.resolve_registry().to_owned();
        let failed = |error| FetchError::Registry(registry.clone(), Box::new(error));
        let known = match &asked.authorities {
            Some(folder) if trust == Trust::Signed => authorities::read(folder)?,
            _ => Vec::new(),
        };
        let known = known.into_iter().map(|data| Certificate {
            encoding: CertificateEncoding::Der,
            data,
        });
        let wish = ClientConfig {
            extra_root_certificates: known.collect(),
            ..config(trust, host.clone())
        };
        let client = match Client::try_from(wish) {
            // Where the system's list is empty, the library makes no client with it, also for who needs no list.
            Err(_) if trust == Trust::Plain => Client::try_from(ClientConfig {
                tls_certs_only: vec![nobody()],
                ..config(trust, host)
            }),
            client => client,
        };
        let login = asked.login.as_ref();
        let session = Self {
            client: client.map_err(failed)?,
            reference,
            auth: login.map_or(RegistryAuth::Anonymous, |login| {
                RegistryAuth::Basic(login.user.clone(), login.password.clone())
            }),
            registry,
            tries,
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

    /// Asks until there is an answer that will stay the same, or too often.
    ///
    /// # Errors
    /// That answer, or the last one.
    pub async fn patiently<T>(
        &self,
        mut ask: impl AsyncFnMut() -> Result<T, OciDistributionError>,
    ) -> Result<T, FetchError> {
        let mut pause = PAUSE;
        for _ in 1..self.tries {
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

/// How a registry is asked.
fn config(trust: Trust, host: String) -> ClientConfig {
    ClientConfig {
        protocol: match trust {
            Trust::Plain => ClientProtocol::HttpsExcept(vec![host]),
            Trust::Signed | Trust::Anybody => ClientProtocol::Https,
        },
        accept_invalid_certificates: trust == Trust::Anybody,
        connect_timeout: Some(CONNECT),
        read_timeout: Some(SILENCE),
        user_agent: concat!("rvm/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    }
}

/// A list of certificates with none on it: who has TLS is not believed.
fn nobody() -> Certificate {
    Certificate {
        encoding: CertificateEncoding::Pem,
        data: Vec::new(),
    }
}

fn reference(source: &Source) -> Reference {
    let (host, name) = (source.registry.clone(), source.repository.clone());
    match (&source.tag, &source.digest) {
        (_, Some(digest)) => Reference::with_digest(host, name, digest.clone()),
        (tag, None) => Reference::with_tag(host, name, tag.as_deref().unwrap_or("latest").to_owned()),
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
