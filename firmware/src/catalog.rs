//! `catalog.toml` as data: parsed and checked, so that no half-filled entry is ever used.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

const CATALOG: &str = include_str!("../catalog.toml");

/// Characters of a SHA-256 in hexadecimal.
const HASH_LENGTH: usize = 64;

/// Why a catalog is refused.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// It is not TOML, or an entry misses a field.
    #[error("the firmware catalog cannot be read")]
    Syntax(#[source] toml::de::Error),
    /// A field holds nothing.
    #[error("firmware {name}: {field} is empty")]
    Empty {
        /// The image's name.
        name: String,
        /// The field's name.
        field: &'static str,
    },
    /// The hash is not 64 lower-case hexadecimal digits.
    #[error("firmware {0}: sha256 is not 64 lower-case hexadecimal digits")]
    Hash(String),
    /// The path would lead out of the unpacked package.
    #[error("firmware {0}: path must be relative, without `..`")]
    Path(String),
    /// Two entries have one name.
    #[error("firmware {0} is listed twice")]
    Twice(String),
}

/// One firmware image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// What it is called here.
    pub name: String,
    /// Its maker's version.
    pub version: String,
    /// What it is for.
    pub purpose: String,
    /// The distribution package that it is taken from.
    pub package: String,
    /// That package's version.
    pub package_version: String,
    /// Where the file lies in the unpacked package.
    pub path: PathBuf,
    /// The file's SHA-256.
    pub sha256: String,
    /// Who built it, from which source.
    pub origin: String,
    /// Its licence, as SPDX names it.
    pub licence: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalog {
    image: Vec<Image>,
}

/// All images of our catalog.
#[must_use]
pub fn images() -> Vec<Image> {
    parse(CATALOG).expect("a test parses the built-in catalog")
}

/// The image called `name`.
#[must_use]
pub fn find(name: &str) -> Option<Image> {
    images().into_iter().find(|image| image.name == name)
}

fn parse(text: &str) -> Result<Vec<Image>, CatalogError> {
    let catalog: Catalog = toml::from_str(text).map_err(CatalogError::Syntax)?;
    for (index, image) in catalog.image.iter().enumerate() {
        check(image)?;
        if catalog.image[..index]
            .iter()
            .any(|other| other.name == image.name)
        {
            return Err(CatalogError::Twice(image.name.clone()));
        }
    }
    Ok(catalog.image)
}

fn check(image: &Image) -> Result<(), CatalogError> {
    let fields = [
        ("name", &image.name),
        ("version", &image.version),
        ("purpose", &image.purpose),
        ("package", &image.package),
        ("package-version", &image.package_version),
        ("origin", &image.origin),
        ("licence", &image.licence),
    ];
    if let Some((field, _)) = fields.into_iter().find(|(_, value)| value.trim().is_empty()) {
        return Err(CatalogError::Empty {
            name: image.name.clone(),
            field,
        });
    }
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if image.sha256.len() != HASH_LENGTH || !image.sha256.bytes().all(digit) {
        return Err(CatalogError::Hash(image.name.clone()));
    }
    if !stays_inside(&image.path) {
        return Err(CatalogError::Path(image.name.clone()));
    }
    Ok(())
}

fn stays_inside(path: &Path) -> bool {
    path.file_name().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, path: &str, sha256: &str, licence: &str) -> String {
        format!(
            "[[image]]\nname = \"{name}\"\nversion = \"1\"\npurpose = \"p\"\npackage = \"p\"\n\
             package-version = \"1-1\"\npath = \"{path}\"\nsha256 = \"{sha256}\"\norigin = \"o\"\n\
             licence = \"{licence}\"\n"
        )
    }

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn our_own_catalog_is_sound_and_has_the_firmware_of_an_emulated_machine() {
        let images = parse(CATALOG).unwrap();
        assert_eq!(
            find("opensbi-tcg").as_ref(),
            images.iter().find(|image| image.name == "opensbi-tcg")
        );
        assert_eq!(find("opensbi-tcg").unwrap().licence, "BSD-2-Clause");
        assert_eq!(find("no-such-firmware"), None);
    }

    #[test]
    fn an_entry_without_a_licence_is_refused() {
        assert_eq!(
            refusal(&entry("a", "f", &"0".repeat(64), "")),
            "firmware a: licence is empty"
        );
    }

    #[test]
    fn a_hash_that_is_none_is_refused() {
        let expected = "firmware a: sha256 is not 64 lower-case hexadecimal digits";
        assert_eq!(refusal(&entry("a", "f", "00", "MIT")), expected);
        assert_eq!(refusal(&entry("a", "f", &"G".repeat(64), "MIT")), expected);
    }

    #[test]
    fn a_path_that_leaves_the_package_is_refused() {
        let expected = "firmware a: path must be relative, without `..`";
        assert_eq!(refusal(&entry("a", "../f", &"0".repeat(64), "MIT")), expected);
        assert_eq!(refusal(&entry("a", "/f", &"0".repeat(64), "MIT")), expected);
        assert_eq!(refusal(&entry("a", "", &"0".repeat(64), "MIT")), expected);
    }

    #[test]
    fn one_name_stands_for_one_image() {
        let one = entry("a", "f", &"0".repeat(64), "MIT");
        assert_eq!(refusal(&format!("{one}{one}")), "firmware a is listed twice");
    }

    #[test]
    fn a_missing_or_unknown_field_is_refused() {
        assert_eq!(
            refusal("[[image]]\nname = \"a\"\n"),
            "the firmware catalog cannot be read"
        );
        let more = entry("a", "f", &"0".repeat(64), "MIT") + "colour = \"red\"\n";
        assert_eq!(refusal(&more), "the firmware catalog cannot be read");
    }
}
