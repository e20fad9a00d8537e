//! By what a server of rvm.v1 is shown who we are: files that are named, or what a kubeconfig has of its user.
//!
//! A kubeconfig that is only found is not asked: what it holds is for its own cluster, and is shown to another server when it is named
//! beside one (`--server` with `--kubeconfig` or `--context`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::config::AuthInfo;
use secrecy::ExposeSecret;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Identity;
use tonic::{Request, Status};

use crate::args::Global;
use crate::cluster;

/// What is shown.
#[derive(Default)]
pub struct Credentials {
    /// A certificate.
    pub identity: Option<Identity>,
    /// A token.
    pub bearer: Bearer,
}

/// Puts a token to each call, if there is one.
#[derive(Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

// === impl Bearer ===

impl Bearer {
    fn of(token: &str) -> Result<Self> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .context("the token is none")?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

// === impl Credentials ===

impl Credentials {
    /// What is meant: a certificate and a token that are named, else the named kubeconfig's.
    pub async fn of(global: &Global) -> Result<Self> {
        let identity = match (&global.cert, &global.key) {
            (Some(certificate), Some(key)) => Some(Identity::from_pem(read(certificate)?, read(key)?)),
            _ => None,
        };
        let bearer = match &global.token_file {
            Some(file) => Bearer::of(&String::from_utf8(read(file)?).context("the token is none")?)?,
            None => Bearer::default(),
        };
        let none = identity.is_none() && bearer.0.is_none();
        if none && (global.kubeconfig.is_some() || global.context.is_some()) {
            return Self::of_user(&cluster::config(global).await?.auth_info);
        }
        Ok(Self { identity, bearer })
    }

    /// What a kubeconfig's user has.
    fn of_user(user: &AuthInfo) -> Result<Self> {
        if user.exec.is_some() || user.auth_provider.is_some() {
            bail!(
                "the kubeconfig's user is shown by another program; write its token into a file, for --token-file"
            );
        }
        let certificate = pem(
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
        )?;
        let key = user.client_key_data.as_ref().map(|key| key.expose_secret());
        let key = pem(key, user.client_key.as_deref())?;
        let bearer = match (&user.token, &user.token_file) {
            (Some(token), _) => Bearer::of(token.expose_secret())?,
            (None, Some(file)) => {
                Bearer::of(&String::from_utf8(read(Path::new(file))?).context("the token is none")?)?
            }
            (None, None) => Bearer::default(),
        };
        let identity = certificate.zip(key);
        Ok(Self {
            identity: identity.map(|(certificate, key)| Identity::from_pem(certificate, key)),
            bearer,
        })
    }
}

fn pem(data: Option<&str>, file: Option<&str>) -> Result<Option<Vec<u8>>> {
    match (data, file) {
        (Some(data), _) => {
            let pem = BASE64_STANDARD.decode(data);
            Ok(Some(
                pem.context("the kubeconfig holds a certificate that is none")?,
            ))
        }
        (None, Some(file)) => read(Path::new(file)).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(user: serde_json::Value) -> Result<Credentials> {
        Credentials::of_user(&serde_json::from_value(user).expect("a user"))
    }

    #[test]
    fn a_kubeconfigs_user_is_known_by_a_token_or_a_certificate() {
        let token = of(json!({"token": "abc"})).unwrap();
        assert_eq!(token.bearer.0.unwrap().to_str().unwrap(), "Bearer abc");
        let data = BASE64_STANDARD.encode("pem");
        let pair = of(json!({"client-certificate-data": data, "client-key-data": data})).unwrap();
        assert!(pair.identity.is_some() && pair.bearer.0.is_none());
        let nobody = of(json!({})).unwrap();
        assert!(nobody.identity.is_none() && nobody.bearer.0.is_none());
    }

    #[test]
    fn a_user_whom_another_program_shows_is_refused_with_a_way_out() {
        let refused = of(json!({"exec": {"command": "login"}}));
        assert!(refused.err().unwrap().to_string().contains("--token-file"));
    }
}
