//! Where images come from: names of images and registries, pointed at OCI layouts on this machine's disk or at other
//! registries.
//!
//! ```text
//!   docker.io/library/alpine:3.23=oci:DIR          that image is this layout
//!   docker.io=https://mirror.example:5000/hub      docker.io/library/alpine:3.23 is mirror.example:5000/hub/library/alpine:3.23
//!   docker.io/library=http://mirror.example/lib    only what is below docker.io/library, and without TLS
//! ```
//!
//! A registry that stands for another is asked in its place, not before it: what it does not have there is not. Where none of these
//! names fits, the registries file says who is asked (`registries.rs`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use oci_client::{ParseError, Reference};

use super::layout::Layout;
use super::pull::job::{Source, Trust};
use super::registries::{Named, Registries};

/// One `NAME=PLACE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    name: String,
    place: Place,
}

/// What stands for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Layout(Layout),
    Registry {
        host: String,
        /// What goes before a repository's name; empty, or with a slash at its end.
        prefix: String,
        plain: bool,
    },
}

/// Not of the form `NAME=oci:DIR[:TAG]` or `NAME=https://HOST[:PORT][/PREFIX]`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "'{0}' is not a mirror; write NAME=oci:DIR, NAME=oci:DIR:TAG or REGISTRY=https://HOST:PORT/PREFIX (http:// for plain)"
)]
pub struct ParseMirrorError(String);

/// Nobody can be asked for an image.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// Not the name of an image.
    #[error("'{0}' is not the name of an image")]
    Form(String, #[source] ParseError),
    /// The registries file says so.
    #[error("the registry '{0}' is blocked by the registries file")]
    Blocked(String),
}

/// All mirrors, by the canonical name of what they stand for.
#[derive(Debug, Clone, Default)]
pub struct Mirrors {
    layouts: BTreeMap<String, Layout>,
    registries: BTreeMap<String, Place>,
    file: Registries,
}

// === impl Mirror ===

impl FromStr for Mirror {
    type Err = ParseMirrorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let err = || ParseMirrorError(text.to_owned());
        let (name, place) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(err)?;
        if let Some(place) = place.strip_prefix("oci:") {
            return Ok(Self {
                name: canonical(name),
                place: Place::Layout(layout(place).ok_or_else(err)?),
            });
        }
        let (plain, rest) = match (place.strip_prefix("https://"), place.strip_prefix("http://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(err()),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (path, name) = (path.trim_matches('/'), name.trim_end_matches('/'));
        let sound = |text: &str| !text.contains(|c: char| c.is_whitespace() || "@?#".contains(c));
        if host.is_empty() || !sound(rest) || !sound(name) {
            return Err(err());
        }
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        Ok(Self {
            name: name.to_owned(),
            place: Place::Registry {
                host: host.to_owned(),
                prefix,
                plain,
            },
        })
    }
}

/// `DIR[:TAG]`. What follows the last colon is a tag unless a folder's name goes on behind it.
fn layout(place: &str) -> Option<Layout> {
    let (dir, tag) = match place.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag.to_owned())),
        _ => (place, None),
    };
    (!dir.is_empty() && tag.as_deref() != Some("")).then(|| Layout {
        dir: PathBuf::from(dir),
        tag,
    })
}

// === impl Mirrors ===

impl FromIterator<Mirror> for Mirrors {
    fn from_iter<I: IntoIterator<Item = Mirror>>(mirrors: I) -> Self {
        let mut all = Self::default();
        for Mirror { name, place } in mirrors {
            match place {
                Place::Layout(layout) => drop(all.layouts.insert(name, layout)),
                place @ Place::Registry { .. } => drop(all.registries.insert(name, place)),
            }
        }
        all
    }
}

impl Mirrors {
    /// The layout that stands for an image, however short the image's name is written.
    pub fn find(&self, image: &str) -> Option<&Layout> {
        self.layouts.get(&canonical(image))
    }

    /// With a registries file for what no mirror stands for.
    #[must_use]
    pub fn with(self, file: Registries) -> Self {
        Self { file, ..self }
    }

    /// An image's full name, and where it is asked for: at least one place, in this order.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn sources(&self, image: &str) -> Result<(String, Vec<Source>), NameError> {
        let reference: Reference = image
            .parse()
            .map_err(|error| NameError::Form(image.to_owned(), error))?;
        let source = |registry: &str, repository: String, trust| Source {
            registry: registry.to_owned(),
            repository,
            tag: reference.tag().map(str::to_owned),
            digest: reference.digest().map(str::to_owned),
            trust,
        };
        let (registry, repository) = (reference.registry(), reference.repository());
        let sources = if let Some((host, repository, trust)) = self.in_place_of(registry, repository) {
            vec![source(&host, repository, trust)]
        } else {
            let named = Named {
                registry,
                repository,
                tag: reference.tag(),
                digest: reference.digest(),
            };
            let trust = if is_loopback(registry) {
                Trust::Plain
            } else {
                Trust::Signed
            };
            let own = || vec![source(registry, repository.to_owned(), trust)];
            self.file.sources(named).unwrap_or_else(own)
        };
        if sources.is_empty() {
            return Err(NameError::Blocked(registry.to_owned()));
        }
        Ok((reference.whole(), sources))
    }

    /// The registry that stands for another by a mirror: host, name there, and whether by TLS.
    fn in_place_of(&self, registry: &str, repository: &str) -> Option<(String, String, Trust)> {
        let name = format!("{registry}/{repository}");
        let below = |mirrored: &str| {
            let rest = name.strip_prefix(mirrored)?.strip_prefix('/')?;
            Some((mirrored.len(), rest.to_owned()))
        };
        let mirrored = self
            .registries
            .iter()
            .filter_map(|(mirrored, place)| Some((below(mirrored)?, place)));
        match mirrored.max_by_key(|((length, _), _)| *length)? {
            ((_, rest), Place::Registry { host, prefix, plain }) => {
                let trust = if *plain { Trust::Plain } else { Trust::Signed };
                Some((host.clone(), format!("{prefix}{rest}"), trust))
            }
            (_, Place::Layout(_)) => None,
        }
    }
}

