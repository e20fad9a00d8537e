//! What an image is made of, as SPDX 2.3: the Rust packages of a program, by cargo's own resolution, and Debian's packages, by
//! the changelogs that they bring.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::cache::sha256;
use crate::command::output;
use crate::cross::workspace;

/// What the document is.
pub const SPDX: &str = "application/spdx+json";

/// Where nothing is claimed.
const UNSAID: &str = "NOASSERTION";

/// How much of a changelog may be its first line.
const MAX_LINE: usize = 1 << 10;

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression, where its makers give one.
    pub license: Option<String>,
    /// Where it is from, as a package URL.
    pub purl: String,
}

/// All Rust packages that are in the program of `package` when it is built for `target`, and the package itself.
pub fn of_program(package: &str, target: &str) -> Result<BTreeSet<Component>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", target])
        .current_dir(workspace());
    let said = output(&mut cargo).context("cannot ask cargo what a program is made of")?;
    linked(&serde_json::from_slice(&said)?, package)
}

/// Follows what is linked from `package` on: neither what only builds it nor what only tests it.
fn linked(metadata: &Value, package: &str) -> Result<BTreeSet<Component>> {
    let by_id: BTreeMap<&str, &Value> = with_ids(&metadata["packages"]);
    let nodes: BTreeMap<&str, &Value> = with_ids(&metadata["resolve"]["nodes"]);
    let is_it = |value: &&Value| value["name"] == package && value["source"].is_null();
    let first = by_id.values().find(|value| is_it(value));
    let first = first.with_context(|| format!("the workspace has no package {package}"))?;
    let mut open = vec![text(first, "id")];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let deps = nodes.get(id).and_then(|node| node["deps"].as_array());
        for dep in deps.into_iter().flatten() {
            let kinds = dep["dep_kinds"].as_array();
            if kinds.into_iter().flatten().any(|kind| kind["kind"].is_null()) {
                open.push(text(dep, "pkg"));
            }
        }
    }
    Ok(seen
        .into_iter()
        .filter_map(|id| by_id.get(id))
        .map(|value| rust_component(value))
        .collect())
}

fn with_ids(list: &Value) -> BTreeMap<&str, &Value> {
    let list = list.as_array().into_iter().flatten();
    list.map(|value| (text(value, "id"), value)).collect()
}

fn rust_component(package: &Value) -> Component {
    let (name, version) = (text(package, "name"), text(package, "version"));
    Component {
        name: name.to_owned(),
        version: version.to_owned(),
        // Some still write the way of old.
        license: package["license"]
            .as_str()
            .map(|license| license.replace('/', " OR ")),
        purl: format!("pkg:cargo/{name}@{version}"),
    }
}

/// The source packages of an unpacked Debian root.
pub fn of_debian(root: &Path) -> Result<BTreeSet<Component>> {
    let docs = root.join("usr/share/doc");
    let mut found = BTreeSet::new();
    for folder in fs::read_dir(&docs).with_context(|| format!("cannot read {}", docs.display()))? {
        let folder = folder?.path();
        for name in ["changelog.Debian.gz", "changelog.gz"] {
            let Ok(file) = File::open(folder.join(name)) else {
                continue;
            };
            let line = first_line(MultiGzDecoder::new(file))?;
            if let Some((name, version)) = source_of(&line) {
                found.insert(Component {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    license: None,
                    purl: format!("pkg:deb/debian/{name}@{version}?arch=source"),
                });
                break;
            }
        }
    }
    Ok(found)
}

fn first_line(reader: impl std::io::Read) -> Result<String> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(std::io::Read::take(reader, MAX_LINE as u64));
    reader.read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// `glibc (2.41-12) trixie; urgency=medium`, as Debian's changelogs begin.
fn source_of(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(") ")?;
    (rest.contains("urgency=") && !name.contains(' ')).then_some((name, version))
}

