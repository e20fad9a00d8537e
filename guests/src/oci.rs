//! An OCI image on disk (an "image layout") for one platform, in the form Docker Hub serves: an
//! index, a manifest, a config and gzip'ed tar layers, all named by their SHA-256.
//!
//! The same input gives the same bytes, so the image keeps its digest from build to build.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::cache::sha256;

/// What the index is.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What the manifest is.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What the config is.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// What a layer is.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Everything is dated to the epoch.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The files of a layer, in the order they are put in.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tar: tar::Builder::new(Vec::new()),
        }
    }

    /// A folder.
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<&mut Self> {
        self.put(EntryType::Directory, &format!("{path}/"), mode, &[])
    }

    /// A file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<&mut Self> {
        self.put(EntryType::Regular, path, mode, bytes)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<&mut Self> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.tar
            .append_link(&mut header, path, target)
            .with_context(|| format!("cannot add {path}"))?;
        Ok(self)
    }

    /// All that lies below the folder `root` of this machine and that `wanted` wants, by its path in the image. What a
    /// folder that is not wanted holds is not looked at.
    pub fn tree(&mut self, root: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<&mut Self> {
        self.below(root, "", wanted)?;
        Ok(self)
    }

    fn below(&mut self, root: &Path, path: &str, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
        let folder = root.join(path);
        let mut names: Vec<String> = fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        for name in names {
            let inner = if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            };
            if !wanted(&inner) {
                continue;
            }
            let place = root.join(&inner);
            let about = fs::symlink_metadata(&place)?;
            let mode = about.permissions().mode() & 0o7777;
            if about.is_dir() {
                self.folder(&inner, mode)?;
                self.below(root, &inner, wanted)?;
            } else if about.is_symlink() {
                self.link(&inner, &fs::read_link(&place)?.to_string_lossy())?;
            } else {
                let bytes = fs::read(&place).with_context(|| format!("cannot read {}", place.display()))?;
                self.file(&inner, mode, &bytes)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, kind: EntryType, path: &str, mode: u32, bytes: &[u8]) -> Result<&mut Self> {
        let mut header = header(kind, mode, bytes.len() as u64);
        self.tar
            .append_data(&mut header, path, bytes)
            .with_context(|| format!("cannot add {path}"))?;
        Ok(self)
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// What an image says about itself besides its files.
pub struct About<'a> {
    /// The tag, such as `3.23`.
    pub tag: &'a str,
    /// What a container runtime would start.
    pub command: &'a [&'a str],
    /// Who made it, in a sentence.
    pub made_by: &'a str,
}

/// Writes the image for `linux/riscv64` with one layer as an image layout into the folder `into`.
pub fn write_layout(into: &Path, about: &About<'_>, layer: Layer) -> Result<()> {
    write_layers(into, about, vec![layer])
}

/// The same with several layers, from the lowest up.
pub fn write_layers(into: &Path, about: &About<'_>, layers: Vec<Layer>) -> Result<()> {
    write_platform(into, about, "riscv64", layers)
}

/// The same for another architecture, as Go names it.
pub fn write_platform(into: &Path, about: &About<'_>, arch: &str, layers: Vec<Layer>) -> Result<()> {
    let config = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": about.command, "WorkingDir": "/",
    });
    let mut manifest = put_image(into, arch, &config, about.made_by, layers)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": about.tag });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    fs::write(into.join("index.json"), serde_json::to_vec(&index)?)?;
    Ok(fs::write(
        into.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?)
}

/// Writes an image of `layers`, from the lowest up, that is started as `config` says; returns its manifest's descriptor.
pub fn put_image(
    into: &Path,
    arch: &str,
    config: &Value,
    made_by: &str,
    layers: Vec<Layer>,
) -> Result<Value> {
    let (mut packed_layers, mut plain_hashes) = (Vec::new(), Vec::new());
    for layer in layers {
        let plain = layer.tar.into_inner().context("cannot finish the layer")?;
        let mut packed = GzBuilder::new().write(Vec::new(), Compression::default());
        packed.write_all(&plain)?;
        packed_layers.push(put_blob(into, LAYER, &packed.finish()?)?);
        plain_hashes.push(format!("sha256:{}", sha256(&plain)));
    }
    let config = json!({
        "created": CREATED,
        "architecture": arch,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": plain_hashes },
        "history": vec![json!({ "created": CREATED, "created_by": made_by }); packed_layers.len()],
    });
    let config = put_blob(into, CONFIG, &serde_json::to_vec(&config)?)?;
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": packed_layers });
    let mut manifest = put_blob(into, MANIFEST, &serde_json::to_vec(&manifest)?)?;
    manifest["platform"] = json!({ "architecture": arch, "os": "linux" });
    Ok(manifest)
}

/// Writes a blob and returns its descriptor.
pub fn put_blob(into: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let hash = sha256(bytes);
    fs::create_dir_all(into.join("blobs/sha256"))?;
    fs::write(into.join("blobs/sha256").join(&hash), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{hash}"), "size": bytes.len() }))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    const ABOUT: About<'_> = About {
        tag: "1",
        command: &["/bin/sh"],
        made_by: "a test",
    };

    fn layout() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut layer = Layer::new();
        layer
            .folder("etc", 0o755)
            .unwrap()
            .file("etc/motd", 0o600, b"hello")
            .unwrap();
        layer.link("bin", "usr/bin").unwrap();
        write_layout(folder.path(), &ABOUT, layer).unwrap();
        folder
    }

    fn blob(folder: &Path, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = fs::read(folder.join("blobs").join(digest.replace(':', "/"))).unwrap();
        assert_eq!(format!("sha256:{}", sha256(&bytes)), digest);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    #[test]
    fn every_blob_is_what_its_descriptor_says_down_to_the_layer_s_plain_hash() {
        let folder = layout();
        let index: Value =
            serde_json::from_slice(&fs::read(folder.path().join("index.json")).unwrap()).unwrap();
        assert_eq!(
            index["manifests"][0]["platform"],
            json!({ "architecture": "riscv64", "os": "linux" })
        );
        let manifest: Value = serde_json::from_slice(&blob(folder.path(), &index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(folder.path(), &manifest["config"])).unwrap();
        let mut plain = Vec::new();
        GzDecoder::new(blob(folder.path(), &manifest["layers"][0]).as_slice())
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", sha256(&plain))
        );
        assert_eq!(
            (index["mediaType"].as_str(), manifest["mediaType"].as_str()),
            (Some(INDEX), Some(MANIFEST))
        );
    }

    #[test]
    fn the_layer_holds_what_was_put_in() {
        let mut layer = Layer::new();
        layer
            .folder("tmp", 0o1777)
            .unwrap()
            .file("etc/shadow", 0o640, b"x")
            .unwrap()
            .link("bin", "usr/bin")
            .unwrap();
        let plain = layer.tar.into_inner().unwrap();
        let mut archive = tar::Archive::new(plain.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name().unwrap().map(|link| link.display().to_string());
                (
                    entry.path().unwrap().display().to_string(),
                    entry.header().mode().unwrap(),
                    link,
                )
            })
            .collect();
        let expected = [
            ("tmp/".to_owned(), 0o1777, None),
            ("etc/shadow".to_owned(), 0o640, None),
            ("bin".to_owned(), 0o777, Some("usr/bin".to_owned())),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_same_files_give_the_same_image() {
        let index = |folder: &tempfile::TempDir| fs::read(folder.path().join("index.json")).unwrap();
        assert_eq!(index(&layout()), index(&layout()));
    }
}
