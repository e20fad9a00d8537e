//! What cannot be is refused with one clear line, or a Kubernetes Status with the field's path, and leaves nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::Arc;

use rvm_harness::{Cluster, Handler, HandlerSetup, Kubectl, Manifest, Tools};
use rvm_outer::{Here, Host, Profile, Setup};
use serde_json::json;

/// Puts files there that cannot be booted.
fn put_files(host: &dyn Host) {
    let mut arm = vec![0; 4096];
    arm[56..60].copy_from_slice(b"ARM\x64");
    host.put("arm", &arm).unwrap();
    host.put("text", b"#!/bin/sh\n").unwrap();
    let half = format!("head -c 10000000 {} >half", host.assets().kernel);
    host.run(&["sh", "-c", &half]).unwrap().ok().unwrap();
    host.run(&["truncate", "-s", "80M", "initrd"])
        .unwrap()
        .ok()
        .unwrap();
}

/// Runs rvmm and returns what it said, once it has shown how it refuses: with one line, and with nothing left.
fn refusal(host: &dyn Host, options: &str) -> String {
    let line = options.replace("KERNEL", &host.assets().kernel);
    // Files for the time of a run go here, and what it starts can be told by its environment.
    let temporary = format!("TMPDIR={}", host.folder().display());
    let rvmm = ["env", &temporary, "RVM_MARK=1", "rvmm"];
    let argv: Vec<&str> = rvmm.into_iter().chain(line.split_whitespace()).collect();
    let before = entries(host);
    let output = host.run(&argv).unwrap();
    assert!(
        output.status().is_some_and(|status| status != 0),
        "{options}: {:?}",
        output.status()
    );
    let said = output.error_text();
    assert_eq!(said.lines().count(), 1, "{options}: {said}");
    assert_eq!((output.text().as_str(), entries(host)), ("", before), "{options}");
    assert_eq!(marked_processes(host), "0\n", "{options}");
    said
}

fn entries(host: &dyn Host) -> String {
    host.run(&["ls", "-A"]).unwrap().ok().unwrap()
}

/// How many processes were started by what [`refusal`] runs, and go on.
fn marked_processes(host: &dyn Host) -> String {
    let count = r"cat /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep -c '^RVM_MARK='";
    host.run(&["sh", "-c", count]).unwrap().text()
}

/// Has rvmm refuse everything that it cannot do, with a line that says what.
fn refuses_what_cannot_be(host: &dyn Host) {
    put_files(host);
    for (options, text) in [
        (
            "--kernel /nonexistent",
            "kernel '/nonexistent': cannot be read: No such file or directory",
        ),
        ("--kernel /root", "kernel '/root': is not a file"),
        (
            "--kernel arm",
            "kernel 'arm': is an arm64 Image, not a riscv64 kernel",
        ),
        ("--kernel text", "kernel 'text': is no kernel"),
        ("--kernel half", "kernel 'half': is truncated"),
        (
            "--kernel KERNEL --initrd initrd --memory 96M",
            "initrd 'initrd': has 83886080 bytes",
        ),
        (
            "--kernel KERNEL --initrd /nonexistent",
            "initrd '/nonexistent': cannot be read",
        ),
        ("--kernel KERNEL --cpus 0", "0 vCPUs are not possible: 1 to 64"),
        (
            "--kernel KERNEL --memory 4M",
            "4 MiB of memory is not possible: 32 MiB to 256 GiB",
        ),
        ("--kernel KERNEL --memory 32M", "needs"),
        ("--kernel KERNEL --memory lots", "'lots' is not a size"),
        ("--kernel KERNEL --disk /nonexistent", "/nonexistent"),
        (
            "--kernel KERNEL --net tap=rvmnone",
            "tap 'rvmnone' does not exist; create it with: ip tuntap add",
        ),
        (
            "--kernel KERNEL --frobnicate",
            "unexpected argument '--frobnicate' found; see rvmm --help",
        ),
        ("--cpus 2", "--kernel"),
        (
            "--kernel KERNEL --cpu host,zzz=on",
            "ISA extension 'zzz' is not known",
        ),
        ("--kernel KERNEL extra", "'extra' cannot be used with '--kernel"),
        ("--spec text", "--spec 'text'"),
    ] {
        let said = refusal(host, options);
        assert!(
            said.starts_with("rvmm: ") && said.contains(text),
            "{options}: {said}"
        );
    }
}

#[test]
fn rvmm_refuses_what_cannot_be_in_one_line_that_says_what() {
    let here = Here::start().unwrap();
    refuses_what_cannot_be(&here);
    let said = refusal(&here, "--kernel KERNEL --accel kvm");
    assert!(
        said.starts_with("rvmm: --accel kvm: no RISC-V KVM here: "),
        "{said}"
    );
}

#[test]
fn lab_rvmm_under_kvm_refuses_the_same_in_the_same_words() {
    let lab = Setup::new(Profile::AIA)
        .built("rvmm", "rvmm")
        .unwrap()
        .start()
        .unwrap();
    refuses_what_cannot_be(&lab);
}