/// Whether a registry is this machine, which is asked without TLS as by other tools.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// An image's full name: `alpine` is `docker.io/library/alpine:latest`.
fn canonical(image: &str) -> String {
    let (first, rest) = image.split_once('/').unwrap_or(("", image));
    let is_registry = first.contains(['.', ':']) || first == "localhost";
    let full = match (first, is_registry) {
        ("", _) => format!("docker.io/library/{rest}"),
        (_, true) => image.to_owned(),
        (_, false) => format!("docker.io/{image}"),
    };
    let last = full.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        full
    } else {
        format!("{full}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &str, tag: Option<&str>) -> Layout {
        Layout {
            dir: dir.into(),
            tag: tag.map(str::to_owned),
        }
    }

    #[test]
    fn a_mirror_is_found_by_short_and_long_names() {
        let mirrors: Mirrors = ["docker.io/library/alpine:3.23=oci:/images/alpine"
            .parse()
            .unwrap()]
        .into_iter()
        .collect();
        let found = Some(layout("/images/alpine", None));
        assert_eq!(mirrors.find("alpine:3.23").cloned(), found);
        assert_eq!(mirrors.find("library/alpine:3.23").cloned(), found);
        assert_eq!(mirrors.find("docker.io/library/alpine:3.23").cloned(), found);
        assert_eq!(mirrors.find("alpine"), None);
        assert_eq!(mirrors.find("localhost/library/alpine:3.23"), None);
    }

    #[test]
    fn a_tag_may_follow_the_folder() {
        let mirror: Mirror = "localhost:5000/a=oci:/b:c/d:e".parse().unwrap();
        assert_eq!(
            mirror,
            Mirror {
                name: "localhost:5000/a:latest".into(),
                place: Place::Layout(layout("/b:c/d", Some("e")))
            }
        );
        let mirror: Mirror = "a=oci:/b:c/d".parse().unwrap();
        assert_eq!(mirror.place, Place::Layout(layout("/b:c/d", None)));
    }

    #[test]
    fn what_is_no_mirror_is_refused() {
        assert!("alpine".parse::<Mirror>().is_err());
        assert!("=oci:/a".parse::<Mirror>().is_err());
        assert!("a=docker:/a".parse::<Mirror>().is_err());
        assert!("a=oci:".parse::<Mirror>().is_err());
        assert!("a=oci:/a:".parse::<Mirror>().is_err());
        assert!("a=https://".parse::<Mirror>().is_err());
        assert!("a=https://user@host".parse::<Mirror>().is_err());
    }

    fn asked(mirrors: &[&str], image: &str) -> String {
        let mirrors: Mirrors = mirrors.iter().map(|mirror| mirror.parse().unwrap()).collect();
        let (_, sources) = mirrors.sources(image).unwrap();
        let [source] = &sources[..] else {
            panic!("{sources:?}");
        };
        let scheme = match source.trust {
            Trust::Plain => "http",
            Trust::Signed | Trust::Anybody => "https",
        };
        format!("{scheme}://{}/{}", source.registry, source.repository)
    }

    #[test]
    fn a_registry_stands_for_another_and_the_longest_name_wins() {
        let mirrors = [
            "docker.io=https://m.example:5000/hub",
            "docker.io/library=http://l.example",
        ];
        assert_eq!(
            asked(&mirrors, "kubevirt/alpine:devel"),
            "https://m.example:5000/hub/kubevirt/alpine"
        );
        assert_eq!(asked(&mirrors, "alpine:3.23"), "http://l.example/alpine");
        assert_eq!(asked(&mirrors, "docker.iox/a"), "https://docker.iox/a");
    }

    #[test]
    fn only_this_machine_is_asked_without_tls_unbidden() {
        assert_eq!(asked(&[], "localhost:5000/a"), "http://localhost:5000/a");
        assert_eq!(asked(&[], "127.0.0.1:5000/a"), "http://127.0.0.1:5000/a");
        assert_eq!(asked(&[], "registry:5000/a/b"), "https://registry:5000/a/b");
        assert_eq!(
            asked(&["registry:5000=http://127.0.0.1:5000"], "registry:5000/a/b"),
            "http://127.0.0.1:5000/a/b"
        );
    }

    #[test]
    fn a_full_name_holds_what_was_meant() {
        let name = |image: &str| Mirrors::default().sources(image).unwrap().0;
        assert_eq!(name("alpine"), "docker.io/library/alpine:latest");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            name(&format!("r.example/a@{digest}")),
            format!("r.example/a@{digest}")
        );
        assert!(Mirrors::default().sources("UPPER case").is_err());
    }
}
