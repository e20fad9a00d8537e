//! rvm-api's side: the authorities, its own pair, the handlers' pair, and kube-apiserver's trust.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;

use super::authority::{Authorities, Data, Pair};
use super::kept::{KeepError, keep};
use super::{API, AUTHORITY_SECRET, HANDLER, HANDLER_SECRET, parts};
use crate::subresources::{GROUP, VERSIONS};

/// How often all is looked at.
const ROUND: Duration = Duration::from_secs(10 * 60);
/// Pause after a round that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Who rvm-api is, and whom it believes.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its own pair, for both ends of connections.
    pub pair: Pair,
    /// The authorities, PEM.
    pub bundle: String,
}

/// Keeps the certificates.
pub struct Keeper {
    secrets: Api<Secret>,
    services: Api<APIService>,
    webhooks: Api<ValidatingWebhookConfiguration>,
    /// By which names kube-apiserver and others reach rvm-api.
    names: Vec<String>,
}

// === impl Keeper ===

impl Keeper {
    /// Of the rvm-api in this namespace, which is reached by these names besides its Service's.
    pub fn new(client: &kube::Client, namespace: &str, more: &[String]) -> Self {
        let mut names = vec![
            API.to_owned(),
            format!("{API}.{namespace}"),
            format!("{API}.{namespace}.svc"),
        ];
        names.extend_from_slice(more);
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            services: Api::all(client.clone()),
            webhooks: Api::all(client.clone()),
            names,
        }
    }

    /// The first round: nobody can be served before it.
    ///
    /// # Errors
    /// Any [`KeepError`].
    pub async fn first(&self) -> Result<watch::Sender<Arc<Identity>>, KeepError> {
        let identity = self.round(None).await?;
        Ok(watch::Sender::new(Arc::new(identity)))
    }

    /// All the others, for ever.
    pub async fn go_on(self, identity: watch::Sender<Arc<Identity>>) {
        let mut pause = ROUND;
        loop {
            tokio::time::sleep(pause).await;
            let before = Arc::clone(&identity.borrow());
            match self.round(Some(&before)).await {
                Ok(now) => {
                    pause = ROUND;
                    if now != *before {
                        tracing::info!("rvm-api has renewed certificates");
                        identity.send_replace(Arc::new(now));
                    }
                }
                Err(error) => {
                    pause = RETRY;
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "will be tried again");
                }
            }
        }
    }

    async fn round(&self, before: Option<&Identity>) -> Result<Identity, KeepError> {
        let now = Timestamp::now();
        let authorities = self.authorities(now).await?;
        let bundle = authorities.bundle();
        self.for_handlers(&authorities, now).await?;
        let own = before.map(|before| &before.pair);
        let pair = match own.filter(|pair| authorities.stand_for(pair, now)) {
            Some(pair) => pair.clone(),
            None => authorities.issue(&self.names, now)?,
        };
        self.register(&bundle).await?;
        self.register_webhooks(&bundle).await?;
        Ok(Identity { pair, bundle })
    }

    async fn authorities(&self, now: Timestamp) -> Result<Authorities, KeepError> {
        let data = keep(&self.secrets, AUTHORITY_SECRET, |held| {
            let wanted = match held.and_then(Authorities::read) {
                Some(authorities) => authorities.renewed(now)?,
                None => Some(Authorities::first(now)?),
            };
            Ok(wanted.as_ref().map(Authorities::data))
        });
        let authorities = Authorities::read(&data.await?);
        authorities.ok_or_else(|| KeepError::Use(format!("Secret {AUTHORITY_SECRET:?} holds no authority")))
    }

    /// Hands the handlers what they need.
    async fn for_handlers(&self, authorities: &Authorities, now: Timestamp) -> Result<(), KeepError> {
        let bundle = authorities.bundle();
        let handed = keep(&self.secrets, HANDLER_SECRET, |held| {
            let pair = held.and_then(|data| Pair::read(data, parts::CERTIFICATE, parts::KEY));
            let pair = pair.filter(|pair| authorities.stand_for(pair, now));
            let knows = held.and_then(|data| data.get(parts::BUNDLE));
            if pair.is_some() && knows.is_some_and(|known| known.0 == bundle.as_bytes()) {
                return Ok(None);
            }
            let pair = match pair {
                Some(pair) => pair,
                None => authorities.issue(&[HANDLER.to_owned()], now)?,
            };
            Ok(Some(for_handlers(&pair, &bundle)))
        });
        handed.await.map(drop)
    }

    /// Has kube-apiserver believe what we show it.
    async fn register(&self, bundle: &str) -> Result<(), KeepError> {
        for version in VERSIONS {
            let name = format!("{version}.{GROUP}");
            let there = self.services.get(&name).await?;
            let known = there.spec.as_ref().and_then(|spec| spec.ca_bundle.as_ref());
            if known.is_none_or(|known| known.0 != bundle.as_bytes()) {
                let bundle = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
                let patch = Patch::Merge(json!({"spec": {"caBundle": bundle}}));
                self.services
                    .patch(&name, &PatchParams::default(), &patch)
                    .await?;
            }
        }
        Ok(())
    }

    /// The same for what it asks us before others do something; who has left that out is not asked.
    async fn register_webhooks(&self, bundle: &str) -> Result<(), KeepError> {
        let Some(there) = self.webhooks.get_opt(API).await? else {
            return Ok(());
        };
        let bundle = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
        let webhooks = there.webhooks.iter().flatten();
        let unknown = webhooks.filter(|one| one.client_config.ca_bundle.as_ref() != Some(&bundle));
        let unknown = unknown.map(|one| json!({"name": one.name, "clientConfig": {"caBundle": bundle}}));
        let unknown: Vec<_> = unknown.collect();
        if !unknown.is_empty() {
            let patch = Patch::Strategic(json!({"webhooks": unknown}));
            self.webhooks.patch(API, &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }
}

fn for_handlers(pair: &Pair, bundle: &str) -> Data {
    let mut data = pair.data(parts::CERTIFICATE, parts::KEY);
    let bundle = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
    data.insert(parts::BUNDLE.to_owned(), bundle);
    data
}
