//! An unmodified kubectl applies at the server, and scales; what it says is what it says of a cluster.

use crate::kubectl::{Lab, MANIFEST};

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: words\ndata:\n";

const SET: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceReplicaSet
metadata:
  name: web
spec:
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
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

fn apply<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["apply", "--server-side", "-f", file];
    words.extend(more);
    words
}

#[test]
fn a_vmi_is_applied_at_the_server_and_owners_are_noted() {
    let lab = Lab::new();
    let name = "virtualmachineinstance.kubevirt.io/vmi-alpine serverside-applied\n";
    let file = lab.file("vmi.yaml", MANIFEST);
    assert_eq!(lab.out(&apply(&file, &[])), name);
    let version = [
        "get",
        "vmi",
        "vmi-alpine",
        "-o",
        "jsonpath={.metadata.resourceVersion}",
    ];
    let before = lab.out(&version);
    assert_eq!(lab.out(&apply(&file, &[])), name);
    assert_eq!(lab.out(&version), before, "the same again is no change");

    let shown = lab.out(&["get", "vmi", "vmi-alpine", "-o", "json", "--show-managed-fields"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let entry = &shown["metadata"]["managedFields"][0];
    assert_eq!(
        (
            &entry["manager"],
            &entry["operation"],
            &entry["apiVersion"],
            &entry["fieldsType"]
        ),
        (
            &"kubectl".into(),
            &"Apply".into(),
            &"kubevirt.io/v1".into(),
            &"FieldsV1".into()
        )
    );
    let fields = &entry["fieldsV1"];
    assert!(fields["f:metadata"]["f:labels"]["f:app"].is_object(), "{fields}");
    assert!(
        fields["f:spec"]["f:domain"]["f:memory"]["f:guest"].is_object(),
        "{fields}"
    );
    assert!(
        fields["f:spec"]["f:volumes"].is_object(),
        "a list is one value: {fields}"
    );
    // What was filled in is nobody's.
    assert_eq!(fields["f:spec"]["f:architecture"], serde_json::Value::Null);
    assert_eq!(shown["spec"]["architecture"], "riscv64");

    let fewer = MANIFEST.replace("  labels:\n    app: demo\n", "");
    lab.out(&apply(&lab.file("vmi.yaml", &fewer), &[]));
    assert_eq!(
        lab.out(&["get", "vmi", "vmi-alpine", "-o", "jsonpath={.metadata.labels}"]),
        ""
    );
}

#[test]
fn two_who_apply_are_told_of_each_other_and_may_force() {
    let lab = Lab::new();
    let (mine, yours) = (
        lab.file("mine.yaml", &format!("{CONFIG}  a: one\n  b: two\n")),
        lab.file("yours.yaml", &format!("{CONFIG}  b: three\n  c: four\n")),
    );
    lab.out(&apply(&mine, &["--field-manager=me"]));
    let refused = lab.error(&apply(&yours, &["--field-manager=you"]));
    assert!(
        refused.contains("Apply failed with 1 conflict: conflict with \"me\": .data.b"),
        "{refused}"
    );
    assert!(
        refused.contains("--force-conflicts"),
        "kubectl says what can be done: {refused}"
    );
    lab.out(&apply(&yours, &["--field-manager=you", "--force-conflicts"]));
    let data = ["get", "cm", "words", "-o", "jsonpath={.data}"];
    assert_eq!(lab.out(&data), r#"{"a":"one","b":"three","c":"four"}"#);
    // Each gives up what is theirs alone.
    let nothing = lab.file(
        "mine.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: words\n",
    );
    lab.out(&apply(&nothing, &["--field-manager=me"]));
    assert_eq!(lab.out(&data), r#"{"b":"three","c":"four"}"#);
    let dry = lab.file("yours.yaml", &format!("{CONFIG}  c: five\n"));
    lab.out(&apply(&dry, &["--field-manager=you", "--dry-run=server"]));
    assert_eq!(lab.out(&data), r#"{"b":"three","c":"four"}"#);
}

#[test]
fn what_was_applied_by_the_client_goes_on_at_the_server() {
    let lab = Lab::new();
    let file = lab.file("vmi.yaml", MANIFEST);
    lab.out(&["apply", "-f", &file]);
    let changed = MANIFEST.replace("app: demo", "app: other");
    lab.out(&apply(&lab.file("vmi.yaml", &changed), &[]));
    let label = [
        "get",
        "vmi",
        "vmi-alpine",
        "-o",
        "jsonpath={.metadata.labels.app}",
    ];
    assert_eq!(lab.out(&label), "other");
    // An edit is somebody else's then.
    lab.out(&["label", "vmi", "vmi-alpine", "app=edited", "--overwrite"]);
    let refused = lab.error(&apply(&file, &[]));
    assert!(
        refused.contains("conflict with \"kubectl-label\" using kubevirt.io/v1: .metadata.labels.app"),
        "{refused}"
    );
    // And back again.
    assert!(
        lab.out(&["apply", "-f", &lab.file("vmi.yaml", MANIFEST)])
            .contains("configured")
    );
    assert_eq!(lab.out(&label), "demo");
}

#[test]
fn a_mistake_is_refused_when_it_is_applied() {
    let lab = Lab::new();
    let strange = MANIFEST.replace("    devices: {}", "    devices: {}\n    typo: 1");
    let refused = lab.error(&apply(&lab.file("vmi.yaml", &strange), &[]));
    assert!(refused.contains("spec.domain.typo"), "{refused}");
    lab.out(&apply(&lab.file("cm.yaml", &format!("{CONFIG}  a: one\n")), &[]));
    let raw = [
        "patch",
        "cm",
        "words",
        "--type=merge",
        "-p",
        "{}",
        "--field-manager=\u{1}",
    ];
    assert!(lab.error(&raw).contains("fieldManager"));
}

#[test]
fn a_replica_set_is_scaled_and_printed() {
    let lab = Lab::new();
    lab.out(&apply(&lab.file("set.yaml", SET), &[]));
    let table = lab.out(&["get", "vmirs"]);
    let mut rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        rows.next().unwrap(),
        ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]
    );
    assert_eq!(rows.next().unwrap()[..2], ["web", "1"]);
    let scale = |more: &[&str]| {
        let mut words = vec!["scale", "vmirs/web"];
        words.extend(more);
        lab.kubectl(&words)
    };
    let scaled = "virtualmachineinstancereplicaset.kubevirt.io/web scaled\n";
    assert_eq!(scale(&["--replicas=3"]).out, scaled);
    assert_eq!(scale(&["--current-replicas=3", "--replicas=4"]).out, scaled);
    assert!(!scale(&["--current-replicas=3", "--replicas=5"]).fine);
    let replicas = ["get", "vmirs", "web", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(lab.out(&replicas), "4");
    let status = r#"{"status":{"replicas":2,"readyReplicas":1,"labelSelector":"app=web"}}"#;
    lab.out(&[
        "patch",
        "vmirs",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ]);
    let path = "/apis/kubevirt.io/v1alpha3/namespaces/default/virtualmachineinstancereplicasets/web/scale";
    let shown: serde_json::Value = serde_json::from_str(&lab.out(&["get", "--raw", path])).unwrap();
    assert_eq!(shown["kind"], "Scale");
    assert_eq!(
        shown["status"],
        serde_json::json!({"replicas": 2, "selector": "app=web"})
    );
    let strange = SET.replace("      app: web\n  template", "      app: db\n  template");
    let refused = lab.error(&["apply", "-f", &lab.file("set.yaml", &strange)]);
    assert!(refused.contains("selector does not match labels"), "{refused}");
}

#[test]
fn explain_tells_what_every_kind_is_for() {
    let lab = Lab::new();
    let told = |what: &str| lab.out(&["explain", what]);
    let domain = told("vmi.spec.domain");
    for field in ["cpu", "devices", "firmware", "memory", "machine", "resources"] {
        assert!(domain.contains(&format!("  {field}\t")), "{field}: {domain}");
    }
    assert!(!domain.contains("<no description>"), "{domain}");
    for path in [
        "vmi.spec.domain.devices.disks",
        "vm.spec.template.spec.domain.cpu",
        "vmirs.spec.template.spec.domain",
        "vmirs.status",
        "kv.status",
    ] {
        let told = told(path);
        assert!(
            !told.contains("<no description>") && told.contains("FIELDS:"),
            "{path}: {told}"
        );
    }
    let settings = told("kv.spec.configuration");
    let words: Vec<&str> = settings.split_whitespace().collect();
    let words = words.join(" ");
    assert!(
        words.contains("two are followed") && words.contains("kept as they were written"),
        "{settings}"
    );
}
