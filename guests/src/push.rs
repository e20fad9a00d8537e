//! Pushes an OCI image layout to a registry: its blobs, its manifests, and its index by the tag.
//!
//! Only with the feature `push`, which brings an async runtime and TLS; what builds guests needs neither.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use serde_json::Value;

use crate::oci::INDEX;

/// Who pushes, as `NAME:PASSWORD`.
pub const LOGIN: &str = "RVM_REGISTRY_LOGIN";

/// Pushes the layout in `folder` to `reference`, such as `localhost:5000/library/alpine:3.23`. This machine's own registries
/// are reached without TLS.
pub fn push(folder: &Path, reference: &str, login: Option<&str>) -> Result<()> {
    push_by(reference, login, async |client, reference| {
        push_index(client, folder, reference, fs::read(folder.join("index.json"))?).await
    })
}

fn push_by(
    reference: &str,
    login: Option<&str>,
    push: impl AsyncFnOnce(&Client, &Reference) -> Result<()>,
) -> Result<()> {
    let reference: Reference = reference
        .parse()
        .with_context(|| format!("'{reference}' is not the name of an image"))?;
    let auth = match login.map(|login| login.split_once(':')) {
        None => RegistryAuth::Anonymous,
        Some(Some((name, password))) => RegistryAuth::Basic(name.to_owned(), password.to_owned()),
        Some(None) => bail!("a login is NAME:PASSWORD"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pushed = runtime.block_on(async {
        let client = connect(&reference, &auth).await?;
        push(&client, &reference).await
    });
    pushed.with_context(|| format!("cannot push {}", reference.whole()))
}

/// Pushes every image that the layout in `folder` names, as those of [`crate::product`] do, to `REGISTRY[/PREFIX]/NAME:TAG`;
/// another tag stands in place of theirs. Returns what they are called there.
pub fn push_named(
    folder: &Path,
    registry: &str,
    login: Option<&str>,
    tag: Option<&str>,
) -> Result<Vec<String>> {
    let mut pushed = Vec::new();
    for descriptor in list(&read_index(folder)?, "manifests") {
        let name = text(&descriptor["annotations"], "org.opencontainers.image.ref.name")?;
        let name = match (tag, name.split_once(':')) {
            (Some(tag), Some((name, _))) => format!("{name}:{tag}"),
            _ => name.to_owned(),
        };
        let reference = format!("{}/{name}", registry.trim_end_matches('/'));
        push_by(&reference, login, async |client, reference| {
            push_index(client, folder, reference, blob(folder, descriptor)?).await
        })?;
        pushed.push(reference);
    }
    Ok(pushed)
}

fn read_index(folder: &Path) -> Result<Value> {
    let path = folder.join("index.json");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

async fn connect(reference: &Reference, auth: &RegistryAuth) -> Result<Client> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    let registry = reference.resolve_registry().to_owned();
    let protocol = if is_loopback(&registry) {
        ClientProtocol::HttpsExcept(vec![registry])
    } else {
        ClientProtocol::Https
    };
    let client = Client::try_from(ClientConfig {
        protocol,
        use_monolithic_push: true,
        ..ClientConfig::default()
    })?;
    client.auth(reference, auth, RegistryOperation::Push).await?;
    Ok(client)
}

async fn push_index(client: &Client, folder: &Path, reference: &Reference, bytes: Vec<u8>) -> Result<()> {
    let index: Value = serde_json::from_slice(&bytes)?;
    for manifest in list(&index, "manifests") {
        push_image(client, folder, reference, manifest).await?;
    }
    push_manifest(client, reference, bytes, INDEX).await
}

async fn push_image(client: &Client, folder: &Path, reference: &Reference, descriptor: &Value) -> Result<()> {
    let bytes = blob(folder, descriptor)?;
    let manifest: Value = serde_json::from_slice(&bytes)?;
    for part in [&manifest["config"]].into_iter().chain(list(&manifest, "layers")) {
        let digest = text(part, "digest")?;
        if !client.blob_exists(reference, digest).await? {
            client.push_blob(reference, blob(folder, part)?, digest).await?;
        }
    }
    let by_digest = reference.clone_with_digest(text(descriptor, "digest")?.to_owned());
    push_manifest(client, &by_digest, bytes, text(descriptor, "mediaType")?).await
}

async fn push_manifest(client: &Client, reference: &Reference, bytes: Vec<u8>, kind: &str) -> Result<()> {
    let kind = kind.parse().context("a media type that no header can hold")?;
    client.push_manifest_raw(reference, bytes, kind).await?;
    Ok(())
}

fn blob(folder: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let digest = text(descriptor, "digest")?.replace(':', "/");
    Ok(fs::read(folder.join("blobs").join(digest))?)
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field]
        .as_str()
        .with_context(|| format!("the layout lacks a {field}"))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let address = host.trim_matches(['[', ']']);
    host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
