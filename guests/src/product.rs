//! The images of our own programs: what a cluster installs.
//!
//! | image | holds |
//! | --- | --- |
//! | `rvm-api` | the program |
//! | `rvm-handler` | the program, `rvmm` for machines that are its own processes, `nft`, certificates of registries, firmware and the kernel that boots ordinary images |
//! | `rvmm` | the program: a pod whose machine runs under KVM |
//! | `rvmm-qemu` | the same with QEMU and the firmware that it starts with: where guests may be emulated, which each node decides |
//!
//! One image layout holds all of them, each as an index over architectures and named by its annotation. Every image of an
//! architecture comes with its SBOM, an artifact whose `subject` it is. The same programs give the same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::debian::Debian;
use crate::demo;
use crate::oci::{INDEX, Layer, MANIFEST, put_blob, put_image};
use crate::sbom::{self, Component};
use crate::toolbox;

/// The images' names.
pub const NAMES: [&str; 4] = [API, HANDLER, RVMM, RVMM_QEMU];

const API: &str = "rvm-api";
const HANDLER: &str = "rvm-handler";
const RVMM: &str = "rvmm";
const RVMM_QEMU: &str = "rvmm-qemu";

/// Who runs in the pods of machines, as in KubeVirt's: qemu.
const MACHINE_USER: u32 = 107;
/// Who runs rvm-api.
const API_USER: u32 = 65532;

/// What the handler calls, the names of protocols that it is told in, and what says whom it may believe.
const HANDLER_PACKAGES: [&str; 3] = ["nftables", "netbase", "ca-certificates"];
/// What programs need that are not static.
const C_LIBRARY: [&str; 2] = ["libc6", "libgcc-s1"];

/// Where a Debian root keeps certificates, and where programs look for all of them in one file.
const CERTIFICATES: &str = "usr/share/ca-certificates/mozilla";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// How images are made: who keeps some makes them anew when this has changed.
pub const RECIPE: &str = include_str!("product.rs");

/// Our programs for one architecture.
#[derive(Debug, Clone)]
pub struct Platform {
    /// The architecture, as Go and Debian name it.
    pub arch: String,
    /// What cargo calls it: for what it is asked what the programs are made of.
    pub target: String,
    /// The program of each of our packages: `rvm-server`'s is `rvm-api`.
    pub api: PathBuf,
    /// The handler's.
    pub handler: PathBuf,
    /// The VMM's.
    pub rvmm: PathBuf,
    /// Whether they bring their C library along. Those that are built for this machine's tests do not.
    pub is_static: bool,
}

/// What was written of one image.
#[derive(Debug, Clone)]
pub struct Written {
    /// The image's name.
    pub name: &'static str,
    /// The architecture.
    pub arch: String,
    /// What a node fetches, in bytes.
    pub packed: u64,
}

