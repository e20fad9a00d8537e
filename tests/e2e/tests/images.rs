//! Guests out of a real registry: a root file system and a kernel, by manifests that name another one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;

use rvm_e2e::guest::{self, NAME};
use rvm_guests::{Cache, images};
use rvm_harness::{Console, Handler, HandlerSetup, Manifest, Registry, Tools};
use serde_json::{Value, json};

/// As KubeVirt's own example has it: what cannot be reached by that name comes from a mirror.
const KERNEL_BOOT: &str = "registry:5000/kubevirt/alpine-ext-kernel-boot-demo:devel";

/// The same for the demo's root file system; `docker.io` itself is a layout on disk in all tests.
const ALPINE: &str = "registry:5000/library/alpine:3.23";

fn kernel_boot() -> Manifest {
    let paths = json!({
        "image": KERNEL_BOOT, "kernelPath": "/boot/vmlinuz-virt", "initrdPath": "/boot/initramfs-virt",
    });
    Manifest(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "vmi-kernel-boot"},
        "spec": {
            "domain": {
                "devices": {},
                "firmware": {"kernelBoot": {"container": paths, "kernelArgs": "console=ttyS0"}},
                "memory": {"guest": "256Mi"},
                "resources": {},
            },
            "terminationGracePeriodSeconds": 0,
        },
    }))
}

/// A registry that has the demo's image, and a handler that asks it in `registry:5000`'s place.
fn mirrored(tools: &Arc<Tools>) -> (Registry, Handler) {
    let registry = Registry::start().unwrap();
    let image = tools.demo().image();
    registry.push(&image, "library/alpine:3.23").unwrap();
    let mirror = format!("registry:5000=http://127.0.0.1:{}", registry.port());
    let setup = HandlerSetup::local().with(&["--mirror", &mirror]);
    let handler = setup.start(tools).unwrap();
    (registry, handler)
}

/// The demo, out of that registry.
fn alpine(name: &str) -> Manifest {
    let demo = Manifest::demo().unwrap().named(name);
    demo.with(|vmi| vmi["spec"]["volumes"][0]["containerDisk"]["image"] = ALPINE.into())
}

/// What `rvm images list` says, as JSON.
fn kept(handler: &Handler) -> Value {
    let listed = handler.rvm(&["images", "list", "-o", "json"]).unwrap();
    serde_json::from_str(&listed.ok().unwrap()).unwrap()
}

#[test]
fn images_are_fetched_before_they_are_wanted_and_removed_when_nobody_uses_them() {
    let tools = Tools::open().unwrap();
    let (_registry, handler) = mirrored(&tools);
    assert_eq!(kept(&handler), json!([]));
    let pulled = handler.rvm(&["images", "pull", ALPINE]).unwrap().ok().unwrap();
    assert!(pulled.starts_with(&format!("{ALPINE} pulled (")), "{pulled}");
    let missing = handler
        .rvm(&["images", "pull", "registry:5000/no/such:1"])
        .unwrap();
    assert_eq!(missing.status(), Some(1), "{}", missing.error_text());
    let image = &kept(&handler)[0];
    assert_eq!((&image["name"], &image["usedBy"]), (&ALPINE.into(), &json!([])));
    assert_eq!(image["unpackedSize"], 0);

    let kubectl = handler.kubectl().unwrap();
    kubectl.apply(&[alpine(NAME)]).unwrap();
    kubectl.await_phase(NAME, "Running").unwrap();
    let image = &kept(&handler)[0];
    assert_eq!(image["usedBy"], json!([format!("default/{NAME}")]));
    assert!(image["unpackedSize"].as_u64().unwrap() > 1 << 20, "{image}");
    let refused = handler.rvm(&["images", "remove", ALPINE]).unwrap();
    let why = refused.error_text();
    assert!(
        refused.status() == Some(1) && why.contains(&format!("is used by default/{NAME}")),
        "{why}"
    );
    let pruned = handler.rvm(&["images", "prune"]).unwrap().ok().unwrap();
    assert!(!pruned.contains("removed"), "{pruned}");
    assert_eq!(kept(&handler)[0]["name"], ALPINE);

    kubectl.ok(&["delete", "vmi", NAME, "--timeout=60s"]).unwrap();
    let removed = handler.rvm(&["images", "remove", ALPINE]).unwrap().ok().unwrap();
    assert!(
        removed.starts_with(&format!("{ALPINE} removed, ")) && !removed.contains(" 0 B "),
        "{removed}"
    );
    assert_eq!(kept(&handler), json!([]));
    let left = std::fs::read_dir(handler.state_dir().join("images/blobs/sha256")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn images_of_a_registry_that_stands_for_another_boot() {
    let tools = Tools::open().unwrap();
    let (registry, handler) = mirrored(&tools);
    let cache = Cache::open().unwrap();
    let kernel = images::kernel_boot(&cache).unwrap();
    registry
        .push(&kernel, "kubevirt/alpine-ext-kernel-boot-demo:devel")
        .unwrap();
    let kubectl = handler.kubectl().unwrap();
    kubectl.apply(&[alpine(NAME), kernel_boot()]).unwrap();

    kubectl.await_phase(NAME, "Running").unwrap();
    let viewer = handler.rvm_on_terminal(&["console", NAME]).unwrap();
    let console = guest::answers(viewer).unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));

    kubectl.await_phase("vmi-kernel-boot", "Running").unwrap();
    let viewer = handler.rvm_on_terminal(&["console", "vmi-kernel-boot"]).unwrap();
    let mut console = Console::at_prompt(viewer, "guest# ").unwrap();
    assert_eq!(console.ask("uname -m").unwrap(), "riscv64");
    assert_eq!(console.ask("cat /proc/cmdline").unwrap(), "console=ttyS0");
    assert_eq!(console.leave().unwrap().status(), Some(0));
}

/// So many real guests of one image, asked for at once: each has its prompt, and no byte of the image was asked for twice.
fn boot_of_one_image(machines: usize) {
    let tools = Tools::open().unwrap();
    let (registry, handler) = mirrored(&tools);
    let before = registry.requests("GET /v2/library/alpine/blobs/").len();
    let kubectl = handler.kubectl().unwrap();
    let names: Vec<String> = (0..machines).map(|number| format!("vmi-{number}")).collect();
    let manifests = names.iter().map(|name| alpine(name));
    kubectl.apply(&manifests.collect::<Vec<_>>()).unwrap();
    for name in &names {
        kubectl.await_phase(name, "Running").unwrap();
        let viewer = handler.rvm_on_terminal(&["console", name]).unwrap();
        let mut console = Console::at_prompt(viewer, &format!("{name}:~# ")).unwrap();
        assert_eq!(console.ask("uname -m").unwrap(), "riscv64");
        assert_eq!(console.leave().unwrap().status(), Some(0));
    }
    let asked = registry
        .requests("GET /v2/library/alpine/blobs/")
        .split_off(before);
    let paths = asked
        .iter()
        .filter_map(|line| line.split_whitespace().find(|word| word.contains("/blobs/")));
    let paths: Vec<&str> = paths.collect();
    assert!(!paths.is_empty());
    let different: BTreeSet<&str> = paths.iter().copied().collect();
    assert_eq!(paths.len(), different.len(), "{asked:#?}");
}

#[test]
fn three_machines_of_one_image_pull_it_once() {
    boot_of_one_image(3);
}

#[test]
fn full_ten_machines_of_one_image_pull_it_once() {
    boot_of_one_image(10);
}
