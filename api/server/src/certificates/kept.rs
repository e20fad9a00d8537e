//! A Secret that several keep together: read, decided on, and written only where nobody else wrote meanwhile.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};

use super::authority::Data;

/// How often a Secret is decided on anew because others write it, too.
const ATTEMPTS: usize = 8;
/// The kind of Secret: a pair, and what belongs to it.
const KIND: &str = "kubernetes.io/tls";

/// Why the certificates cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The cluster says no, or nothing.
    #[error("the certificates' Secrets cannot be kept")]
    Api(#[from] kube::Error),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
    /// Others write all the time.
    #[error("Secret {0:?} is written by others again and again")]
    Contended(String),
    /// rustls does not take what was made.
    #[error("the certificates cannot be used: {0}")]
    Use(String),
}

/// Makes the Secret of this name be as `decide` says, which is shown what there is and answers what there is to be, or nothing
/// where it may stay.
pub(super) async fn keep(
    api: &Api<Secret>,
    name: &str,
    decide: impl Fn(Option<&Data>) -> Result<Option<Data>, rcgen::Error>,
) -> Result<Data, KeepError> {
    for _ in 0..ATTEMPTS {
        let there = api.get_opt(name).await?;
        let held = there.as_ref().and_then(|secret| secret.data.as_ref());
        let Some(wanted) = decide(held)? else {
            return Ok(held.cloned().unwrap_or_default());
        };
        let written = match there {
            None => api.create(&PostParams::default(), &secret(name, &wanted)).await,
            Some(mut secret) => {
                secret.data = Some(wanted.clone());
                // The version that was read goes along.
                api.replace(name, &PostParams::default(), &secret).await
            }
        };
        match written {
            Ok(_) => return Ok(wanted),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(KeepError::Contended(name.to_owned()))
}

fn secret(name: &str, data: &Data) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(KIND.to_owned()),
        data: Some(data.clone()),
        ..Secret::default()
    }
}
