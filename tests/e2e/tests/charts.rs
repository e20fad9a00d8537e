//! The charts: what an operator gets by helm, on a real node, and how it goes again.

use std::collections::BTreeSet;

use anyhow::Result;
use rvm_harness::patience::Look;
use rvm_harness::{Cluster, Helm, Tools, eventually, images};
use serde_json::Value;

/// What makes the charts' images those of the tests.
const REGISTRY: &str = "images.registry=198.18.0.1:5000";
const TAG: &str = "images.tag=test";

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
            && !plain.contains("- --launcher")
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
        "launcher=pod",
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
    ] {
        assert!(set.contains(word), "no {word}");
    }
    assert!(!set.contains("kubevirt.io:admin") && !set.contains("PodDisruptionBudget"));
    let without = render(&["crds.install=false"]);
    assert!(!without.contains("CustomResourceDefinition"));
}

#[test]
fn an_operator_installs_rvm_changes_it_and_uninstalls_it_without_a_trace() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start_bare_on_node(&tools).unwrap();
    let (kubectl, helm) = (cluster.kubectl(), Helm::of(&tools, &cluster).unwrap());
    images::push(&tools, cluster.node().unwrap(), &["rvm-api", "rvm-handler"]).unwrap();
    let before = objects(&cluster).unwrap();
    let chart = helm.chart("rvm");
    let common = [
        "rvm",
        &chart,
        "--namespace",
        "rvm",
        "--set",
        REGISTRY,
        "--set",
        TAG,
    ];
    let install = [
        &["install", "--create-namespace", "--wait", "--timeout", "4m"],
        common.as_slice(),
    ];
    let story = || {
        let pods = kubectl
            .run(&["describe", "pods", "-n", "rvm"])
            .map(|said| said.text());
        let api = kubectl.run(&["logs", "-n", "rvm", "-l", "app=rvm-api", "--tail", "20"]);
        let handler = kubectl.run(&["logs", "-n", "rvm", "-l", "app=rvm-handler", "--tail", "20"]);
        format!(
            "{pods:?}\n{:?}\n{:?}",
            api.map(|said| said.text()),
            handler.map(|said| said.text())
        )
    };
    helm.ok(&install.concat())
        .unwrap_or_else(|error| panic!("{error:#}\n{}", story()));

    // What it serves, through kube-apiserver.
    kubectl
        .ok(&[
            "wait",
            "--for=condition=Available",
            "--timeout=120s",
            "apiservice/v1.subresources.kubevirt.io",
        ])
        .unwrap_or_else(|error| panic!("{error:#}\n{}", story()));
    let version = kubectl.ok(&["get", "--raw", "/apis/subresources.kubevirt.io/v1/version"]);
    assert!(version.unwrap().contains("gitVersion"));
    // The handler has told what its node is, as its account may.
    eventually("label of the node", || {
        let node = kubectl.get(&["node", "n1"])?;
        let label = node["metadata"]["labels"]["kubevirt.io/schedulable"].clone();
        Ok(Look::of((label == "true").then_some(()), || {
            format!("{label}\n{}", story())
        }))
    })
    .unwrap();
    // Its image has all that nft wants to know of the rules of machines' networks.
    let rules = "table inet t { chain c { meta l4proto { icmp, ipv6-icmp, tcp, udp } accept; }; }";
    let nft = [
        "exec",
        "-n",
        "rvm",
        "ds/rvm-handler",
        "--",
        "nft",
        "--check",
        rules,
    ];
    kubectl.ok(&nft).unwrap();
    let pods = kubectl.get(&["pods", "-n", "rvm", "-l", "app=rvm-api"]).unwrap();
    let context = &pods["items"][0]["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], Value::Bool(true));

    // Another setting is one upgrade away, and the same pods serve what did not change.
    let upgrade = [
        &["upgrade", "--wait", "--timeout", "4m"],
        common.as_slice(),
        &["--set", "api.replicas=1"],
    ];
    helm.ok(&upgrade.concat())
        .unwrap_or_else(|error| panic!("{error:#}\n{}", story()));
    let replicas = kubectl.get(&["deployment", "rvm-api", "-n", "rvm"]).unwrap();
    assert_eq!(replicas["status"]["readyReplicas"], 1);

    helm.ok(&[
        "uninstall",
        "rvm",
        "--namespace",
        "rvm",
        "--wait",
        "--timeout",
        "3m",
    ])
    .unwrap_or_else(|error| panic!("{error:#}\n{}", story()));
    kubectl
        .ok(&["delete", "namespace", "rvm", "--wait", "--timeout=120s"])
        .unwrap();
    eventually("cluster as it was", || {
        let left: Vec<String> = objects(&cluster)?.difference(&before).cloned().collect();
        Ok(Look::of(left.is_empty().then_some(()), || left.join(" ")))
    })
    .unwrap();
}

/// All that an installation brings that is not in a namespace.
fn objects(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let kinds = "crd,apiservice,clusterrole,clusterrolebinding,namespace,priorityclass,mutatingwebhookconfiguration,validatingwebhookconfiguration";
    let mut names: BTreeSet<String> = BTreeSet::new();
    for more in [&[kinds][..], &["rolebinding", "-n", "kube-system"]] {
        let said = cluster.kubectl().ok(&[&["get", "-o", "name"], more].concat())?;
        names.extend(said.lines().map(str::to_owned));
    }
    Ok(names)
}
