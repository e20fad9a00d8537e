//! Which crate may know which. See "Folders" in ARCHITECTURE.md for the reasons.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Everything that a crate needs to be built and run for riscv64, itself included, by name.
struct Arrows {
    names: BTreeMap<PackageId, String>,
    needs: BTreeMap<String, BTreeSet<PackageId>>,
    metadata: Metadata,
}

impl Arrows {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let platform = ["--filter-platform", "riscv64gc-unknown-linux-gnu"]
            .map(str::to_owned)
            .to_vec();
        let metadata = MetadataCommand::new()
            .manifest_path(root)
            .other_options(platform)
            .exec()
            .unwrap();
        let names = metadata
            .packages
            .iter()
            .map(|p| (p.id.clone(), p.name.to_string()))
            .collect::<BTreeMap<_, _>>();
        let mut direct: BTreeMap<PackageId, Vec<PackageId>> = BTreeMap::new();
        for node in &metadata.resolve.as_ref().unwrap().nodes {
            let runs = |dep: &&cargo_metadata::NodeDep| {
                dep.dep_kinds
                    .iter()
                    .any(|kind| kind.kind != DependencyKind::Development)
            };
            direct.insert(
                node.id.clone(),
                node.deps.iter().filter(runs).map(|dep| dep.pkg.clone()).collect(),
            );
        }
        let needs = metadata
            .workspace_members
            .iter()
            .map(|id| (names[id].clone(), reach(id, &direct)))
            .collect();
        Self {
            names,
            needs,
            metadata,
        }
    }

    /// The names of all that this crate of ours stands on, near or far.
    fn of(&self, name: &str) -> BTreeSet<&str> {
        self.needs[name]
            .iter()
            .map(|id| self.names[id].as_str())
            .filter(|other| *other != name)
            .collect()
    }

    /// Our own crates below a folder.
    fn below(&self, folder: &str) -> Vec<String> {
        let members = self.metadata.workspace_packages();
        let inside = members
            .iter()
            .filter(|p| p.manifest_path.as_str().contains(&format!("/{folder}/")));
        inside.map(|p| p.name.to_string()).collect()
    }
}

fn reach(from: &PackageId, direct: &BTreeMap<PackageId, Vec<PackageId>>) -> BTreeSet<PackageId> {
    let mut seen = BTreeSet::from([from.clone()]);
    let mut next = vec![from.clone()];
    while let Some(id) = next.pop() {
        next.extend(
            direct[&id]
                .iter()
                .filter(|dep| seen.insert((*dep).clone()))
                .cloned(),
        );
    }
    seen
}

#[test]
fn the_vmm_has_no_async_runtime_no_http_no_tls_and_no_kubernetes() {
    let arrows = Arrows::read();
    let forbidden = [
        "kube",
        "kube-client",
        "k8s-openapi",
        "tokio",
        "tonic",
        "hyper",
        "axum",
        "rustls",
        "tower",
    ];
    let crates = arrows.below("vmm");
    assert!(crates.len() >= 8, "{crates:?}");
    for name in crates {
        let found: Vec<_> = arrows
            .of(&name)
            .into_iter()
            .filter(|dep| forbidden.contains(dep))
            .collect();
        assert!(found.is_empty(), "{name} → {found:?}");
    }
}

#[test]
fn the_handler_knows_a_machine_only_as_spec_and_control() {
    let arrows = Arrows::read();
    let vmm: BTreeSet<_> = arrows.below("vmm").into_iter().collect();
    let handler = arrows.of("rvm-handler");
    let known: Vec<_> = handler.into_iter().filter(|dep| vmm.contains(*dep)).collect();
    assert_eq!(known, ["rvmm-control", "rvmm-spec"]);
}

#[test]
fn arrows_between_our_crates_point_one_way() {
    let arrows = Arrows::read();
    for (from, to) in [
        ("rvm", "rvm-handler"),
        ("rvm", "rvm-local"),
        ("rvmm-devices", "rvmm-backends"),
        ("rvmm-devices", "rvmm-hypervisor"),
        ("rvmm-devices", "rvmm-control"),
        ("rvmm-hypervisor", "rvmm-devices"),
        ("rvmm-backends", "rvmm-machine"),
        ("rvmm-qemu", "rvmm-machine"),
        ("rvmm-qemu", "rvmm-hypervisor"),
        ("rvmm-boot", "rvmm-devices"),
        ("rvm-types", "rvm-server"),
        ("rvm-local", "rvm-handler"),
    ] {
        assert!(!arrows.of(from).contains(to), "{from} → {to}");
    }
}

#[test]
fn a_spec_is_only_data() {
    let arrows = Arrows::read();
    let spec = arrows
        .metadata
        .packages
        .iter()
        .find(|p| p.name.as_str() == "rvmm-spec")
        .unwrap();
    let direct: BTreeSet<_> = spec
        .dependencies
        .iter()
        .filter(|dep| dep.kind == DependencyKind::Normal)
        .map(|dep| dep.name.as_str())
        .collect();
    assert_eq!(direct, BTreeSet::from(["serde", "serde_json", "thiserror"]));
}

#[test]
fn nothing_that_ships_needs_the_test_harness() {
    let arrows = Arrows::read();
    for folder in ["vmm", "handler", "api", "firmware"] {
        for name in arrows.below(folder) {
            let found: Vec<_> = arrows
                .of(&name)
                .into_iter()
                .filter(|dep| ["rvm-harness", "rvm-outer", "rvm-e2e", "xtask"].contains(dep))
                .collect();
            assert!(found.is_empty(), "{name} → {found:?}");
        }
    }
}

/// The crates that rvm was asked to stand on, and the crate of ours that uses each for what it is made for.
const FOUNDATIONS: [(&str, &str); 12] = [
    ("kvm-ioctls", "rvmm-hypervisor"),
    ("kvm-bindings", "rvmm-hypervisor"),
    ("vm-memory", "rvmm-machine"),
    ("vm-superio", "rvmm-devices"),
    ("virtio-queue", "rvmm-devices"),
    ("linux-loader", "rvmm-machine"),
    ("event-manager", "rvmm-backends"),
    ("vmm-sys-util", "rvmm-hypervisor"),
    ("kube", "rvm-handler"),
    ("oci-client", "rvm-handler"),
    ("tokio", "rvm-handler"),
    ("tracing", "rvmm"),
];

#[test]
fn every_crate_that_rvm_stands_on_is_used_where_it_belongs() {
    let arrows = Arrows::read();
    for (foundation, user) in FOUNDATIONS {
        let package = arrows
            .metadata
            .packages
            .iter()
            .find(|p| p.name.as_str() == user)
            .unwrap();
        assert!(
            package.dependencies.iter().any(|dep| dep.name == foundation),
            "{user} does not depend on {foundation}"
        );
        let sources = package.manifest_path.parent().unwrap().join("src");
        let path = format!("{}::", foundation.replace('-', "_"));
        assert!(
            mentions(sources.as_std_path(), &path),
            "{user} depends on {foundation} without using it"
        );
    }
}

fn mentions(folder: &Path, text: &str) -> bool {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.into_iter().any(|path| match path.is_dir() {
        true => mentions(&path, text),
        false => std::fs::read_to_string(&path).is_ok_and(|source| source.contains(text)),
    })
}
