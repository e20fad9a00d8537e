//! Image layouts for tests, sound and otherwise.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use sha2::Digest;

/// An image, before it is written.
pub struct Image<'a> {
    pub architecture: &'a str,
    /// Unpacked.
    pub layers: Vec<Vec<u8>>,
    pub packed: Packed,
}

/// How layers are packed.
pub enum Packed {
    Gzip,
    Zstd,
    /// There is only one, which is of this type and holds these bytes, whatever they are.
    As(&'static str, Vec<u8>),
}

impl Image<'_> {
    /// One for riscv64 with one layer of plain files.
    pub fn of(files: &[(&str, &[u8])]) -> Self {
        Self {
            architecture: "riscv64",
            layers: vec![tar(files)],
            packed: Packed::Gzip,
        }
    }

    /// Writes it as a layout with an index of its own; returns the digests of its layers, in hex.
    pub fn write(&self, folder: &Path) -> Vec<String> {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        let layers = self.layers.iter();
        let layers: Vec<Value> = match &self.packed {
            Packed::Gzip => layers
                .map(|layer| put(folder, "layer.v1.tar+gzip", &gzip(layer)))
                .collect(),
            Packed::Zstd => layers
                .map(|layer| compress_to_vec(&layer[..], CompressionLevel::Fastest))
                .map(|packed| put(folder, "layer.v1.tar+zstd", &packed))
                .collect(),
            Packed::As(kind, bytes) => vec![put(folder, kind, bytes)],
        };
        let rootfs = json!({"type": "layers", "diff_ids": []});
        let config = json!({"architecture": self.architecture, "os": "linux", "rootfs": rootfs});
        let config = put(folder, "config.v1+json", config.to_string().as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
        let mut manifest = put(folder, "manifest.v1+json", manifest.to_string().as_bytes());
        manifest["platform"] = json!({"os": "linux", "architecture": self.architecture});
        let kind = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [manifest]});
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
        layers
            .iter()
            .map(|layer| layer["digest"].as_str().unwrap()["sha256:".len()..].to_owned())
            .collect()
    }
}

/// Bytes that do not become less when they are packed.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

/// A tar archive of plain files, at paths that no tool would write as well.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        archive
            .append(&header(tar::EntryType::Regular, path, content.len()), *content)
            .unwrap();
    }
    archive.into_inner().unwrap()
}

/// A tar archive of one link.
pub fn link(kind: tar::EntryType, path: &str, target: &str) -> Vec<u8> {
    let mut header = header(kind, path, 0);
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &b""[..]).unwrap();
    archive.into_inner().unwrap()
}

fn header(kind: tar::EntryType, path: &str, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header.set_cksum();
    header
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn put(folder: &Path, kind: &str, bytes: &[u8]) -> Value {
    let digest: String = sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::write(folder.join("blobs/sha256").join(&digest), bytes).unwrap();
    let media_type = format!("application/vnd.oci.image.{kind}");
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}
