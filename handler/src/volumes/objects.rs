//! What volumes need from other objects of the cluster: ConfigMaps, Secrets and tokens of ServiceAccounts, each asked for once,
//! when its machine is prepared.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, PostParams};
use rvm_types::config::{AccessCredential, CloudInit, LocalReference};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::cloud_init::Data;
use super::iso::File;

/// Most public keys that one disk brings.
const MAX_KEYS: usize = 256;

/// Seconds that a guest's token is good for, 30 days; the cluster may say fewer. Nobody renews what is on a disk, so it must do for
/// as long as most machines run; it ends earlier with its ServiceAccount alone, so it must not be good for ever.
const TOKEN_SECONDS: i64 = 30 * 24 * 60 * 60;

/// Where Kubernetes publishes in each namespace who signs its API's certificate, and under which key.
const ROOT_CA: (&str, &str) = ("kube-root-ca.crt", "ca.crt");

/// What a volume needs cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It is not there.
    #[error("there is no {kind} '{name}' in the namespace")]
    Missing {
        /// ConfigMap, Secret or ServiceAccount.
        kind: &'static str,
        /// Which.
        name: String,
    },
    /// The API does not give it.
    #[error("the {kind} '{name}' cannot be read")]
    Api {
        /// ConfigMap, Secret or ServiceAccount.
        kind: &'static str,
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// It has not what is looked for.
    #[error("the Secret '{secret}' has neither a key '{}' nor '{}'", keys[0], keys[1])]
    NoKey {
        /// Which.
        secret: String,
        /// Either would do.
        keys: [&'static str; 2],
    },
    /// It has not what is looked for.
    #[error("the ConfigMap '{}' has no key '{}'", ROOT_CA.0, ROOT_CA.1)]
    NoRootCa,
    /// Nothing came of it.
    #[error("the cluster gives out no token of the ServiceAccount '{0}'")]
    NoToken(String),
    /// Written wrongly, which admission would have found.
    #[error("it is not a valid base64 value")]
    Base64(#[source] base64::DecodeError),
    /// Too many.
    #[error("there are more than {MAX_KEYS} public keys")]
    Keys,
}

/// The objects of one namespace.
pub struct Objects {
    maps: Api<ConfigMap>,
    secrets: Api<Secret>,
    accounts: Api<ServiceAccount>,
    namespace: String,
}

// === impl Objects ===

impl Objects {
    /// Of this namespace.
    pub fn of(client: &Client, namespace: &str) -> Self {
        Self {
            maps: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            accounts: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// A ConfigMap's keys as files; none where it is optional and not there.
    ///
    /// # Errors
    /// Any [`ObjectError`].
    pub async fn config_map(&self, name: &str, optional: bool) -> Result<Vec<File>, ObjectError> {
        let Some(map) = found(&self.maps, "ConfigMap", name, optional).await? else {
            return Ok(Vec::new());
        };
        let text = map
            .data
            .into_iter()
            .flatten()
            .map(|(key, text)| (key, text.into_bytes()));
        let bytes = map
            .binary_data
            .into_iter()
            .flatten()
            .map(|(key, bytes)| (key, bytes.0));
        Ok(text
            .chain(bytes)
            .map(|(path, content)| File { path, content })
            .collect())
    }

    /// A Secret's keys as files; none where it is optional and not there.
    ///
    /// # Errors
    /// Any [`ObjectError`].
    pub async fn secret(&self, name: &str, optional: bool) -> Result<Vec<File>, ObjectError> {
        let Some(secret) = found(&self.secrets, "Secret", name, optional).await? else {
            return Ok(Vec::new());
        };
        let data = secret.data.into_iter().flatten();
        Ok(data
            .map(|(path, content)| File {
                path,
                content: content.0,
            })
            .collect())
    }

    /// What a pod of a ServiceAccount finds in `/var/run/secrets/kubernetes.io/serviceaccount`, with a token made now.
    ///
    /// # Errors
    /// Any [`ObjectError`].
    pub async fn service_account(&self, name: &str) -> Result<Vec<File>, ObjectError> {
        let (map, key) = ROOT_CA;
        let mut published = self.config_map(map, false).await?.into_iter();
        let authority = published.find(|file| file.path == key);
        let authority = authority.ok_or(ObjectError::NoRootCa)?;
        let file = |path: &str, content: String| File {
            path: path.to_owned(),
            content: content.into_bytes(),
        };
        Ok(vec![
            authority,
            file("namespace", self.namespace.clone()),
            file("token", self.token(name).await?),
        ])
    }

    async fn token(&self, name: &str) -> Result<String, ObjectError> {
        let wish = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let (kind, name) = ("ServiceAccount", name.to_owned());
        let params = PostParams::default();
        match self.accounts.create_token_request(&name, &params, &wish).await {
            Ok(made) => {
                let token = made.status.map(|status| status.token);
                token.ok_or(ObjectError::NoToken(name))
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                Err(ObjectError::Missing { kind, name })
            }
            Err(error) => Err(ObjectError::Api {
                kind,
                name,
                source: Box::new(error),
            }),
        }
    }

    /// What cloud-init is to read, from wherever the VMI says.
    ///
    /// # Errors
    /// Any [`ObjectError`].
    pub async fn cloud_init(&self, wish: &CloudInit, keys: Vec<String>) -> Result<Data, ObjectError> {
        let user = self
            .data(wish.secret_ref.as_ref(), ["userdata", "userData"])
            .await?;
        let user = user.map_or_else(
            || inline(wish.user_data_base64.as_deref(), wish.user_data.as_deref()),
            |data| Ok(Some(data)),
        )?;
        let network = self
            .data(
                wish.network_data_secret_ref.as_ref(),
                ["networkdata", "networkData"],
            )
            .await?;
        let network = network.map_or_else(
            || inline(wish.network_data_base64.as_deref(), wish.network_data.as_deref()),
            |data| Ok(Some(data)),
        )?;
        Ok(Data {
            user: user.unwrap_or_default(),
            network,
            keys,
        })
    }

    /// The public keys in the Secrets of these credentials, in their order.
    ///
    /// # Errors
    /// Any [`ObjectError`].
    pub async fn keys(&self, credentials: Vec<&AccessCredential>) -> Result<Vec<String>, ObjectError> {
        let mut keys = Vec::new();
        for credential in credentials {
            let source = credential
                .ssh_public_key
                .as_ref()
                .and_then(|key| key.source.secret.as_ref());
            let Some(secret) = source else { continue };
            for file in self.secret(&secret.secret_name, false).await? {
                let text = String::from_utf8_lossy(&file.content).into_owned();
                keys.extend(
                    text.lines()
                        .map(str::trim)
                        .filter(|line| !line.is_empty())
                        .map(str::to_owned),
                );
            }
            if keys.len() > MAX_KEYS {
                return Err(ObjectError::Keys);
            }
        }
        Ok(keys)
    }

    async fn data(
        &self,
        secret: Option<&LocalReference>,
        keys: [&'static str; 2],
    ) -> Result<Option<Vec<u8>>, ObjectError> {
        let Some(name) = secret.and_then(|secret| secret.name.as_deref()) else {
            return Ok(None);
        };
        let files = self.secret(name, false).await?;
        let file = files.into_iter().find(|file| keys.contains(&file.path.as_str()));
        file.map(|file| Some(file.content))
            .ok_or_else(|| ObjectError::NoKey {
                secret: name.to_owned(),
                keys,
            })
    }
}

fn inline(base64: Option<&str>, plain: Option<&str>) -> Result<Option<Vec<u8>>, ObjectError> {
    match base64.filter(|text| !text.is_empty()) {
        Some(text) => STANDARD.decode(text).map(Some).map_err(ObjectError::Base64),
        None => Ok(plain
            .filter(|text| !text.is_empty())
            .map(|text| text.as_bytes().to_vec())),
    }
}

async fn found<K>(
    api: &Api<K>,
    kind: &'static str,
    name: &str,
    optional: bool,
) -> Result<Option<K>, ObjectError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let read = api.get_opt(name).await;
    let read = read.map_err(|source| ObjectError::Api {
        kind,
        name: name.to_owned(),
        source: Box::new(source),
    })?;
    if read.is_none() && !optional {
        return Err(ObjectError::Missing {
            kind,
            name: name.to_owned(),
        });
    }
    Ok(read)
}
