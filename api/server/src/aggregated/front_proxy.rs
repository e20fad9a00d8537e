//! Who may speak for others: kube-apiserver as the front proxy, and how it names its users; and who signs those users' own certificates.
//!
//! All of that stands in a ConfigMap that kube-apiserver keeps for the servers behind it, and that is followed as it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use http::HeaderMap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;

use crate::access::User;
use crate::tls::certificates;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// Groups, and extra values, that are taken from one request.
const MAX_VALUES: usize = 1024;

/// The front proxy, as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontProxy {
    /// Who signs its certificate, PEM.
    pub(super) authority: String,
    /// Who signs the certificates of users, PEM, where users have some.
    users: Option<String>,
    /// The common names that it may have; any, where there are none.
    names: Vec<String>,
    user_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

/// Why the front proxy is not known.
#[derive(Debug, thiserror::Error)]
pub enum FrontProxyError {
    /// There is no such ConfigMap, or no authority in it.
    #[error(
        "kube-apiserver has no front proxy's authority in ConfigMap {NAMESPACE}/{NAME}: it has to be started with --requestheader-client-ca-file"
    )]
    None,
    /// The authority is none, or that of users is none.
    #[error("an authority in ConfigMap {NAMESPACE}/{NAME} cannot be used: {0}")]
    Authority(String),
    /// A list is no list.
    #[error("{0:?} in ConfigMap {NAMESPACE}/{NAME} is no list")]
    List(&'static str),
    /// The cluster says no, or nothing.
    #[error("ConfigMap {NAMESPACE}/{NAME} cannot be read")]
    Api(#[from] kube::Error),
}

// === impl FrontProxy ===

impl FrontProxy {
    /// As the cluster describes it now.
    ///
    /// # Errors
    /// Any [`FrontProxyError`].
    pub async fn read(client: &kube::Client) -> Result<Self, FrontProxyError> {
        match api(client).get_opt(NAME).await? {
            Some(map) => Self::of(&map),
            None => Err(FrontProxyError::None),
        }
    }

    fn of(map: &ConfigMap) -> Result<Self, FrontProxyError> {
        let data = map.data.as_ref().ok_or(FrontProxyError::None)?;
        let list = |key: &'static str| match data.get(key) {
            None => Ok(Vec::new()),
            Some(text) => serde_json::from_str(text).map_err(|_| FrontProxyError::List(key)),
        };
        let authority = data.get("requestheader-client-ca-file");
        let authority = authority.ok_or(FrontProxyError::None)?.clone();
        certificates(authority.as_bytes()).map_err(|error| FrontProxyError::Authority(error.to_string()))?;
        let users = data
            .get("client-ca-file")
            .filter(|users| !users.trim().is_empty());
        if let Some(users) = users {
            certificates(users.as_bytes()).map_err(|error| FrontProxyError::Authority(error.to_string()))?;
        }
        Ok(Self {
            authority,
            users: users.cloned(),
            names: list("requestheader-allowed-names")?,
            user_headers: list("requestheader-username-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?,
        })
    }

    /// Who signs the certificates of users, PEM; nobody, where only tokens are good.
    pub(crate) fn authority_of_users(&self) -> Option<&str> {
        self.users.as_deref()
    }

    /// For whom this request is, where whoever sent it has shown a certificate of our authority with these common names; nobody's
    /// headers are believed who has not.
    pub(super) fn user(&self, shown: Option<&[String]>, headers: &HeaderMap) -> Option<User> {
        let allowed = |name: &String| self.names.is_empty() || self.names.contains(name);
        shown?.iter().find(|name| allowed(name))?;
        let text = |name: &String| headers.get(name)?.to_str().ok().filter(|text| !text.is_empty());
        let name = self.user_headers.iter().find_map(text)?.to_owned();
        let groups = self.group_headers.iter().flat_map(|name| headers.get_all(name));
        let groups = groups.filter_map(|group| group.to_str().ok().map(str::to_owned));
        Some(User {
            name,
            uid: None,
            groups: groups.take(MAX_VALUES).collect(),
            extra: self.extra(headers),
        })
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers.iter().take(MAX_VALUES) {
            // Names of headers are lower case here, and so are keys.
            let prefixes = self
                .extra_prefixes
                .iter()
                .map(|prefix| prefix.to_ascii_lowercase());
            let key = prefixes
                .filter_map(|prefix| name.as_str().strip_prefix(&prefix))
                .next();
            if let (Some(key), Ok(value)) = (key.and_then(unescaped), value.to_str()) {
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        extra
    }
}

/// Follows the description for ever. What cannot be used, or is gone, changes nothing: the front proxy was known before.
pub async fn follow(client: kube::Client, front: watch::Sender<Arc<FrontProxy>>) {
    let seen = watcher::watch_object(api(&client), NAME).default_backoff();
    let mut seen = std::pin::pin!(seen);
    while let Some(map) = seen.next().await {
        let now = match map {
            Ok(Some(map)) => FrontProxy::of(&map),
            Ok(None) => Err(FrontProxyError::None),
            Err(error) => {
                tracing::debug!(%error, "the front proxy's ConfigMap cannot be watched, trying again");
                continue;
            }
        };
        match now {
            Ok(now) => {
                front.send_if_modified(|before| {
                    let changed = **before != now;
                    if changed {
                        *before = Arc::new(now);
                    }
                    changed
                });
            }
            Err(error) => tracing::warn!(%error, "the front proxy stays as it was"),
        }
    }
}

fn api(client: &kube::Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// A key of extra values, in which what no header's name can have is escaped. One that is no text is none.
fn unescaped(key: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        (rest, bytes) = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                (after, bytes)
            }
            _ => {
                bytes.push(*first);
                (tail, bytes)
            }
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn front() -> FrontProxy {
        let list = |text: &str| vec![text.to_owned()];
        FrontProxy {
            authority: String::new(),
            users: None,
            names: list("front-proxy-client"),
            user_headers: list("X-Remote-User"),
            group_headers: list("X-Remote-Group"),
            extra_prefixes: list("X-Remote-Extra-"),
        }
    }

    fn headers() -> HeaderMap {
        [
            ("x-remote-user", "alice"),
            ("x-remote-group", "one"),
            ("x-remote-group", "two"),
            ("x-remote-extra-authentication.kubernetes.io%2fcredential-id", "7"),
        ]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    #[test]
    fn the_front_proxy_speaks_for_its_user() {
        let shown = ["front-proxy-client".to_owned()];
        let user = front().user(Some(&shown), &headers()).expect("a user");
        assert_eq!((user.name.as_str(), user.groups.len()), ("alice", 2));
        let key = "authentication.kubernetes.io/credential-id";
        assert_eq!(user.extra.get(key), Some(&vec!["7".to_owned()]));
    }

    #[test]
    fn headers_of_whoever_is_not_the_front_proxy_are_not_believed() {
        assert_eq!(front().user(None, &headers()), None);
        assert_eq!(front().user(Some(&["somebody".to_owned()]), &headers()), None);
        let shown = ["front-proxy-client".to_owned()];
        assert_eq!(front().user(Some(&shown), &HeaderMap::new()), None);
    }

    #[test]
    fn any_name_will_do_where_the_cluster_names_none() {
        let any = FrontProxy {
            names: Vec::new(),
            ..front()
        };
        assert!(any.user(Some(&["somebody".to_owned()]), &headers()).is_some());
        assert_eq!(any.user(None, &headers()), None);
    }

    #[test]
    fn a_key_with_a_broken_escape_is_none() {
        assert_eq!(unescaped("a%2fb").as_deref(), Some("a/b"));
        assert_eq!((unescaped("a%zz"), unescaped("%ff")), (None, None));
    }
}
