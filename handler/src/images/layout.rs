//! Reads an OCI image layout on disk (image-spec, image-layout.md): from its index to the layers for riscv64.
//!
//! Every blob is held against its digest and size, every document against a bound, before it is believed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use oci_spec::image::{
    Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os, Sha256Digest,
};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::zstd;

/// Largest index, manifest or configuration.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;

/// Most manifests that one index may name.
pub(super) const MAX_MANIFESTS: usize = 256;

/// Indexes that point to indexes, at most this deep.
pub(super) const MAX_INDEX_DEPTH: usize = 3;

/// Most layers of an image; container runtimes stop at 127.
pub const MAX_LAYERS: usize = 128;

/// Most bytes of all layers together when unpacked: they end up in the guest's memory.
pub const MAX_UNPACKED: u64 = 4 << 30;

/// What a layer is called in images of Docker's older format, which is otherwise the same.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The annotation by which an index names its images.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The layout does not hold the image, or not a sound one.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Not there, or not readable.
    #[error("'{0}' cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// Not the document that it should be.
    #[error("'{0}' is not a valid OCI document")]
    Document(PathBuf, #[source] serde_json::Error),
    /// Beyond a bound.
    #[error("'{0}' has more {1} than the {2} that are allowed")]
    TooMuch(PathBuf, &'static str, u64),
    /// Not sha256, or not written as one.
    #[error("digest '{0}' is not a sha256 digest")]
    DigestForm(String),
    /// The bytes are not those that were promised.
    #[error("blob {0} does not match its digest or size")]
    DigestMismatch(String),
    /// The layout has no image of this name.
    #[error("the layout '{0}' has no image '{1}'")]
    NoSuchTag(PathBuf, String),
    /// Nothing for riscv64.
    #[error("the image has no riscv64 variant; it is for {0}")]
    Platform(String),
    /// Several images, and no name to choose by.
    #[error("the layout '{0}' holds several images for linux/riscv64; name one, as in oci:DIR:TAG")]
    Ambiguous(PathBuf),
    /// A layer of a kind that we do not read.
    #[error("a layer of type '{0}' is not supported; tar, tar+gzip and tar+zstd are")]
    LayerType(String),
    /// A layer that cannot be unpacked.
    #[error("layer {0} cannot be unpacked")]
    Unpack(String, #[source] io::Error),
}

/// A layout's folder, and which of its images is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The folder with `oci-layout` and `index.json`.
    pub dir: PathBuf,
    /// The image's name in the index; none where it has only one.
    pub tag: Option<String>,
}

/// An image for riscv64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The manifest's sha256, in hex: the image's identity.
    pub digest: String,
    /// Its configuration's sha256, in hex.
    pub config: String,
    /// The configuration's size.
    pub config_size: u64,
    /// From the lowest up.
    pub layers: Vec<Layer>,
}

/// One layer, not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    digest: String,
    size: u64,
    packed: Packed,
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packed {
    Not,
    Gzip,
    Zstd,
}

// === impl Layer ===

impl Layer {
    /// Its sha256, in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its size as it is stored.
    pub fn size(&self) -> u64 {
        self.size
    }
}

// === impl Layout ===

impl Layout {
    /// Finds the image for linux/riscv64.
    ///
    /// # Errors
    /// Any [`LayoutError`].
    pub fn resolve(&self) -> Result<Image, LayoutError> {
        let path = self.dir.join("index.json");
        let index: ImageIndex = parse(&path, &read_file(&path)?)?;
        let mut named: Vec<Descriptor> = index.manifests().clone();
        if let Some(tag) = &self.tag {
            named.retain(|descriptor| is_called(descriptor, tag));
            if named.is_empty() {
                return Err(LayoutError::NoSuchTag(self.dir.clone(), tag.clone()));
            }
        }
        let mut search = Search::of(self);
        search.among(&path, &named, MAX_INDEX_DEPTH)?;
        search.found(&self.dir)
    }

