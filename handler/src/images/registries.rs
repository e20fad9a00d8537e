//! Which registries are asked for an image, as `containers-registries.conf(5)` has it (version 2), and whom they are believed
//! by, as `containers-certs.d(5)` has it.
//!
//! ```text
//!   [[registry]]
//!   prefix = "docker.io/library"          # what images' names begin with; "*.example.com" for all hosts below; else the location
//!   location = "hub.example:5000/lib"     # what stands in its place; else the prefix
//!   insecure = false                      # any certificate will do, and none
//!   blocked = false                       # nothing is pulled from there
//!   [[registry.mirror]]                   # asked before it, in this order
//!   location = "mirror.example/lib"
//!   insecure = false
//!   pull-from-mirror = "all"              # or "digest-only", "tag-only"
//! ```
//!
//! Of several the longest prefix counts. Whatever else such a file may hold is refused, as it would mean another image here than
//! elsewhere: names are Kubernetes' names, so short ones are of docker.io.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::pull::job::{Source, Trust};

/// Largest file.
const MAX_FILE: u64 = 1 << 20;

/// The one registry of short names.
const SHORT: &str = "docker.io";

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// Not there, or not readable.
    #[error("'{0}' cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// Longer than [`MAX_FILE`].
    #[error("'{0}' has more than {MAX_FILE} bytes")]
    TooLong(PathBuf),
    /// Not of this form, or something in it that is not supported.
    #[error("'{0}', line {1}: {2}")]
    Form(PathBuf, usize, String),
    /// What cannot be.
    #[error("'{0}': {1}")]
    Meaning(PathBuf, String),
}

/// The registries of a file.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    registries: Vec<Registry>,
}

/// An image, as its name says it.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Host and maybe port.
    pub registry: &'a str,
    /// The name there.
    pub repository: &'a str,
    /// Which of them.
    pub tag: Option<&'a str>,
    /// Exactly which.
    pub digest: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<Registry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Registry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: From,
}

/// For which names a mirror is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum From {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

// === impl Registries ===

impl Registries {
    /// Reads a file.
    ///
    /// # Errors
    /// Any [`RegistriesError`].
    pub fn read(path: &Path) -> Result<Self, RegistriesError> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
        read.map_err(|error| RegistriesError::Read(path.to_owned(), error))?;
        if text.len() as u64 > MAX_FILE {
            return Err(RegistriesError::TooLong(path.to_owned()));
        }
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, RegistriesError> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            RegistriesError::Form(path.to_owned(), line, error.message().replace('\n', " "))
        })?;
        let refuse = |why: String| RegistriesError::Meaning(path.to_owned(), why);
        if let Some(search) = document.unqualified_search_registries
            && search.iter().any(|registry| registry != SHORT)
        {
            let why = "unqualified-search-registries can only be [\"docker.io\"]: short names mean that";
            return Err(refuse(why.to_owned()));
        }
        let mut registries = document.registry;
        for registry in &mut registries {
            registry.complete().map_err(refuse)?;
        }
        registries.sort_by_key(|registry| std::cmp::Reverse(registry.prefix.len()));
        if let Some(two) = registries.windows(2).find(|two| two[0].prefix == two[1].prefix) {
            return Err(refuse(format!("there are two registries '{}'", two[0].prefix)));
        }
        Ok(Self { registries })
    }

    /// Where an image is asked for, in this order: nothing where no registry of the file fits, and nobody where its registry is
    /// blocked.
    pub fn sources(&self, image: Named<'_>) -> Option<Vec<Source>> {
        let name = format!("{}/{}", image.registry, image.repository);
        let mut all = self.registries.iter();
        let (registry, rest) = all.find_map(|registry| Some((registry, registry.rest(&name)?)))?;
        if registry.blocked {
            return Some(Vec::new());
        }
        let asked = |mirror: &&Mirror| match mirror.pull_from_mirror {
            From::All => image.digest.is_some() || !registry.mirror_by_digest_only,
            From::DigestOnly => image.digest.is_some(),
            From::TagOnly => image.digest.is_none(),
        };
        let mirrors = registry.mirror.iter().filter(asked);
        let mirrors = mirrors.map(|mirror| (format!("{}{rest}", mirror.location), mirror.insecure));
        let own = match registry.location.as_str() {
            "" => name.clone(),
            location => format!("{location}{rest}"),
        };
        let places = mirrors.chain([(own, registry.insecure)]);
        Some(
            places
                .filter_map(|(place, insecure)| {
                    let (host, repository) = place.split_once('/')?;
                    Some(Source {
                        registry: host.to_owned(),
                        repository: repository.to_owned(),
                        tag: image.tag.map(str::to_owned),
                        digest: image.digest.map(str::to_owned),
                        trust: if insecure { Trust::Anybody } else { Trust::Signed },
                    })
                })
                .collect(),
        )
    }
}

// === impl Registry ===

impl Registry {
    /// Fills in what follows from the rest.
    fn complete(&mut self) -> Result<(), String> {
        let sound = |text: &str| {
            !text.contains(|c: char| c.is_whitespace() || "@?#".contains(c)) && !text.contains("://")
        };
        for text in [&mut self.prefix, &mut self.location]
            .into_iter()
            .chain(self.mirror.iter_mut().map(|mirror| &mut mirror.location))
        {
            text.truncate(text.trim_end_matches('/').len());
            if !sound(text) || text.starts_with('/') {
                return Err(format!("'{text}' is not HOST[:PORT][/PATH]"));
            }
        }
        if self.mirror.iter().any(|mirror| mirror.location.is_empty()) {
            return Err("a mirror has no location".to_owned());
        }
        match (self.prefix.is_empty(), self.location.is_empty()) {
            (true, true) => return Err("a registry has neither prefix nor location".to_owned()),
            (true, false) => self.prefix.clone_from(&self.location),
            (false, _) => {}
        }
        let path = self.prefix.strip_prefix("*.");
        match path {
            Some("") => Err("'*.' is no prefix".to_owned()),
            Some(host) if host.contains(['*', '/']) => Err(format!(
                "'{}' is no prefix: a star stands before a host alone",
                self.prefix
            )),
            None if self.prefix.contains('*') => Err(format!(
                "'{}' is no prefix: a star stands before a host alone",
                self.prefix
            )),
            _ => Ok(()),
        }
    }

    /// What of a full name follows the prefix, with its slash; nothing where the prefix does not fit.
    fn rest<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = match self.prefix.strip_prefix('*') {
            None => name.strip_prefix(&self.prefix)?,
            Some(domain) => {
                let (host, _) = name.split_once('/')?;
                let bare = host.split_once(':').map_or(host, |(bare, _)| bare);
                let below = host.ends_with(domain) || bare.ends_with(domain);
                below.then(|| name.strip_prefix(host))??
            }
        };
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

#[cfg(test)]
mod tests;
