//! The cluster is a real one, several stand side by side, and nothing of them stays.

use std::net::TcpStream;

use rvm_harness::{Cluster, Manifest, Tools};

#[test]
fn two_clusters_keep_their_objects_apart_and_end_with_the_test() {
    let tools = Tools::open().unwrap();
    let (one, other) = (Cluster::start(&tools).unwrap(), Cluster::start(&tools).unwrap());
    assert!(
        one.kubectl()
            .ok(&["version"])
            .unwrap()
            .contains("Server Version: v1.34.")
    );

    one.kubectl().apply(&[Manifest::demo().unwrap()]).unwrap();
    assert_eq!(
        one.kubectl().vmi("vmi-alpine").unwrap()["spec"]["domain"]["memory"]["guest"],
        "256Mi"
    );
    assert_eq!(other.kubectl().phase("vmi-alpine").unwrap(), None);

    one.add_node("n1").unwrap();
    assert_eq!(
        one.kubectl().ok(&["get", "nodes", "-o", "name"]).unwrap(),
        "node/n1\n"
    );

    let ports = [one.port(), other.port()];
    drop((one, other));
    assert!(
        ports
            .iter()
            .all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err())
    );
}