    /// The image for linux/riscv64 whose manifest has this digest, in hex, and size.
    ///
    /// # Errors
    /// Any [`LayoutError`].
    pub fn image_at(&self, digest: &str, size: u64) -> Result<Image, LayoutError> {
        let sha: Sha256Digest = digest
            .parse()
            .map_err(|_| LayoutError::DigestForm(digest.to_owned()))?;
        let mut search = Search::of(self);
        search.manifest(&Descriptor::new(MediaType::ImageManifest, size, sha))?;
        search.found(&self.dir)
    }

    /// Unpacks a layer into a file and returns its size there, which is at most `room`. What was written is only to
    /// be used if this succeeds, for the digest is known at the end.
    ///
    /// # Errors
    /// Any [`LayoutError`].
    pub fn unpack(&self, layer: &Layer, room: u64, out: &mut File) -> Result<u64, LayoutError> {
        let path = self.blob(&layer.digest);
        let failed = |error| LayoutError::Unpack(layer.digest.clone(), error);
        let mut blob = Checked {
            file: open(&path)?.take(layer.size),
            sha: Sha256::new(),
            count: 0,
        };
        let written = match layer.packed {
            Packed::Not => copy_bounded(&mut blob, room, out),
            Packed::Gzip => copy_bounded(&mut MultiGzDecoder::new(&mut blob), room, out),
            Packed::Zstd => zstd::unpack(&mut blob, room, out),
        };
        let written =
            written
                .map_err(failed)?
                .ok_or(LayoutError::TooMuch(path, "unpacked bytes", MAX_UNPACKED))?;
        io::copy(&mut blob, &mut io::sink()).map_err(failed)?;
        if blob.count != layer.size || hex(blob.sha) != layer.digest {
            return Err(LayoutError::DigestMismatch(layer.digest.clone()));
        }
        Ok(written)
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join("sha256").join(digest)
    }

    /// Reads a small blob, checked.
    pub(super) fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, LayoutError> {
        let digest = sha256_of(descriptor)?;
        let path = self.blob(&digest);
        let bytes = read_file(&path)?;
        let mut sha = Sha256::new();
        sha.update(&bytes);
        if bytes.len() as u64 != descriptor.size() || hex(sha) != digest {
            return Err(LayoutError::DigestMismatch(digest));
        }
        parse(&path, &bytes)
    }

    fn image(&self, descriptor: &Descriptor, manifest: &ImageManifest) -> Result<Image, LayoutError> {
        let digest = sha256_of(descriptor)?;
        let layers = manifest.layers();
        if layers.len() > MAX_LAYERS {
            return Err(LayoutError::TooMuch(
                self.blob(&digest),
                "layers",
                MAX_LAYERS as u64,
            ));
        }
        Ok(Image {
            layers: layers.iter().map(layer).collect::<Result<_, _>>()?,
            config: sha256_of(manifest.config())?,
            config_size: manifest.config().size(),
            digest,
        })
    }
}

/// The walk over an index, and what it found.
struct Search<'a> {
    layout: &'a Layout,
    fitting: Vec<Image>,
    /// Platforms of the images that do not fit, for the error's text.
    others: Vec<String>,
    /// Descriptors looked at so far, in all indexes together.
    looked: usize,
}

impl<'a> Search<'a> {
    fn of(layout: &'a Layout) -> Self {
        Self {
            layout,
            fitting: Vec::new(),
            others: Vec::new(),
            looked: 0,
        }
    }

    fn found(mut self, dir: &Path) -> Result<Image, LayoutError> {
        self.fitting.dedup();
        match self.fitting.len() {
            0 => Err(LayoutError::Platform(self.others.join(", "))),
            1 => Ok(self.fitting.remove(0)),
            _ => Err(LayoutError::Ambiguous(dir.to_owned())),
        }
    }

