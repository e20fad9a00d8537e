//! The way outside of a machine's network, from a host of the test's own: a namespace with addresses of both kinds.
//!
//! Needs root, ip, nft and pasta.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the tests of rules use the rest")]
mod pods;

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pods::Place;
use rvm_handler::networks::client::{NetworkError, Networks, PLAN};
use rvm_handler::networks::model::{Binding, Plan};
use rvm_handler::networks::wish::NetworkWish;
use rvm_handler::vm::VmId;
use rvm_harness::patience::{Look, eventually};

const UID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964f1";
const PATIENCE: Duration = Duration::from_secs(60);

/// A host that has a neighbour outside, by both kinds of addresses.
fn host(outside: &Place) -> Place {
    let host = Place::new();
    host.join("up0", outside, "eth0");
    host.addresses("up0", &["192.0.2.1/24", "2001:db8::1/64"]);
    outside.addresses("eth0", &["192.0.2.2/24", "2001:db8::2/64"]);
    host.ip("route add default via 192.0.2.2");
    host.ip("-6 route add default via 2001:db8::2");
    host
}

/// A program that keeps networks as a process of the host in this namespace would.
fn keeper_on(host: &File, folder: &Path) -> PathBuf {
    let program = folder.join("keeper");
    let namespace = format!("/proc/{}/fd/{}", std::process::id(), host.as_raw_fd());
    let handler = env!("CARGO_BIN_EXE_rvm-handler");
    let script = format!("#!/bin/sh\nexec nsenter --net={namespace} '{handler}' \"$@\"\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

fn plan(networks: &Networks, run: &Path, id: &VmId) {
    let wish = NetworkWish {
        network: "default".to_owned(),
        binding: Binding::Masquerade,
        mac: "02:00:00:00:00:07".parse().unwrap(),
        own_mac: false,
        queues: 1,
        ports: Vec::new(),
        hostname: "vm".to_owned(),
        optional: false,
    };
    fs::create_dir_all(run.join(UID)).unwrap();
    let keep = |plan: &Plan| {
        fs::write(run.join(UID).join(PLAN), serde_json::to_vec(plan).unwrap()).unwrap();
        Ok::<_, NetworkError>(())
    };
    networks.plan(id, &wish, keep).unwrap();
}

/// Whether a server outside is reached from the machine's namespace.
fn reaches(networks: &Networks, id: &VmId, server: &TcpListener, address: &str) -> bool {
    let to: IpAddr = address.parse().unwrap();
    let to = SocketAddr::new(to, server.local_addr().unwrap().port());
    let place = networks.attach(id).unwrap().unwrap();
    let knock = std::thread::spawn(move || {
        place.enter().unwrap();
        TcpStream::connect_timeout(&to, PATIENCE)
    });
    knock.join().unwrap().is_ok()
}

#[test]
fn servers_outside_are_reached_by_both_kinds_of_addresses() {
    if !pods::possible() {
        return;
    }
    let (run, outside) = (tempfile::tempdir().unwrap(), Place::new());
    let namespace = host(&outside).within(|| File::open("/proc/thread-self/ns/net").unwrap());
    let keeper = keeper_on(&namespace, run.path());
    let range = Some("10.199.5.0/24".parse().unwrap());
    let networks = Networks::new(run.path(), keeper, range);
    let id = VmId {
        namespace: "default".to_owned(),
        name: "vm".to_owned(),
        uid: UID.to_owned(),
    };
    plan(&networks, run.path(), &id);
    let server = outside.listen(0);
    assert!(reaches(&networks, &id, &server, "192.0.2.2"));
    assert!(reaches(&networks, &id, &server, "2001:db8::2"));

    drop(networks);
    let lock = File::open(run.path().join("network.lock")).unwrap();
    eventually("the end of the keeper of networks", || {
        Ok(Look::of(lock.try_lock().ok(), || "it is there".to_owned()))
    })
    .unwrap();
}
