//! A handler's side: what rvm-api hands over, for as long as the handler lives.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::authority::Data;
use super::{HANDLER_SECRET, parts};
use crate::listen::ListenError;
use crate::tls::server_config;

/// How often the Secret is looked at: much more often than an authority takes to begin to sign.
const ROUND: Duration = Duration::from_secs(60);
/// How often, while there is none.
const FIRST: Duration = Duration::from_secs(2);

/// Follows the Secret in this namespace and tells `config` what to show and whom to believe. What cannot be used changes nothing.
pub async fn receive(
    client: kube::Client,
    namespace: String,
    config: watch::Sender<Option<Arc<ServerConfig>>>,
) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let mut last = None;
    loop {
        match secrets.get_opt(HANDLER_SECRET).await {
            Ok(Some(secret)) if secret.data != last => match secret.data.as_ref().map(usable) {
                Some(Ok(usable)) => {
                    tracing::info!(
                        secret = HANDLER_SECRET,
                        namespace,
                        "rvm-api has handed over certificates"
                    );
                    config.send_replace(Some(Arc::new(usable)));
                    last = secret.data;
                }
                Some(Err(error)) => tracing::warn!(%error, secret = HANDLER_SECRET, namespace),
                None => {}
            },
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, secret = HANDLER_SECRET, namespace, "it cannot be read, trying again");
            }
        }
        tokio::time::sleep(if last.is_some() { ROUND } else { FIRST }).await;
    }
}

fn usable(data: &Data) -> Result<ServerConfig, ListenError> {
    let part = |name: &str| data.get(name).map(|part| part.0.as_slice()).unwrap_or_default();
    server_config(part(parts::CERTIFICATE), part(parts::KEY), part(parts::BUNDLE))
}
