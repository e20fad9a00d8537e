//! The charts: what an operator gets by helm, on a real node, and how it goes again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rvm_e2e::guest::NAME;
use rvm_e2e::installed::{Installed, RELEASE, UNINSTALL};
use rvm_harness::patience::Look;
use rvm_harness::{Helm, Manifest, Tools, eventually};
use serde_json::Value;

#[test]
fn the_chart_is_in_order_and_refuses_what_it_does_not_know() {
    let tools = Tools::open().unwrap();
    let helm = Helm::alone(&tools).unwrap();
    let chart = helm.chart("rvm");
    let linted = helm.ok(&["lint", "--strict", &chart]).unwrap();
    assert!(linted.contains("0 chart(s) failed"), "{linted}");

    let refused = |setting: &str, word: &str| {
        let said = helm.run(&["template", "rvm", &chart, "--set", setting]).unwrap();
        assert_ne!(said.status(), Some(0), "{setting}");
        assert!(said.error_text().contains(word), "{}", said.error_text());
    };
    refused("handler.accell=kvm", "accell");
    refused("handler.accel=xen", "accel");
    refused("api.replicas=0", "replicas");
    refused("handler.machineNetwork=everything", "machineNetwork");
}

#[test]
fn the_chart_puts_all_of_it_into_the_release_s_namespace_and_takes_every_value() {
    let tools = Tools::open().unwrap();
    let helm = Helm::alone(&tools).unwrap();
    let render = |settings: &[&str]| {
        let chart = helm.chart("rvm");
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let command: Vec<&str> = ["template", "rvm", &chart, "--namespace", "elsewhere"]
            .into_iter()
            .chain(settings)
            .collect();
        helm.ok(&command).unwrap()
    };
    let plain = render(&[]);
    assert!(
        !plain.contains("namespace: rvm"),
        "another namespace is left in it"
    );
    for kind in [
        "CustomResourceDefinition",
        "APIService",
        "DaemonSet",
        "Deployment",
        "ClusterRole",
        "PodDisruptionBudget",
    ] {
        assert!(plain.contains(&format!("\nkind: {kind}\n")), "no {kind}");
    }
    assert!(plain.contains("--namespace=elsewhere") && plain.contains("--api-namespace=elsewhere"));
    assert!(plain.contains("image: rvm-api:0.1.0"));
    assert!(
        !plain.contains("resource-policy")
            && plain.contains("--launcher-image=rvmm:0.1.0")
            && !plain.contains("--use-emulation")
            && !plain.contains("--registries")
    );

    let set = render(&[
        "images.registry=registry.example/rvm/",
        "images.tag=1.2",
        "images.pullSecrets[0].name=login",
        "crds.keep=true",
        "userRoles.create=false",
        "kubevirtNamespace.create=false",
        "api.replicas=1",
        "api.grpcNames[0]=rvm.example",
        "handler.accel=tcg",
        "handler.hostDiskDirs[0]=/srv/disks",
        "handler.machineNetwork=10.9.0.0/24",
        "handler.extraArgs[0]=--heartbeat-interval=5",
        "handler.registries=unqualified-search-registries = []",
        "useEmulation=true",
        "webConsole.service.type=LoadBalancer",
        "metrics.handlerPort=9186",
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.labels.release=prometheus",
        "networkPolicy.enabled=true",
    ]);
    for word in [
        "image: registry.example/rvm/rvm-handler:1.2",
        "- name: login",
        "helm.sh/resource-policy: keep",
        "--grpc-name=rvm.example",
        "--accel=tcg",
        "--host-disk-dir=/srv/disks",
        "mountPath: /srv/disks",
        "--pod-network=10.9.0.0/24",
        "--heartbeat-interval=5",
        "--registries=/etc/rvm/registries.conf",
        "    unqualified-search-registries = []",
        "--launcher-image=registry.example/rvm/rvmm:1.2",
        "--launcher-image-tcg=registry.example/rvm/rvmm-qemu:1.2",
        "- --use-emulation",
        "type: LoadBalancer",
        "--metrics-listen=0.0.0.0:9186",
        "kind: ServiceMonitor",
        "    release: prometheus",
        "kind: NetworkPolicy",
    ] {
        assert!(set.contains(word), "no {word}");
    }
    assert!(!set.contains("kubevirt.io:admin") && !set.contains("PodDisruptionBudget"));
    assert!(plain.contains("before-uninstall") && !plain.contains("- --remove"));
    assert!(render(&["uninstall.machines=remove"]).contains("- --remove"));
    // Whose objects stay is not asked whether there are any.
    assert!(!render(&["crds.keep=true"]).contains("rvm-uninstall"));
    let without = render(&[
        "crds.install=false",
        "launcher=process",
        "metrics.enabled=false",
        "webConsole.enabled=false",
    ]);
    for word in [
        "CustomResourceDefinition",
        "- --launcher",
        "- --metrics-listen",
        "- --web-listen",
        "rvm-web",
        "rvm-uninstall",
    ] {
        assert!(!without.contains(word), "{word}");
    }
}

