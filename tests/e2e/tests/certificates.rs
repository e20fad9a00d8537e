//! Certificates: rvm makes its own, and makes them anew while everything runs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::guest::{NAME, PROMPT};
use rvm_e2e::machines::SUBRESOURCES;
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Api, Cluster, HandlerSetup, Kubectl, Manifest, Plain, Tools};

/// The Secrets, in rvm-api's namespace: of the authorities, and of what handlers show.
const AUTHORITY: &str = "rvm-ca";
const OF_HANDLERS: &str = "rvm-handler-certs";

fn of_handlers(kubectl: &Kubectl) -> String {
    let path = "jsonpath={.data.tls\\.crt}";
    kubectl
        .ok(&["get", "secret", OF_HANDLERS, "-n", "rvm", "-o", path])
        .unwrap()
}

fn trusted(kubectl: &Kubectl) -> String {
    let path = "jsonpath={.spec.caBundle}";
    kubectl
        .ok(&["get", "apiservice", "v1.subresources.kubevirt.io", "-o", path])
        .unwrap()
}

/// A console through kube-apiserver, rvm-api and the handler, each of which believes the next.
fn reaches_the_guest(kubectl: &Kubectl) {
    let path = format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/console");
    let mut viewer = eventually("console", || {
        let opened = Plain::open(kubectl, &path);
        Ok(match opened {
            Ok(viewer) => Look::Here(viewer),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })
    .unwrap();
    viewer.send(b"\r").unwrap();
    viewer.expect(PROMPT).unwrap();
}

#[test]
fn full_an_authority_that_is_taken_away_is_made_anew_and_everybody_believes_it() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").with(&["--grpc-listen", "127.0.0.1:0"]);
    let node = node.start(&tools).unwrap();
    let mut api = Api::start(&tools, &cluster).unwrap();
    let kubectl = cluster.kubectl();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    let vmi = kubectl.await_phase(NAME, "Running").unwrap();
    let uid = vmi["metadata"]["uid"].as_str().unwrap();
    let pid = node.pid(uid).unwrap();
    reaches_the_guest(kubectl);
    let before = (trusted(kubectl), of_handlers(kubectl));

    // As an operator does whose authority was stolen.
    kubectl.ok(&["delete", "secret", AUTHORITY, "-n", "rvm"]).unwrap();
    api.terminate().unwrap();
    api.start_again().unwrap();
    api.await_available(kubectl).unwrap();
    assert_ne!(trusted(kubectl), before.0);
    assert_ne!(of_handlers(kubectl), before.1);
    // The handler was not started again: it finds its new certificate by itself.
    reaches_the_guest(kubectl);
    assert_eq!(node.pid(uid).unwrap(), pid);
}