    fn among(&mut self, path: &Path, descriptors: &[Descriptor], depth: usize) -> Result<(), LayoutError> {
        if depth == 0 || descriptors.len() > MAX_MANIFESTS {
            return Err(LayoutError::TooMuch(
                path.to_owned(),
                "manifests",
                MAX_MANIFESTS as u64,
            ));
        }
        self.looked += descriptors.len();
        if self.looked > MAX_MANIFESTS {
            return Err(LayoutError::TooMuch(
                path.to_owned(),
                "manifests",
                MAX_MANIFESTS as u64,
            ));
        }
        for descriptor in descriptors {
            match descriptor.media_type() {
                MediaType::ImageIndex => {
                    let index: ImageIndex = self.layout.document(descriptor)?;
                    let path = self.layout.blob(&sha256_of(descriptor)?);
                    self.among(&path, index.manifests(), depth - 1)?;
                }
                MediaType::ImageManifest => self.manifest(descriptor)?,
                // An index may list anything; what is no image is not looked at.
                _ => {}
            }
        }
        Ok(())
    }

    fn manifest(&mut self, descriptor: &Descriptor) -> Result<(), LayoutError> {
        if let Some(platform) = descriptor.platform()
            && !fits(platform.os(), platform.architecture())
        {
            self.others
                .push(format!("{}/{}", platform.os(), platform.architecture()));
            return Ok(());
        }
        let manifest: ImageManifest = self.layout.document(descriptor)?;
        let config: ImageConfiguration = self.layout.document(manifest.config())?;
        if fits(config.os(), config.architecture()) {
            self.fitting.push(self.layout.image(descriptor, &manifest)?);
        } else {
            self.others
                .push(format!("{}/{}", config.os(), config.architecture()));
        }
        Ok(())
    }
}

fn fits(os: &Os, architecture: &Arch) -> bool {
    *os == Os::Linux && *architecture == Arch::RISCV64
}

fn is_called(descriptor: &Descriptor, tag: &str) -> bool {
    let name = descriptor
        .annotations()
        .as_ref()
        .and_then(|annotations| annotations.get(REF_NAME));
    name.is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag))
}

fn layer(descriptor: &Descriptor) -> Result<Layer, LayoutError> {
    let packed = match descriptor.media_type() {
        MediaType::ImageLayer => Packed::Not,
        MediaType::ImageLayerGzip => Packed::Gzip,
        MediaType::ImageLayerZstd => Packed::Zstd,
        MediaType::Other(kind) if kind == DOCKER_LAYER => Packed::Gzip,
        MediaType::Other(kind) if kind == DOCKER_LAYER_ZSTD => Packed::Zstd,
        other => return Err(LayoutError::LayerType(other.to_string())),
    };
    Ok(Layer {
        digest: sha256_of(descriptor)?,
        size: descriptor.size(),
        packed,
    })
}

/// The digest in hex, which is also the name of the blob's file: so it must be hex and nothing else.
pub(super) fn sha256_of(descriptor: &Descriptor) -> Result<String, LayoutError> {
    let digest = descriptor.as_digest_sha256().unwrap_or_default();
    if digest.len() == 64
        && digest
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Ok(digest.to_owned());
    }
    Err(LayoutError::DigestForm(descriptor.digest().to_string()))
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, LayoutError> {
    serde_json::from_slice(bytes).map_err(|error| LayoutError::Document(path.to_owned(), error))
}

/// Opens a regular file, never a pipe or device that would make us wait.
fn open(path: &Path) -> Result<File, LayoutError> {
    let failed = |error| LayoutError::Read(path.to_owned(), error);
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    File::open(path).map_err(failed)
}

fn read_file(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
    read.map_err(|error| LayoutError::Read(path.to_owned(), error))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(LayoutError::TooMuch(path.to_owned(), "bytes", MAX_DOCUMENT));
    }
    Ok(bytes)
}

/// Copies at most `room` bytes; `None` when there were more.
fn copy_bounded(from: &mut impl Read, room: u64, to: &mut impl Write) -> io::Result<Option<u64>> {
    let written = io::copy(&mut from.take(room.saturating_add(1)), to)?;
    Ok((written <= room).then_some(written))
}

pub(super) fn hex(sha: Sha256) -> String {
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A blob whose bytes are counted and hashed as they are read.
struct Checked<R> {
    file: R,
    sha: Sha256,
    count: u64,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.sha.update(buffer.get(..count).unwrap_or_default());
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
