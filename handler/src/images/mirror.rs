//! Where images come from: names of registries, pointed at OCI layouts on this machine's disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use super::layout::Layout;

/// One `NAME=oci:DIR[:TAG]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    name: String,
    layout: Layout,
}

/// Not of the form `NAME=oci:DIR[:TAG]`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a mirror; write NAME=oci:DIR or NAME=oci:DIR:TAG")]
pub struct ParseMirrorError(String);

/// All mirrors, by the canonical name of the image that they stand for.
#[derive(Debug, Clone, Default)]
pub struct Mirrors(BTreeMap<String, Layout>);

// === impl Mirror ===

impl FromStr for Mirror {
    type Err = ParseMirrorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let err = || ParseMirrorError(text.to_owned());
        let (name, place) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(err)?;
        let place = place
            .strip_prefix("oci:")
            .filter(|place| !place.is_empty())
            .ok_or_else(err)?;
        // What follows the last colon is a tag unless a folder's name goes on behind it.
        let (dir, tag) = match place.rsplit_once(':') {
            Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag.to_owned())),
            _ => (place, None),
        };
        if dir.is_empty() || tag.as_deref() == Some("") {
            return Err(err());
        }
        Ok(Self {
            name: canonical(name),
            layout: Layout {
                dir: PathBuf::from(dir),
                tag,
            },
        })
    }
}

// === impl Mirrors ===

impl FromIterator<Mirror> for Mirrors {
    fn from_iter<I: IntoIterator<Item = Mirror>>(mirrors: I) -> Self {
        Self(
            mirrors
                .into_iter()
                .map(|mirror| (mirror.name, mirror.layout))
                .collect(),
        )
    }
}

impl Mirrors {
    /// The layout that stands for an image, however short the image's name is written.
    pub fn find(&self, image: &str) -> Option<&Layout> {
        self.0.get(&canonical(image))
    }
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
                layout: layout("/b:c/d", Some("e"))
            }
        );
        let mirror: Mirror = "a=oci:/b:c/d".parse().unwrap();
        assert_eq!(mirror.layout, layout("/b:c/d", None));
    }

    #[test]
    fn what_is_no_mirror_is_refused() {
        assert!("alpine".parse::<Mirror>().is_err());
        assert!("=oci:/a".parse::<Mirror>().is_err());
        assert!("a=docker:/a".parse::<Mirror>().is_err());
        assert!("a=oci:".parse::<Mirror>().is_err());
        assert!("a=oci:/a:".parse::<Mirror>().is_err());
    }
}
