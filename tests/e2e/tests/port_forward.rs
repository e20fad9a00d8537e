//! `rvm port-forward`: a guest's ports on this machine, whatever its network lets in.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;

use rvm_harness::patience::{Look, PATIENCE, eventually};
use rvm_harness::{Console, HandlerSetup, Manifest, Tools};
use serde_json::json;

/// A guest that lets others in by port 80 alone.
fn guest(name: &str) -> Manifest {
    Manifest::demo().unwrap().named(name).with(|vmi| {
        vmi["spec"]["networks"] = json!([{"name": "default", "pod": {}}]);
        let interface = json!({"name": "default", "masquerade": {}, "ports": [{"port": 80}]});
        vmi["spec"]["domain"]["devices"]["interfaces"] = json!([interface]);
    })
}

/// What a web server has to say at a port of this machine. It hears the end of the request before it answers.
fn page(local: SocketAddr) -> String {
    let mut stream = TcpStream::connect(local).unwrap();
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// Reaches a guest of this handler by TCP, whatever its network lets in.
fn ports_are_reached(setup: HandlerSetup) {
    let tools = Tools::open().unwrap();
    let handler = setup.start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    kubectl.apply(&[guest("web")]).unwrap();
    let viewer = handler.rvm_on_terminal(&["console", "web"]).unwrap();
    let mut console = Console::at_prompt(viewer, "web:~# ").unwrap();
    eventually("the guest's address", || {
        let seen = console.ask("ip -4 -o addr show eth0 | awk '{print $4}'")?;
        Ok(Look::of((seen == "10.0.2.2/24").then_some(()), || seen))
    })
    .unwrap();
    // More than one message of the API holds.
    console
        .ask("mkdir /www; yes page | head -n 50000 >/www/page")
        .unwrap();
    console.ask("httpd -p 7 -h /www").unwrap();

    let mut forwarding = handler
        .rvm_on_terminal(&["port-forward", "vmi/web", "0:7", "0:9"])
        .unwrap();
    let [open, shut] = ["7", "9"].map(|port| {
        forwarding.expect("Forwarding tcp ", PATIENCE).unwrap();
        let end = format!(" to {port}");
        let local = forwarding.expect(&end, PATIENCE).unwrap();
        local.trim_end_matches(&end).parse().unwrap()
    });
    let first = page(open);
    assert!(
        first.starts_with("HTTP/1.0 200") || first.starts_with("HTTP/1.1 200"),
        "{first:.80}"
    );
    assert!(first.ends_with(&"page\n".repeat(50_000)), "{}", first.len());
    assert_eq!(page(open).len(), first.len(), "the second connection");

    // A port at which nobody listens: that connection is closed, with a line, and the others go on.
    let mut said = Vec::new();
    let mut refused = TcpStream::connect(shut).unwrap();
    assert!(matches!(refused.read_to_end(&mut said), Ok(0) | Err(_)));
    forwarding.expect("refused", PATIENCE).unwrap();
    assert_eq!(page(open).len(), first.len(), "after a refusal");
}

#[test]
fn a_guests_ports_are_reached_on_this_machine_whatever_its_network_lets_in() {
    let network = ["--pod-network", "10.199.20.0/24"];
    ports_are_reached(HandlerSetup::local().with(&network));
}

#[test]
fn a_guests_ports_are_reached_by_an_ordinary_user() {
    let network = ["--pod-network", "10.199.21.0/24"];
    let setup = HandlerSetup::local().with(&network);
    ports_are_reached(setup.unprivileged(Path::new("/etc/resolv.conf")));
}