/// The document for an image of this name. The same parts give the same bytes.
pub fn document(image: &str, parts: &BTreeSet<Component>) -> Result<Vec<u8>> {
    let listed: Vec<Value> = parts
        .iter()
        .enumerate()
        .map(|(at, part)| package(at, part))
        .collect();
    let hash = sha256(&serde_json::to_vec(&listed)?);
    let contains = (0..parts.len()).map(|at| relation("SPDXRef-image", "CONTAINS", &id(at)));
    let described = relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image");
    let root = json!({
        "SPDXID": "SPDXRef-image", "name": image, "downloadLocation": UNSAID, "filesAnalyzed": false,
        "licenseConcluded": UNSAID, "licenseDeclared": UNSAID, "copyrightText": UNSAID,
    });
    let packages = [vec![root], listed].concat();
    let document = json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": image,
        "documentNamespace": format!("https://rvm.invalid/spdx/{image}/{hash}"),
        "creationInfo": { "created": "1970-01-01T00:00:00Z", "creators": ["Tool: rvm-guests"] },
        "packages": packages,
        "relationships": std::iter::once(described).chain(contains).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_vec(&document)?)
}

fn id(at: usize) -> String {
    format!("SPDXRef-part-{at}")
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn package(at: usize, part: &Component) -> Value {
    json!({
        "SPDXID": id(at), "name": part.name, "versionInfo": part.version, "downloadLocation": UNSAID,
        "filesAnalyzed": false, "licenseConcluded": UNSAID, "copyrightText": UNSAID,
        "licenseDeclared": part.license.as_deref().unwrap_or(UNSAID),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.purl,
        }],
    })
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_or_tests_is_not() {
        let package = |name: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": if name == "ours" { Value::Null } else { json!("registry") }});
        let dep = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let packages = ["ours", "linked", "deep", "builds", "tests"].map(package);
        let metadata = json!({
            "packages": packages,
            "resolve": { "nodes": [
                {"id": "ours", "deps": [dep("linked", Value::Null), dep("builds", json!("build")), dep("tests", json!("dev"))]},
                {"id": "linked", "deps": [dep("deep", Value::Null)]},
            ]},
        });
        let found = linked(&metadata, "ours").unwrap();
        let names: Vec<_> = found.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["deep", "linked", "ours"]);
        assert_eq!(
            found.first().unwrap().license.as_deref(),
            Some("MIT OR Apache-2.0")
        );
        assert!(
            linked(&metadata, "linked").is_err(),
            "a stranger's package is not ours"
        );
    }

    #[test]
    fn rvmm_is_made_of_rust_vmm_and_of_no_async_runtime() {
        let parts = of_program("rvmm", crate::cross::TARGET).unwrap();
        let has = |name: &str| parts.iter().any(|part| part.name == name);
        assert!(has("rvmm") && has("vm-memory") && !has("tokio") && !has("proptest"));
    }

    #[test]
    fn a_debian_package_is_known_by_its_changelog() {
        let line = "glibc (2.41-12+deb13u4) trixie; urgency=medium\n";
        assert_eq!(source_of(line), Some(("glibc", "2.41-12+deb13u4")));
        assert_eq!(source_of("2024-01-01  Somebody (me) wrote"), None);
    }

    #[test]
    fn the_document_names_each_part_and_is_the_same_each_time() {
        let part = Component {
            name: "a".to_owned(),
            version: "1".to_owned(),
            license: None,
            purl: "pkg:cargo/a@1".to_owned(),
        };
        let parts = BTreeSet::from([part]);
        let bytes = document("rvmm", &parts).unwrap();
        assert_eq!(bytes, document("rvmm", &parts).unwrap());
        let read: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            read["packages"][1]["externalRefs"][0]["referenceLocator"],
            "pkg:cargo/a@1"
        );
        assert_eq!(read["relationships"].as_array().unwrap().len(), 2);
    }
}
