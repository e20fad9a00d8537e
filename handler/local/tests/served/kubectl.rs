//! An unmodified kubectl does with the local API what it does with a cluster.
//!
//! `RVM_KUBECTL` names the program; without it, the link `kubectl` in the cache folder is taken.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::server::Server;

pub const MANIFEST: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: vmi-alpine
  labels:
    app: demo
  annotations:
    rvm/root-filesystem: root
spec:
  domain:
    devices: {}
    memory:
      guest: 256Mi
  volumes:
  - name: root
    containerDisk:
      image: docker.io/library/alpine:3.23
";

/// A server, and a kubectl with a home of its own.
pub struct Lab {
    server: Server,
    state: tempfile::TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    pub out: String,
    pub error: String,
    pub fine: bool,
}

fn kubectl_path() -> PathBuf {
    let cache = || {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let folder = std::env::var_os("RVM_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(base.or_else(home)?.join("rvm")));
        folder.map(|folder| folder.join("kubectl"))
    };
    let path = std::env::var_os("RVM_KUBECTL")
        .map(PathBuf::from)
        .or_else(cache)
        .filter(|path| path.exists());
    path.expect("no kubectl: set RVM_KUBECTL to one, or link it as `kubectl` in the cache folder")
}

impl Lab {
    pub fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        Self {
            server: Server::start(state.path()),
            state,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(kubectl_path());
        command
            .args(args)
            .env("HOME", self.state.path())
            .env("KUBECONFIG", &self.server.kubeconfig);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn kubectl(&self, args: &[&str]) -> Said {
        let output = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said {
            out: text(output.stdout),
            error: text(output.stderr),
            fine: output.status.success(),
        }
    }

    /// What a command prints that has to go well.
    pub fn out(&self, args: &[&str]) -> String {
        let said = self.kubectl(args);
        assert!(said.fine, "kubectl {args:?}: {said:?}");
        said.out
    }

    /// What a command complains of that has to go wrong.
    pub fn error(&self, args: &[&str]) -> String {
        let said = self.kubectl(args);
        assert!(!said.fine, "kubectl {args:?}: {said:?}");
        said.error
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.state.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(content.as_bytes())
            .unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn with_vmi() -> Self {
        let lab = Self::new();
        let file = lab.file("vmi.yaml", MANIFEST);
        lab.out(&["create", "-f", &file]);
        lab
    }
}

/// A command that goes on, read line by line; it ends with the test.
struct Following {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Following {
    fn start(lab: &Lab, args: &[&str]) -> Self {
        let mut process = lab.command(args).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// The words of the next line.
    fn next(&mut self) -> Vec<String> {
        self.lines
            .next()
            .unwrap()
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[test]
fn apply_creates_leaves_alone_and_changes() {
    let lab = Lab::new();
    let file = lab.file("vmi.yaml", MANIFEST);
    let name = "virtualmachineinstance.kubevirt.io/vmi-alpine";
    assert_eq!(lab.out(&["apply", "-f", &file]), format!("{name} created\n"));
    assert_eq!(lab.out(&["apply", "-f", &file]), format!("{name} unchanged\n"));
    let changed = lab.file("vmi.yaml", &MANIFEST.replace("app: demo", "app: other"));
    assert_eq!(
        lab.out(&["apply", "--dry-run=server", "-f", &changed]),
        format!("{name} configured (server dry run)\n")
    );
    assert_eq!(
        lab.out(&["apply", "-f", &changed]),
        format!("{name} configured\n")
    );
    assert_eq!(
        lab.out(&["get", "vmi", "-l", "app=other", "-o", "name"]),
        format!("{name}\n")
    );
}

#[test]
fn built_in_kinds_are_applied_edited_and_labelled() {
    let lab = Lab::new();
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: words\n  finalizers: [mine/1, mine/2]\ndata:\n  a: one\n  b: two\n";
    let apply = |text: &str| lab.out(&["apply", "-f", &lab.file("words.yaml", text)]);
    assert_eq!(apply(manifest), "configmap/words created\n");
    assert_eq!(apply(manifest), "configmap/words unchanged\n");
    let json = r#"[{"op":"add","path":"/metadata/finalizers/1","value":"theirs/1"},{"op":"add","path":"/data/theirs","value":"x"}]"#;
    lab.out(&["patch", "cm", "words", "--type=json", "-p", json]);
    let changed = manifest
        .replace("mine/1, mine/2", "mine/2, mine/3")
        .replace("  b: two", "  b: three");
    assert_eq!(apply(&changed), "configmap/words configured\n");
    let now = "jsonpath={.metadata.finalizers}{.data}";
    assert_eq!(
        lab.out(&["get", "cm", "words", "-o", now]),
        r#"["theirs/1","mine/2","mine/3"]{"a":"one","b":"three","theirs":"x"}"#
    );
    assert_eq!(
        apply(&changed.replace("  a: one\n", "")),
        "configmap/words configured\n"
    );
    lab.out(&["label", "cm", "words", "tier=a"]);
    lab.out(&["patch", "cm", "words", "-p", r#"{"data":{"b":null}}"#]);
    assert_eq!(
        lab.out(&["get", "cm", "-l", "tier=a", "-o", "jsonpath={.items[*].data}"]),
        r#"{"theirs":"x"}"#
    );
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: key\nstringData:\n  a: one\n";
    apply(secret);
    assert_eq!(apply(&secret.replace("one", "two")), "secret/key configured\n");
    assert_eq!(
        lab.out(&["get", "secret", "key", "-o", "jsonpath={.data.a}"]),
        "dHdv"
    );
}

#[test]
fn get_prints_kubevirts_columns() {
    let lab = Lab::with_vmi();
    let status = r#"{"status":{"phase":"Running","nodeName":"n1","interfaces":[{"ipAddress":"10.0.2.2"}],"conditions":[{"type":"Ready","status":"True"}]}}"#;
    lab.out(&["patch", "vmi", "vmi-alpine", "--type=merge", "-p", status]);
    let table = lab.out(&["get", "vmi"]);
    let rows = words(&table);
    assert_eq!(rows[0], ["NAME", "AGE", "PHASE", "IP", "NODENAME", "READY"]);
    assert_eq!(
        [rows[1][0], rows[1][2], rows[1][3], rows[1][4], rows[1][5]],
        ["vmi-alpine", "Running", "10.0.2.2", "n1", "True"]
    );
    assert!(
        lab.out(&["get", "vmis", "-o", "wide"])
            .contains("LIVE-MIGRATABLE")
    );
    assert!(lab.out(&["get", "all", "-A"]).contains("default"));
    assert_eq!(
        lab.out(&["get", "vmi", "vmi-alpine", "-o", "jsonpath={.status.phase}"]),
        "Running"
    );
    assert!(
        lab.out(&["get", "vmi", "-o", "yaml"])
            .contains("rvm/root-filesystem: root")
    );
    assert!(
        lab.out(&["get", "vmi", "vmi-alpine", "-o", "json"])
            .contains("\"architecture\": \"riscv64\"")
    );
    assert!(lab.out(&["get", "ns"]).contains("default   Active"));
}

#[test]
fn get_watch_follows_a_life() {
    let lab = Lab::new();
    let file = lab.file("vmi.yaml", MANIFEST);
    lab.out(&["create", "-f", &file]);
    let mut watch = Following::start(&lab, &["get", "vmi", "-w"]);
    assert_eq!(watch.next()[0], "NAME");
    assert_eq!(watch.next()[0], "vmi-alpine");
    lab.out(&[
        "patch",
        "vmi",
        "vmi-alpine",
        "--type=merge",
        "-p",
        r#"{"status":{"phase":"Running"}}"#,
    ]);
    assert_eq!(watch.next()[2], "Running");
    let mut one = Following::start(
        &lab,
        &[
            "get",
            "vmi",
            "vmi-alpine",
            "-w",
            "--output-watch-events",
            "--no-headers",
        ],
    );
    assert_eq!(one.next()[..2], ["ADDED", "vmi-alpine"]);
    lab.out(&["delete", "vmi", "vmi-alpine"]);
    assert_eq!(one.next()[..2], ["DELETED", "vmi-alpine"]);
}

#[test]
fn wait_returns_when_the_condition_is_there() {
    let lab = Lab::with_vmi();
    let waiting = lab
        .command(&["wait", "vmi/vmi-alpine", "--for=condition=Ready", "--timeout=60s"])
        .spawn()
        .unwrap();
    let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    lab.out(&["patch", "vmi", "vmi-alpine", "--type=merge", "-p", ready]);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "virtualmachineinstance.kubevirt.io/vmi-alpine condition met\n"
    );
    assert!(
        lab.out(&[
            "wait",
            "vmi/vmi-alpine",
            "--for=jsonpath={.metadata.name}=vmi-alpine"
        ])
        .contains("condition met")
    );
}

#[test]
fn objects_are_edited_labelled_annotated_and_replaced() {
    let lab = Lab::with_vmi();
    assert!(
        lab.out(&["label", "vmi", "vmi-alpine", "tier=a"])
            .contains("labeled")
    );
    assert!(
        lab.out(&["annotate", "vmi", "vmi-alpine", "note=b"])
            .contains("annotated")
    );
    let json = r#"[{"op":"add","path":"/metadata/labels/json","value":"yes"}]"#;
    assert!(
        lab.out(&["patch", "vmi", "vmi-alpine", "--type=json", "-p", json])
            .contains("patched")
    );
    let edit = lab
        .command(&["edit", "vmi", "vmi-alpine"])
        .env("KUBE_EDITOR", "sed -i s/tier:.a/tier:\\ edited/")
        .output()
        .unwrap();
    assert!(edit.status.success(), "{edit:?}");
    assert_eq!(
        lab.out(&["get", "vmi", "-l", "tier=edited,json", "-o", "name"])
            .lines()
            .count(),
        1
    );
    let now = lab.out(&["get", "vmi", "vmi-alpine", "-o", "yaml"]);
    let file = lab.file("now.yaml", &now.replace("tier: edited", "tier: replaced"));
    assert!(lab.out(&["replace", "-f", &file]).contains("replaced"));
    assert!(
        lab.error(&["replace", "-f", &file])
            .contains("the object has been modified")
    );
    assert!(
        lab.error(&["patch", "vmi", "vmi-alpine", "-p", "{}"])
            .contains("strategic-merge-patch+json is not supported")
    );
}

#[test]
fn delete_waits_for_the_finalizer() {
    let lab = Lab::with_vmi();
    let held = r#"{"metadata":{"finalizers":["kubevirt.io/foregroundDeleteVirtualMachine"]}}"#;
    lab.out(&["patch", "vmi", "vmi-alpine", "--type=merge", "-p", held]);
    let deleting = lab.command(&["delete", "vmi", "vmi-alpine"]).spawn().unwrap();
    lab.out(&[
        "wait",
        "vmi/vmi-alpine",
        "--for=jsonpath={.metadata.deletionTimestamp}",
        "--timeout=60s",
    ]);
    lab.out(&[
        "patch",
        "vmi",
        "vmi-alpine",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/metadata/finalizers"}]"#,
    ]);
    assert!(deleting.wait_with_output().unwrap().status.success());
    assert!(
        lab.error(&["get", "vmi", "vmi-alpine"])
            .contains("\"vmi-alpine\" not found")
    );
    let file = lab.file("vmi.yaml", MANIFEST);
    lab.out(&["create", "-f", &file]);
    assert!(lab.error(&["create", "-f", &file]).contains("already exists"));
    assert!(lab.out(&["delete", "vmi", "--all"]).contains("deleted"));
}

#[test]
fn bad_manifests_are_refused_by_the_path_of_the_field() {
    let lab = Lab::new();
    let refused = |from: &str, to: &str| {
        let file = lab.file("bad.yaml", &MANIFEST.replace(from, to));
        lab.error(&["apply", "-f", &file])
    };
    let amd64 = refused("spec:\n", "spec:\n  architecture: amd64\n");
    assert!(
        amd64.contains("spec.architecture: Unsupported value: \"amd64\": supported values: \"riscv64\""),
        "{amd64}"
    );
    let long = refused("name: vmi-alpine", &format!("name: {}", "a".repeat(300)));
    assert!(
        long.contains("metadata.name: Invalid value") && long.contains("must be no more than 253 characters"),
        "{long}"
    );
    let upper = refused("name: vmi-alpine", "name: Alpine");
    assert!(
        upper.contains("metadata.name: Invalid value: \"Alpine\": a lowercase RFC 1123 subdomain"),
        "{upper}"
    );
    let typed = refused("devices: {}", "devices: {}\n    cpu: {cores: two}");
    assert!(
        typed.contains("spec.domain.cpu.cores in body must be of type integer: \"string\""),
        "{typed}"
    );
    let top = refused("spec:\n", "spce: {}\nspec:\n");
    assert!(
        top.contains("strict decoding error: unknown field \"spce\""),
        "{top}"
    );
    let namespace = lab.error(&["create", "-n", "nowhere", "-f", &lab.file("vmi.yaml", MANIFEST)]);
    assert!(
        namespace.contains("namespaces \"nowhere\" not found"),
        "{namespace}"
    );
    assert_eq!(lab.out(&["get", "vmi", "-A"]), "");
}

#[test]
fn kinds_and_fields_are_explained() {
    let lab = Lab::new();
    let kinds = lab.out(&["api-resources"]);
    assert!(
        words(&kinds).contains(&vec![
            "virtualmachineinstances",
            "vmi,vmis",
            "kubevirt.io/v1",
            "true",
            "VirtualMachineInstance"
        ]),
        "{kinds}"
    );
    assert!(lab.out(&["api-versions"]).contains("kubevirt.io/v1\n"));
    assert!(lab.out(&["explain", "vmi.spec.domain.memory"]).contains("guest"));
    assert!(lab.out(&["explain", "vmi.metadata"]).contains("finalizers"));
    assert!(
        lab.out(&["explain", "node.status.conditions"])
            .contains("lastHeartbeatTime")
    );
    assert!(lab.out(&["version"]).contains("Server Version: v1.34"));
}

#[test]
fn events_are_listed_and_described() {
    let lab = Lab::with_vmi();
    let uid = lab.out(&["get", "vmi", "vmi-alpine", "-o", "jsonpath={.metadata.uid}"]);
    let event = format!(
        "apiVersion: v1\nkind: Event\nmetadata:\n  generateName: vmi-alpine.\n  namespace: default\n\
         type: Normal\nreason: Started\nmessage: VirtualMachineInstance started.\n\
         involvedObject:\n  kind: VirtualMachineInstance\n  apiVersion: kubevirt.io/v1\n  name: vmi-alpine\n  namespace: default\n  uid: {uid}\n"
    );
    let file = lab.file("event.yaml", &event);
    lab.out(&["create", "-f", &file]);
    assert!(
        lab.out(&["get", "events"])
            .contains("virtualmachineinstance/vmi-alpine   VirtualMachineInstance started.")
    );
    assert!(
        lab.out(&["events", "--for", "vmi/vmi-alpine"])
            .contains("Started")
    );
    let described = lab.out(&["describe", "vmi", "vmi-alpine"]);
    assert!(
        described.contains("Guest:  256Mi") && described.contains("VirtualMachineInstance started."),
        "{described}"
    );
    assert_eq!(
        lab.out(&[
            "get",
            "events",
            "--field-selector",
            "involvedObject.name=other",
            "-o",
            "name"
        ]),
        ""
    );
}

#[test]
fn namespaces_keep_objects_apart() {
    let lab = Lab::with_vmi();
    let namespace = lab.file(
        "ns.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: lab\n",
    );
    lab.out(&["apply", "-f", &namespace]);
    let file = lab.file("vmi.yaml", MANIFEST);
    lab.out(&["apply", "-n", "lab", "-f", &file]);
    assert_eq!(lab.out(&["get", "vmi", "-A", "-o", "name"]).lines().count(), 2);
    lab.out(&["delete", "ns", "lab"]);
    assert_eq!(lab.out(&["get", "vmi", "-A", "-o", "name"]).lines().count(), 1);
    assert!(
        lab.error(&["delete", "ns", "default"])
            .contains("may not be deleted")
    );
}

#[test]
fn everything_is_still_there_after_a_restart() {
    let mut lab = Lab::with_vmi();
    lab.server.kill();
    lab.server = Server::start(Path::new(lab.state.path()));
    assert_eq!(
        lab.out(&["get", "vmi", "-o", "name"]),
        "virtualmachineinstance.kubevirt.io/vmi-alpine\n"
    );
}
