//! rvm-api in a real cluster: what kubectl and virtctl ask of a machine goes through kube-apiserver's aggregation, by each user's own
//! roles, and from there over mutual TLS to the handler that has the machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rvm_e2e::guest::{self, NAME};
use rvm_e2e::machines::{SUBRESOURCES, await_word, machine};
use rvm_harness::certificates::Pair;
use rvm_harness::https::Server;
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Api, Cluster, HandlerSetup, Kubectl, Manifest, Plain, Tools, runs};
use serde_json::json;

fn put(kubectl: &Kubectl, what: &str, action: &str) -> rvm_outer::Output {
    let path = format!("{SUBRESOURCES}/{what}/{NAME}/{action}");
    kubectl
        .feed(&["replace", "--raw", &path, "-f", "-"], "{}")
        .unwrap()
}

fn console(kubectl: &Kubectl) -> anyhow::Result<Plain> {
    let path = format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/console");
    Plain::open(kubectl, &path)
}

#[test]
fn a_machine_is_started_viewed_paused_and_stopped_through_kube_apiserver() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").with(&["--grpc-listen", "127.0.0.1:0"]);
    let node = node.start(&tools).unwrap();
    let mut api = Api::start(&tools, &cluster).unwrap();
    let kubectl = cluster.kubectl();

    kubectl.apply(&[machine("Halted").unwrap()]).unwrap();
    await_word(kubectl, "Stopped").unwrap();
    let refused = put(kubectl, "virtualmachines", "stop").error_text();
    assert!(refused.contains("VM is not running"), "{refused}");
    put(kubectl, "virtualmachines", "start").ok().unwrap();
    await_word(kubectl, "Running").unwrap();
    let uid = kubectl.vmi(NAME).unwrap()["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    let pid = node.pid(&uid).unwrap();

    let mut first = console(kubectl).unwrap();
    first.expect(guest::PROMPT).unwrap();
    first.send(b"echo answer=$((6 * 7))\r").unwrap();
    first.expect("answer=42\r\n").unwrap();
    // The next viewer takes over; what was said is said again.
    let mut second = console(kubectl).unwrap();
    assert_eq!(first.end().unwrap(), None);
    second.expect("answer=42\r\n").unwrap();

    put(kubectl, "virtualmachineinstances", "pause").ok().unwrap();
    await_word(kubectl, "Paused").unwrap();
    put(kubectl, "virtualmachineinstances", "unpause").ok().unwrap();
    await_word(kubectl, "Running").unwrap();

    // The viewer's connection ends with rvm-api; the machine does not notice.
    api.terminate().unwrap();
    second.end().unwrap();
    api.start_again().unwrap();
    api.await_available(kubectl).unwrap();
    assert!(runs(pid));
    let mut third = eventually("console", || {
        let opened = console(kubectl).map_err(|error| error.to_string());
        Ok(match opened {
            Ok(opened) => Look::Here(opened),
            Err(why) => Look::NotYet(why),
        })
    })
    .unwrap();
    third.expect("answer=42\r\n").unwrap();
    third.send(b"echo again=$((6 * 9))\r").unwrap();
    third.expect("again=54\r\n").unwrap();
    // kubectl's plugins go the same way, and who only looks takes the console from nobody.
    let taken = kubectl.ok(&["virt", "top", NAME]).unwrap();
    assert!(taken.contains(NAME) && taken.contains("Mi"), "{taken}");
    assert!(kubectl.ok(&["rvm", "logs", NAME]).unwrap().contains("again=54"));
    third.send(b"echo still=$((2 * 8))\r").unwrap();
    third.expect("still=16\r\n").unwrap();
    assert_eq!(node.pid(&uid).unwrap(), pid);

    put(kubectl, "virtualmachines", "stop").ok().unwrap();
    await_word(kubectl, "Stopped").unwrap();
    // A console that has ended says goodbye.
    assert_eq!(third.end().unwrap(), Some(1000));
    kubectl.ok(&["delete", "vm", NAME, "--timeout=60s"]).unwrap();
}

/// What a user gets to hear who does this: there is no machine, so only one who may not is told so.
fn hears(kubectl: &Kubectl, verb: &str, path: &str) -> String {
    let words: &[&str] = if verb == "get" {
        &["get", "--raw", path]
    } else {
        &["replace", "--raw", path, "-f", "-"]
    };
    kubectl.feed(words, "{}").unwrap().error_text()
}

fn may(kubectl: &Kubectl, verb: &str, path: &str) -> bool {
    let said = hears(kubectl, verb, path);
    assert!(
        said.contains("Forbidden") || said.contains("forbidden") || said.contains("not found"),
        "{said}"
    );
    said.contains("not found")
}

