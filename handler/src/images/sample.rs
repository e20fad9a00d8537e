//! For tests: OCI layouts and tar archives, well formed and otherwise.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::layout::{Layout, hex};

/// A layout in a temporary folder.
pub struct Blobs {
    folder: tempfile::TempDir,
}

impl Blobs {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        Self { folder }
    }

    fn add(&self, media_type: &str, bytes: &[u8]) -> Value {
        let mut sha = Sha256::new();
        sha.update(bytes);
        let digest = hex(sha);
        fs::write(self.folder.path().join("blobs/sha256").join(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    pub fn path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"]
            .as_str()
            .unwrap()
            .strip_prefix("sha256:")
            .unwrap();
        self.folder.path().join("blobs/sha256").join(digest)
    }

    pub fn layer(&self, archive: &[u8], gzip: bool) -> Value {
        if !gzip {
            return self.add("application/vnd.oci.image.layer.v1.tar", archive);
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(archive).unwrap();
        self.add(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            &encoder.finish().unwrap(),
        )
    }

    pub fn zstd_layer(&self, archive: &[u8]) -> Value {
        let packed = compress_to_vec(archive, CompressionLevel::Fastest);
        self.add("application/vnd.oci.image.layer.v1.tar+zstd", &packed)
    }

    pub fn image(&self, architecture: &str, layers: &[Value]) -> Value {
        self.labelled_image(architecture, layers, &json!({}))
    }

    pub fn labelled_image(&self, architecture: &str, layers: &[Value], labels: &Value) -> Value {
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = self.add(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        self.add(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        )
    }

    pub fn nested(&self, manifests: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        self.add(
            "application/vnd.oci.image.index.v1+json",
            index.to_string().as_bytes(),
        )
    }

    pub fn index(&self, manifests: &[Value]) -> Layout {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.folder.path().join("index.json"), index.to_string()).unwrap();
        Layout {
            dir: self.folder.path().to_owned(),
            tag: None,
        }
    }
}

/// A tar archive of plain files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Archive::new();
    files
        .iter()
        .for_each(|(path, content)| archive.file(path, content));
    archive.finish()
}

/// A tar archive of anything, paths that no tool would write included.
pub struct Archive(Builder<Vec<u8>>);

impl Archive {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(EntryType::Regular, path, "", 0o644, content);
    }

    pub fn link(&mut self, kind: EntryType, path: &str, target: &str) {
        self.entry(kind, path, target, 0o777, b"");
    }

    pub fn entry(&mut self, kind: EntryType, path: &str, target: &str, mode: u32, content: &[u8]) {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(100);
        header.set_mtime(7);
        header.set_size(content.len() as u64);
        header.set_device_major(4).unwrap();
        header.set_device_minor(64).unwrap();
        header.set_cksum();
        self.0.append(&header, content).unwrap();
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}