/// Writes the images of these names ([`NAMES`]) as one layout into the new folder `into`, each under the tag `tag`.
pub fn write(
    cache: &Cache,
    into: &Path,
    tag: &str,
    names: &[&str],
    platforms: &[Platform],
) -> Result<Vec<Written>> {
    let (mut named, mut written) = (Vec::new(), Vec::new());
    for name in NAMES.into_iter().filter(|name| names.contains(name)) {
        let mut manifests = Vec::new();
        for platform in platforms {
            let image = layers(cache, name, platform)?;
            let (manifest, packed) = put(into, name, platform, image)?;
            written.push(Written {
                name,
                arch: platform.arch.clone(),
                packed,
            });
            manifests.extend(manifest);
        }
        if manifests.is_empty() {
            continue;
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let mut index = put_blob(into, INDEX, &serde_json::to_vec(&index)?)?;
        index["annotations"] = json!({ "org.opencontainers.image.ref.name": format!("{name}:{tag}") });
        named.push(index);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": named });
    fs::write(into.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(into.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(written)
}

/// An image before it is written.
struct Contents {
    layers: Vec<Layer>,
    config: Value,
    parts: BTreeSet<Component>,
}

fn layers(cache: &Cache, name: &str, platform: &Platform) -> Result<Contents> {
    let contents = match name {
        API => api(cache, platform)?,
        HANDLER => handler(cache, platform)?,
        RVMM => rvmm(cache, platform)?,
        _ => rvmm_qemu(cache, platform)?,
    };
    Ok(contents)
}

fn api(cache: &Cache, platform: &Platform) -> Result<Contents> {
    let mut contents = Contents::over(base(cache, platform)?.as_deref())?;
    let mut layer = users();
    program(&mut layer, API, &platform.api)?;
    contents.layers.push(layer);
    contents.add("rvm-server", &platform.target)?;
    contents.config = config(API, API_USER, &[]);
    Ok(contents)
}

fn handler(cache: &Cache, platform: &Platform) -> Result<Contents> {
    let packages: Vec<&str> = HANDLER_PACKAGES.iter().chain(&C_LIBRARY).copied().collect();
    let root = Debian::of(cache).extract_root("handler-root", &platform.arch, &packages)?;
    let mut contents = Contents::over(Some(&root))?;
    if let Some(first) = contents.layers.first_mut() {
        first.file(BUNDLE, 0o644, &bundle(&root)?)?;
    }
    let mut guests = Layer::new();
    let demo = demo::build(cache)?.folder;
    for file in [demo::KERNEL, demo::INIT] {
        guests.file(
            &format!("usr/share/rvm/guests/{file}"),
            0o444,
            &read(&demo.join(file))?,
        )?;
    }
    firmware(cache, &mut guests)?;
    contents.layers.push(guests);
    let mut layer = Layer::new();
    program(&mut layer, HANDLER, &platform.handler)?;
    program(&mut layer, RVMM, &platform.rvmm)?;
    contents.layers.push(layer);
    for package in [HANDLER, RVMM] {
        contents.add(package, &platform.target)?;
    }
    contents.config = config(
        HANDLER,
        0,
        &[
            "RVM_GUESTS=/usr/share/rvm/guests",
            "RVM_FIRMWARE=/usr/share/rvm/firmware",
        ],
    );
    Ok(contents)
}

fn rvmm(cache: &Cache, platform: &Platform) -> Result<Contents> {
    let mut contents = Contents::over(base(cache, platform)?.as_deref())?;
    let mut layer = users();
    program(&mut layer, RVMM, &platform.rvmm)?;
    contents.layers.push(layer);
    contents.add(RVMM, &platform.target)?;
    contents.config = config(RVMM, MACHINE_USER, &[]);
    Ok(contents)
}

fn rvmm_qemu(cache: &Cache, platform: &Platform) -> Result<Contents> {
    let mut contents = Contents::over(Some(&toolbox::unpacked(cache, &platform.arch)?))?;
    let mut data = Layer::new();
    firmware(cache, &mut data)?;
    contents.layers.push(data);
    let mut layer = users();
    program(&mut layer, RVMM, &platform.rvmm)?;
    contents.layers.push(layer);
    contents.add(RVMM, &platform.target)?;
    contents.config = config(
        RVMM,
        MACHINE_USER,
        &[
            "RVM_FIRMWARE=/usr/share/rvm/firmware",
            "RVMM_OPENSBI=/usr/share/rvm/firmware/opensbi-tcg.bin",
        ],
    );
    Ok(contents)
}

/// What lies below the programs where they need it.
fn base(cache: &Cache, platform: &Platform) -> Result<Option<PathBuf>> {
    if platform.is_static {
        return Ok(None);
    }
    let root = Debian::of(cache).extract_root("libc-root", &platform.arch, &C_LIBRARY)?;
    Ok(Some(root))
}

impl Contents {
    /// Over a Debian root, where there is one.
    fn over(root: Option<&Path>) -> Result<Self> {
        let (mut layers, mut parts) = (Vec::new(), BTreeSet::new());
        if let Some(root) = root {
            let mut layer = Layer::new();
            layer.tree(root, &is_shipped)?;
            if !root.join("lib64").exists() && root.join("usr/lib64").exists() {
                layer.link("lib64", "usr/lib64")?;
            }
            layers.push(layer);
            parts = sbom::of_debian(root)?;
        }
        Ok(Self {
            layers,
            config: Value::Null,
            parts,
        })
    }

    fn add(&mut self, package: &str, target: &str) -> Result<()> {
        self.parts.extend(sbom::of_program(package, target)?);
        Ok(())
    }
}

/// Of a Debian root all but what only people read; who holds which rights is kept.
fn is_shipped(path: &str) -> bool {
    const UNREAD: [&str; 9] = [
        "man",
        "locale",
        "lintian",
        "bug",
        "icons",
        "applications",
        "pixmaps",
        "info",
        "perl5",
    ];
    let Some(rest) = path.strip_prefix("usr/share/") else {
        return !path.starts_with("var/");
    };
    let (first, inner) = rest.split_once('/').unwrap_or((rest, ""));
    match first {
        // Folders are there for what is in them.
        "doc" => inner.is_empty() || !inner.contains('/') || inner.ends_with("/copyright"),
        _ => !UNREAD.contains(&first),
    }
}

/// Whom programs may be in a container, by name.
fn users() -> Layer {
    let mut layer = Layer::new();
    let passwd = format!(
        "root:x:0:0:root:/:/sbin/nologin\nqemu:x:{MACHINE_USER}:{MACHINE_USER}:qemu:/:/sbin/nologin\n\
         rvm:x:{API_USER}:{API_USER}:rvm:/:/sbin/nologin\n"
    );
    let group = format!("root:x:0:\nqemu:x:{MACHINE_USER}:\nrvm:x:{API_USER}:\n");
    // A layer in memory takes whatever is put in.
    let _ = layer.file("etc/passwd", 0o644, passwd.as_bytes());
    let _ = layer.file("etc/group", 0o644, group.as_bytes());
    layer
}

fn program(layer: &mut Layer, name: &str, path: &Path) -> Result<()> {
    layer
        .file(&format!("usr/bin/{name}"), 0o755, &read(path)?)
        .map(drop)
}

fn firmware(cache: &Cache, layer: &mut Layer) -> Result<()> {
    let folder = toolbox::Toolbox::open(cache)?.firmware_dir();
    for image in rvm_firmware::images() {
        let name = image.file_name();
        layer.file(
            &format!("usr/share/rvm/firmware/{name}"),
            0o444,
            &read(&folder.join(&name))?,
        )?;
    }
    Ok(())
}

/// All certificates in one file, in the order of their names.
fn bundle(root: &Path) -> Result<Vec<u8>> {
    let folder = root.join(CERTIFICATES);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend(read(&file)?);
    }
    Ok(all)
}

fn config(program: &str, user: u32, environment: &[&str]) -> Value {
    let path = "PATH=/usr/sbin:/usr/bin";
    let environment: Vec<&str> = std::iter::once(path).chain(environment.iter().copied()).collect();
    json!({
        "User": format!("{user}:{user}"), "Env": environment, "WorkingDir": "/",
        "Entrypoint": [format!("/usr/bin/{program}")],
        "Labels": {
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.title": program,
        },
    })
}

/// Writes an image and its SBOM: their descriptors, and how much a node fetches.
fn put(into: &Path, name: &str, platform: &Platform, image: Contents) -> Result<(Vec<Value>, u64)> {
    let made_by = "rvm-guests";
    let manifest = put_image(into, &platform.arch, &image.config, made_by, image.layers)?;
    let packed = packed(into, &manifest)?;
    let document = sbom::document(&format!("{name}-{}", platform.arch), &image.parts)?;
    let layer = put_blob(into, sbom::SPDX, &document)?;
    let nothing = put_blob(into, EMPTY, b"{}")?;
    let mut subject = manifest.clone();
    if let Some(fields) = subject.as_object_mut() {
        fields.remove("platform");
    }
    let artifact = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": sbom::SPDX, "config": nothing,
        "layers": [layer], "subject": subject,
    });
    let mut artifact = put_blob(into, MANIFEST, &serde_json::to_vec(&artifact)?)?;
    artifact["artifactType"] = json!(sbom::SPDX);
    // No runtime takes it for an image of its own.
    artifact["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    Ok((vec![manifest, artifact], packed))
}

/// What an artifact has in place of a config.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn packed(into: &Path, manifest: &Value) -> Result<u64> {
    let digest = manifest["digest"].as_str().unwrap_or_default().replace(':', "/");
    let manifest: Value = serde_json::from_slice(&read(&into.join("blobs").join(digest))?)?;
    let layers = manifest["layers"].as_array().into_iter().flatten();
    Ok(layers.filter_map(|layer| layer["size"].as_u64()).sum())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_debian_root_licences_are_shipped_and_manuals_are_not() {
        for path in [
            "usr/bin/nft",
            "usr/share/doc",
            "usr/share/doc/libc6",
            "usr/share/doc/libc6/copyright",
            "usr/share/qemu/x",
            "usr/share",
        ] {
            assert!(is_shipped(path), "{path}");
        }
        for path in [
            "usr/share/man/man1/nft.1.gz",
            "usr/share/doc/libc6/changelog.gz",
            "usr/share/locale",
            "var/lib/x",
        ] {
            assert!(!is_shipped(path), "{path}");
        }
    }

    /// A platform of programs that are none, so that a test need not build them.
    fn platform(folder: &Path) -> Platform {
        let program = folder.join("program");
        fs::write(&program, b"\x7fELF or so").unwrap();
        Platform {
            arch: "riscv64".to_owned(),
            target: crate::cross::TARGET.to_owned(),
            api: program.clone(),
            handler: program.clone(),
            rvmm: program,
            is_static: true,
        }
    }

    #[test]
    fn the_same_programs_give_the_same_bytes_and_each_image_its_sbom() {
        let folder = tempfile::tempdir().unwrap();
        let platform = platform(folder.path());
        let image = |into: &str| {
            let into = folder.path().join(into);
            let contents = Contents {
                layers: vec![users()],
                config: config(RVMM, MACHINE_USER, &[]),
                parts: sbom::of_program(RVMM, &platform.target).unwrap(),
            };
            (into.clone(), put(&into, RVMM, &platform, contents).unwrap())
        };
        let ((into, one), (_, other)) = (image("one"), image("other"));
        assert_eq!(one, other);
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            serde_json::from_slice::<Value>(&read(&into.join("blobs").join(digest)).unwrap()).unwrap()
        };
        let [image, sbom] = one.0.as_slice() else {
            panic!("an image and its SBOM");
        };
        let artifact = blob(sbom);
        assert_eq!(artifact["subject"]["digest"], image["digest"]);
        let document = blob(&artifact["layers"][0]);
        assert_eq!(document["spdxVersion"], "SPDX-2.3");
        let config = blob(&blob(image)["config"]);
        assert_eq!(config["config"]["User"], "107:107");
        assert_eq!(config["architecture"], "riscv64");
    }
}