#[test]
fn each_user_may_do_what_their_role_lets_them_and_nobody_forges_another() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    let api = Api::start(&tools, &cluster).unwrap();
    let kubectl = cluster.kubectl();
    let user = |name: &str, role: &str| {
        let (clusterrole, user) = (
            format!("--clusterrole=kubevirt.io:{role}"),
            format!("--user={name}"),
        );
        let binding = ["create", "rolebinding", name, &clusterrole, &user];
        kubectl.ok(&binding).unwrap();
        cluster.kubectl_of(&tools, name).unwrap()
    };
    let (editor, viewer) = (user("ellen", "edit"), user("victor", "view"));
    let stranger = cluster.kubectl_of(&tools, "sam").unwrap();

    let instance = format!("{SUBRESOURCES}/virtualmachineinstances/none");
    let verbs = [
        ("get", format!("{instance}/console")),
        ("get", format!("{instance}/portforward/22/tcp")),
        ("get", format!("{instance}/vnc")),
        ("put", format!("{instance}/pause")),
        ("put", format!("{SUBRESOURCES}/virtualmachines/none/start")),
        ("put", format!("{SUBRESOURCES}/virtualmachines/none/stop")),
        ("put", format!("{SUBRESOURCES}/virtualmachines/none/restart")),
    ];
    for (verb, path) in &verbs {
        assert!(may(&editor, verb, path), "{path}");
        assert!(!may(&viewer, verb, path) && !may(&stranger, verb, path), "{path}");
    }
    let elsewhere = verbs[0].1.replace("/default/", "/kube-system/");
    assert!(!may(&editor, "get", &elsewhere));
    // What the group says of itself is for everybody.
    let version = stranger.ok(&["get", "--raw", "/apis/subresources.kubevirt.io/v1/version"]);
    assert!(version.unwrap().contains("gitVersion"));
    let resources = editor.ok(&["api-resources", "--api-group=kubevirt.io"]).unwrap();
    assert!(resources.contains("virtualmachines"), "{resources}");
    let explained = editor.ok(&["explain", "vmi.spec.domain"]).unwrap();
    assert!(explained.contains("DESCRIPTION"), "{explained}");

    forged(&cluster, &api, &verbs[0].1);
}

#[test]
fn the_cluster_s_own_roles_hold_for_machines_and_what_a_machine_owned_goes_with_it() {
    let tools = Tools::open().unwrap();
    let mut cluster = Cluster::start(&tools).unwrap();
    cluster.run_controllers(&tools).unwrap();
    let _api = Api::start(&tools, &cluster).unwrap();
    let kubectl = cluster.kubectl();
    let user = |name: &str, role: &str| {
        eventually(role, || {
            let role = kubectl.get(&["clusterrole", role])?["rules"].to_string();
            let adds_up = role.contains("subresources.kubevirt.io");
            Ok(Look::of(adds_up.then_some(()), || role))
        })
        .unwrap();
        let (clusterrole, user) = (format!("--clusterrole={role}"), format!("--user={name}"));
        let binding = ["create", "rolebinding", name, &clusterrole, &user];
        kubectl.ok(&binding).unwrap();
        cluster.kubectl_of(&tools, name).unwrap()
    };
    let (owner, editor, viewer) = (
        user("anna", "admin"),
        user("ellen", "edit"),
        user("victor", "view"),
    );
    let start = format!("{SUBRESOURCES}/virtualmachines/none/start");
    let look = format!("{SUBRESOURCES}/virtualmachineinstances/none/guestosinfo");
    assert!(may(&owner, "put", &start) && may(&editor, "put", &start) && !may(&viewer, "put", &start));
    assert!(may(&editor, "get", &look) && may(&viewer, "get", &look));
    assert!(viewer.run(&["get", "vm"]).unwrap().ok().is_ok());

    editor.apply(&[machine("Halted").unwrap()]).unwrap();
    let vm = kubectl.get(&["vm", NAME]).unwrap();
    let by = json!([{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": NAME, "uid": vm["metadata"]["uid"]}]);
    let owned = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": by},
    });
    kubectl.apply(&[Manifest(owned)]).unwrap();
    editor.ok(&["delete", "vm", NAME, "--timeout=60s"]).unwrap();
    eventually("end of what it owned", || {
        let left = kubectl.ok(&["get", "configmap", "owned", "--ignore-not-found"])?;
        Ok(Look::of(left.is_empty().then_some(()), || left))
    })
    .unwrap();
}

/// Who goes round kube-apiserver is nobody, whatever they say; who shows another's certificate is not even heard.
fn forged(cluster: &Cluster, api: &Api, path: &str) {
    let kubectl = cluster.kubectl();
    let service = kubectl
        .get(&["apiservice", "v1.subresources.kubevirt.io"])
        .unwrap();
    let authority = service["spec"]["caBundle"].as_str().unwrap();
    let authority = BASE64_STANDARD.decode(authority).unwrap();
    let server = Server {
        address: api.address().unwrap(),
        name: "rvm-api.rvm.svc",
        authority: &authority,
    };
    let headers = "X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n";
    let answer = server.get(path, headers, None).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.ends_with("request is not authenticated"),
        "{answer}"
    );
    let health = server.get("/readyz", "", None).unwrap();
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    let certificate = cluster.authority().certificate();
    let admin = Pair {
        key: certificate.with_file_name("admin.key"),
        certificate: certificate.with_file_name("admin.crt"),
    };
    assert!(server.get(path, headers, Some(&admin)).is_err());
    let front = certificate.with_file_name("front");
    let proxy = Pair {
        certificate: front.join("proxy.crt"),
        key: front.join("proxy.key"),
    };
    let answer = server.get(path, headers, Some(&proxy)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}