#[test]
fn the_same_machine_cannot_be_started_twice() {
    let here = Here::start().unwrap();
    here.put("disk", &[0; 4096]).unwrap();
    let kernel = here.assets().kernel.clone();
    let tiny = here.assets().tiny.clone();
    let argv = [
        "rvmm",
        "--kernel",
        &kernel,
        "--initrd",
        &tiny,
        "--accel",
        "tcg",
        "--run-dir",
        "vm",
        "--disk",
        "disk",
    ];
    let mut first = here.spawn(&argv).unwrap();
    let log = here.folder().join("vm/console.log");
    rvm_harness::eventually("booted guest", || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        Ok(rvm_harness::patience::Look::of(
            said.contains("guest# ").then_some(()),
            || said,
        ))
    })
    .unwrap();
    let second = here.run(&argv).unwrap();
    assert_eq!(second.status(), Some(1));
    let said = second.error_text();
    assert!(
        said.contains("already runs as process") && said.lines().count() == 1,
        "{said}"
    );
    // Another machine with the same disk is refused, too.
    let other = here
        .run(&["rvmm", "--kernel", &kernel, "--accel", "tcg", "--disk", "disk"])
        .unwrap();
    assert_eq!(
        (other.status(), other.error_text().lines().count()),
        (Some(1), 1),
        "{}",
        other.error_text()
    );
    first.kill(rvm_outer::Signal::TERM).unwrap();
    assert_eq!(
        first.wait(rvm_harness::PATIENCE).unwrap().status(),
        Some(128 + 15)
    );
    assert!(
        !here.folder().join("vm/control.sock").exists() && !here.folder().join("vm/console.sock").exists()
    );
}

/// Manifests that no API server may take, and what its refusal must name.
fn impossible() -> Vec<(Manifest, &'static str)> {
    let demo = || Manifest::demo().unwrap();
    vec![
        (
            demo().with(|vmi| vmi["spec"]["architecture"] = json!("amd64")),
            "spec.architecture",
        ),
        (
            demo().with(|vmi| vmi["spec"]["volumes"][0]["containerDisk"] = json!({})),
            "spec.volumes[0].containerDisk",
        ),
        (demo().named(&"n".repeat(300)), "metadata.name"),
    ]
}

fn assert_refused(kubectl: &Kubectl) {
    for (manifest, field) in impossible() {
        let output = kubectl.feed(&["create", "-f", "-"], &manifest.text()).unwrap();
        let said = output.error_text();
        assert!(
            output.status() == Some(1) && said.contains(field),
            "{field}: {said}"
        );
    }
    assert_eq!(kubectl.get(&["vmi"]).unwrap()["items"], json!([]));
}

/// A VMI whose image nobody has stays, says so, and can be deleted.
fn assert_missing_image_is_reported(kubectl: &Kubectl) {
    let missing = Manifest::demo()
        .unwrap()
        .with(|vmi| vmi["spec"]["volumes"][0]["containerDisk"]["image"] = json!("rvm.test/none:1"));
    kubectl.apply(&[missing]).unwrap();
    let condition = rvm_harness::eventually("condition Synchronized=False", || {
        let vmi = kubectl.vmi(rvm_e2e::guest::NAME)?;
        let conditions = vmi["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = conditions
            .into_iter()
            .find(|condition| condition["reason"] == "ErrImagePull");
        Ok(rvm_harness::patience::Look::of(found, || vmi.to_string()))
    })
    .unwrap();
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("rvm.test/none:1"), "{message}");
    kubectl
        .ok(&["delete", "vmi", rvm_e2e::guest::NAME, "--timeout=60s"])
        .unwrap();
}

/// Nothing but what every handler has is in its run directory.
fn assert_nothing_left(handler: &Handler) {
    let machines: Vec<String> = handler
        .run_dir_entries()
        .unwrap()
        .into_iter()
        .filter(|name| name.len() == 36)
        .collect();
    assert_eq!(machines, [""; 0]);
}

fn local() -> (Arc<Tools>, Handler) {
    let tools = Tools::open().unwrap();
    let handler = HandlerSetup::local().start(&tools).unwrap();
    (tools, handler)
}

#[test]
fn local_mode_refuses_manifests_by_their_field() {
    let (_tools, handler) = local();
    let kubectl = handler.kubectl().unwrap();
    assert_refused(&kubectl);
    for (manifest, field) in impossible() {
        let output = handler.feed_rvm(&["apply", "-f", "-"], &manifest.text()).unwrap();
        let said = output.error_text();
        assert!(
            output.status() == Some(1) && said.contains(field) && said.lines().count() == 1,
            "{field}: {said}"
        );
    }
    assert_missing_image_is_reported(&kubectl);
    assert_nothing_left(&handler);
}

#[test]
fn a_cluster_refuses_manifests_by_their_field() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let handler = HandlerSetup::on_node(&cluster, "n1").start(&tools).unwrap();
    assert_refused(cluster.kubectl());
    assert_missing_image_is_reported(cluster.kubectl());
    assert_nothing_left(&handler);
}