#[test]
fn an_operator_installs_rvm_changes_it_and_uninstalls_it_without_a_trace() {
    let installed = Installed::prepare().unwrap();
    let before = installed.objects().unwrap();
    installed.install(&["api.replicas=2"]).unwrap();
    let kubectl = installed.kubectl();

    // What it serves, through kube-apiserver.
    let version = kubectl.ok(&["get", "--raw", "/apis/subresources.kubevirt.io/v1/version"]);
    assert!(version.unwrap().contains("gitVersion"));
    // The handler has told what its node is, as its account may.
    let node = kubectl.get(&["node", "n1"]).unwrap();
    assert_eq!(node["metadata"]["labels"]["kubevirt.io/schedulable"], "true");
    // Its image has all that nft wants to know of the rules of machines' networks.
    let rules = "table inet t { chain c { meta l4proto { icmp, ipv6-icmp, tcp, udp } accept; }; }";
    let nft = [
        "exec",
        "-n",
        RELEASE,
        "ds/rvm-handler",
        "--",
        "nft",
        "--check",
        rules,
    ];
    kubectl.ok(&nft).unwrap();
    let pods = kubectl
        .get(&["pods", "-n", RELEASE, "-l", "app=rvm-api"])
        .unwrap();
    let context = &pods["items"][0]["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], Value::Bool(true));

    // Another setting is one upgrade away.
    installed.upgrade(&["api.replicas=1"]).unwrap();
    let replicas = kubectl.get(&["deployment", "rvm-api", "-n", RELEASE]).unwrap();
    assert_eq!(replicas["status"]["readyReplicas"], 1);

    let uninstalled = installed.helm().ok(&UNINSTALL);
    uninstalled.unwrap_or_else(|error| panic!("{error:#}\n{}", installed.story()));
    kubectl
        .ok(&["delete", "namespace", RELEASE, "--wait", "--timeout=120s"])
        .unwrap();
    eventually("cluster as it was", || {
        let left: Vec<String> = installed.objects()?.difference(&before).cloned().collect();
        Ok(Look::of(left.is_empty().then_some(()), || left.join(" ")))
    })
    .unwrap();
}

#[test]
fn full_plain_manifests_install_the_same_without_helm_and_take_it_away_again() {
    let installed = Installed::prepare().unwrap();
    let before = installed.objects().unwrap();
    let manifests = installed.apply_manifests().unwrap();
    installed.kubectl().apply(&[Manifest::demo().unwrap()]).unwrap();
    installed.await_running(NAME).unwrap();
    installed.console().unwrap().leave().unwrap();
    let kubectl = installed.kubectl();
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=120s"]).unwrap();
    installed.await_no_pods().unwrap();

    let deleted = kubectl.feed(&["delete", "--timeout=180s", "-f", "-"], &manifests);
    deleted.unwrap().ok().unwrap();
    eventually("cluster as it was", || {
        let left: Vec<String> = installed.objects()?.difference(&before).cloned().collect();
        Ok(Look::of(left.is_empty().then_some(()), || left.join(" ")))
    })
    .unwrap();
}

/// The values that a chart's schema knows, by their paths.
fn known(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    for (name, value) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{name}");
        if value["properties"].is_object() {
            known(value, &format!("{path}."), into);
        } else {
            into.insert(path);
        }
    }
}

