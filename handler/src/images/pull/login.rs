//! Who we are to a registry: pull secrets and auth files, which have the same form (`{"auths": {"HOST[/PATH]": …}}`).
//!
//! A login goes to the host that it is named for and to no other.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::job::Login;

/// Largest secret or auth file.
const MAX_FILE: u64 = 1 << 20;

/// How docker.io is called in auth files, besides by its name.
const DOCKER: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "docker.io"];

/// Logins by host and maybe path.
#[derive(Debug, Clone, Default)]
pub struct Logins(BTreeMap<String, Login>);

/// Not a secret or auth file. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
#[error("it is not a Docker configuration with 'auths'")]
pub struct ParseLoginsError;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

// === impl Logins ===

impl Logins {
    /// Reads a secret's `.dockerconfigjson`, or an auth file.
    ///
    /// # Errors
    /// [`ParseLoginsError`].
    pub fn parse(json: &[u8]) -> Result<Self, ParseLoginsError> {
        let config: Config = serde_json::from_slice(json).map_err(|_| ParseLoginsError)?;
        let logins = config
            .auths
            .into_iter()
            .filter_map(|(place, entry)| Some((place_of(&place), entry.login()?)));
        Ok(Self(logins.collect()))
    }

    /// The login for an image at a registry: the one for the longest path that leads to it.
    pub fn find(&self, registry: &str, repository: &str) -> Option<&Login> {
        let hosts: Vec<&str> = if DOCKER.contains(&registry) {
            DOCKER.to_vec()
        } else {
            vec![registry]
        };
        let fits = |place: &str| {
            let mut hosts = hosts.iter();
            hosts.any(|host| match place.strip_prefix(host) {
                Some("") => true,
                Some(path) => path.strip_prefix('/').is_some_and(|path| {
                    repository
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }),
                None => false,
            })
        };
        let fitting = self.0.iter().filter(|(place, _)| fits(place));
        fitting
            .max_by_key(|(place, _)| place.len())
            .map(|(_, login)| login)
    }
}

// === impl Entry ===

impl Entry {
    fn login(self) -> Option<Login> {
        if let (Some(user), Some(password)) = (self.username, self.password) {
            return Some(Login { user, password });
        }
        let bytes = STANDARD.decode(self.auth?.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Login {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        })
    }
}

/// A key of `auths` as host and path: some tools write `https://HOST/v1/`.
fn place_of(key: &str) -> String {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let api = ["/v1", "/v2"];
    let bare = api.iter().find_map(|api| bare.strip_suffix(api)).unwrap_or(bare);
    bare.to_owned()
}

/// The login that this user's auth files have, in the order in which other tools look.
pub fn from_files(registry: &str, repository: &str) -> Option<Login> {
    let mut files = auth_files().into_iter();
    files.find_map(|path| {
        let logins = read(&path)?;
        logins.find(registry, repository).cloned()
    })
}

fn auth_files() -> Vec<PathBuf> {
    let of = |variable: &str| {
        env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(named) = of("REGISTRY_AUTH_FILE") {
        return vec![named];
    }
    let docker = of("DOCKER_CONFIG").or_else(|| Some(of("HOME")?.join(".docker")));
    let files = [
        of("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ];
    files.into_iter().flatten().collect()
}

fn read(path: &Path) -> Option<Logins> {
    let mut json = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_FILE)
        .read_to_end(&mut json)
        .ok()?;
    Logins::parse(&json)
        .inspect_err(|error| tracing::warn!(path = %path.display(), "the auth file is not used: {error}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(json: &str) -> Logins {
        Logins::parse(json.as_bytes()).unwrap()
    }

    fn user(logins: &Logins, registry: &str, repository: &str) -> Option<String> {
        logins.find(registry, repository).map(|login| login.user.clone())
    }

    #[test]
    fn a_login_goes_to_its_host_and_to_the_longest_path() {
        let logins = logins(
            r#"{"auths": {"a.example:5000": {"username": "host", "password": "p"},
                "a.example:5000/team": {"username": "team", "password": "p"}}}"#,
        );
        assert_eq!(user(&logins, "a.example:5000", "x").as_deref(), Some("host"));
        assert_eq!(user(&logins, "a.example:5000", "team/x").as_deref(), Some("team"));
        assert_eq!(
            user(&logins, "a.example:5000", "teams/x").as_deref(),
            Some("host")
        );
        assert_eq!(user(&logins, "a.example", "team/x"), None);
        assert_eq!(user(&logins, "a.example:5000.evil.example", "x"), None);
    }

    #[test]
    fn both_forms_of_a_password_are_read_and_the_names_of_docker_hub() {
        let logins = logins(r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="}}}"#);
        let login = logins.find("docker.io", "library/alpine").unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("user", "pa:ss"));
        assert_eq!(logins.find("index.docker.io", "x"), Some(login));
    }

    #[test]
    fn what_cannot_be_read_is_no_login_and_shows_nothing() {
        assert!(Logins::parse(b"[1]").is_err());
        let logins = logins(r#"{"auths": {"a": {"auth": "%%%"}, "b": {}}, "credsStore": "x"}"#);
        assert_eq!(logins.find("a", "x"), None);
        let login = Login {
            user: "u".into(),
            password: "secret".into(),
        };
        assert_eq!(format!("{login:?}"), "Login(u)");
    }
}