/// Every value of the chart but those of other charts, set to something else, after what has it count at all.
const VALUES: [(&str, &str); 47] = [
    ("", "images.registry=r.example"),
    ("", "images.tag=v2"),
    ("", "images.pullPolicy=Always"),
    ("", "images.pullSecrets[0].name=login"),
    ("", "crds.install=false"),
    ("", "crds.keep=true"),
    ("", "kubevirtNamespace.create=false"),
    ("", "userRoles.create=false"),
    ("", "launcher=process"),
    ("", "useEmulation=true"),
    ("", "webConsole.enabled=false"),
    ("", "webConsole.service.type=NodePort"),
    ("", "webConsole.service.port=8443"),
    ("", "webConsole.service.annotations.a=b"),
    ("", "metrics.enabled=false"),
    ("", "metrics.handlerPort=9186"),
    ("", "metrics.serviceMonitor.enabled=true"),
    (
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.interval=7s",
    ),
    (
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.labels.a=b",
    ),
    ("", "networkPolicy.enabled=true"),
    ("", "uninstall.machines=remove"),
    ("", "api.replicas=3"),
    ("", "api.logFormat=text"),
    ("", "api.grpcNames[0]=n.example"),
    ("", "api.nodeStaleAfter=77"),
    ("", "api.extraArgs[0]=--log-format=text"),
    ("", "api.resources.requests.cpu=7m"),
    ("", "api.nodeSelector.a=b"),
    ("", "api.tolerations[0].operator=Exists"),
    ("", "api.affinity.podAffinity.a=b"),
    ("", "api.podAnnotations.a=b"),
    ("", "handler.accel=tcg"),
    ("", "handler.logFormat=text"),
    ("", "handler.grpcPort=9187"),
    ("", "handler.machineNetwork=10.9.0.0/24"),
    ("", "handler.imageCacheLimit=7Gi"),
    ("", "handler.stateDir=/a"),
    ("", "handler.runDir=/a"),
    ("", "handler.kubeletDir=/a"),
    ("", "handler.registries=a"),
    ("", "handler.hostDiskDirs[0]=/a"),
    ("", "handler.extraArgs[0]=--log-format=text"),
    ("", "handler.resources.requests.cpu=7m"),
    ("", "handler.nodeSelector.a=b"),
    ("", "handler.tolerations[0].key=a"),
    ("", "handler.podAnnotations.a=b"),
    ("", "handler.maxUnavailable=2"),
];

#[test]
fn full_every_value_of_the_chart_changes_what_is_installed() {
    let tools = Tools::open().unwrap();
    let helm = Helm::alone(&tools).unwrap();
    let chart = helm.chart("rvm");
    let render = |settings: [&str; 2]| {
        let settings = settings.into_iter().filter(|setting| !setting.is_empty());
        let settings = settings.flat_map(|setting| ["--set", setting]);
        let words: Vec<&str> = ["template", "rvm", &chart].into_iter().chain(settings).collect();
        helm.ok(&words).unwrap()
    };
    let schema = fs::read_to_string(Path::new(&chart).join("values.schema.json")).unwrap();
    let mut left = BTreeSet::new();
    known(&serde_json::from_str(&schema).unwrap(), "", &mut left);
    left.remove("global");
    for (before, setting) in VALUES {
        assert_ne!(
            render([before, setting]),
            render([before, ""]),
            "{setting} does nothing"
        );
        left.retain(|path| {
            let rest = setting.strip_prefix(path.as_str());
            !rest.is_some_and(|rest| rest.starts_with(['=', '.', '[']))
        });
    }
    assert!(left.is_empty(), "not tried: {left:?}");
}
