//! Rules and policies in real namespaces: a node, two pods beside, and a pod with its guest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pods;

use std::net::{Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use pods::Place;
use rvm_handler::networks::model::{Addressing, Binding, MASQUERADE, Plan, Port, Protocol};
use rvm_handler::networks::policy::{self, Isolation, Labels, Pod};
use rvm_handler::networks::{nft, rules};
use serde_json::json;

const POD: Addressing = Addressing {
    v4: Ipv4Addr::new(10, 244, 0, 7),
    v4_prefix: 24,
    v4_gateway: Ipv4Addr::new(10, 244, 0, 1),
    v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 7),
    v6_prefix: 64,
    v6_gateway: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 1),
};
const POD4: &str = "10.244.0.7";
const POD6: &str = "fd00:10:244::7";
const GUEST_MAC: &str = "02:11:22:33:44:55";

fn plan(binding: Binding) -> Plan {
    let guest = match binding {
        Binding::Masquerade => MASQUERADE,
        Binding::Bridge => POD,
    };
    Plan {
        network: "default".to_owned(),
        binding,
        mac: GUEST_MAC.parse().unwrap(),
        queues: 1,
        mtu: 1500,
        pod: POD,
        guest,
        dns: vec![],
        search: vec![],
        hostname: "vm".to_owned(),
        ports: vec![],
    }
}

/// A node with three pods; the last one has a guest.
struct Net {
    node: Place,
    friend: Place,
    stranger: Place,
    pod: Place,
    guest: Place,
}

impl Net {
    fn new() -> Self {
        let [node, friend, stranger, pod, guest] = std::array::from_fn(|_| Place::new());
        node.ip("link add rvm0 type bridge");
        node.ip("link set rvm0 up");
        node.addresses("rvm0", &["10.244.0.1/24", "fd00:10:244::1/64"]);
        for (name, pod) in [("a", &friend), ("b", &stranger), ("c", &pod)] {
            node.join(&format!("pod-{name}"), pod, "eth0");
            node.ip(&format!("link set pod-{name} master rvm0"));
        }
        friend.addresses("eth0", &["10.244.0.8/24", "fd00:10:244::8/64"]);
        stranger.addresses("eth0", &["10.244.0.9/24", "fd00:10:244::9/64"]);
        pod.join("tap0", &guest, "eth0");
        guest.ip(&format!("link set eth0 address {GUEST_MAC}"));
        Self {
            node,
            friend,
            stranger,
            pod,
            guest,
        }
    }

    fn masquerade() -> Self {
        let net = Self::new();
        net.pod.addresses("eth0", &["10.244.0.7/24", "fd00:10:244::7/64"]);
        net.pod.addresses("tap0", &["10.0.2.1/24", "fd10:0:2::1/120"]);
        net.pod.set("ipv4/ip_forward", "1");
        net.pod.set("ipv6/conf/all/forwarding", "1");
        net.guest.addresses("eth0", &["10.0.2.2/24", "fd10:0:2::2/120"]);
        net.guest.ip("route add default via 10.0.2.1");
        net.guest.ip("-6 route add default via fd10:0:2::1");
        net.load(&rules::ruleset(&plan(Binding::Masquerade)));
        net
    }

    fn bridge() -> Self {
        let net = Self::new();
        net.pod.ip("link add br0 type bridge");
        net.pod.ip("link set br0 up");
        net.pod.ip("link set eth0 master br0");
        net.pod.ip("link set tap0 master br0");
        net.guest
            .addresses("eth0", &["10.244.0.7/24", "fd00:10:244::7/64"]);
        net.load(&rules::ruleset(&plan(Binding::Bridge)));
        net
    }

    fn load(&self, ruleset: &str) {
        self.pod.within(|| nft::apply(ruleset)).unwrap();
    }
}

/// The friend may speak to port 80 of the pod, and nobody else to anything.
fn only_the_friend() -> Isolation {
    let policy: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"podSelector": {}, "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": 80}],
        }]},
    }))
    .unwrap();
    let pod = |app: &str, last: u8| Pod {
        namespace: "default".to_owned(),
        labels: Labels::from([("app".to_owned(), app.to_owned())]),
        v4: Ipv4Addr::new(10, 244, 0, last),
        v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, last.into()),
    };
    let pods = [pod("db", 7), pod("friend", 8), pod("stranger", 9)];
    policy::isolation(
        &pods[0],
        &[policy],
        &pods,
        &[("default".to_owned(), Labels::new())].into(),
    )
}

#[test]
fn a_masqueraded_guest_is_reached_and_reaches_as_its_pod() {
    if !pods::possible() {
        return;
    }
    let net = Net::masquerade();
    let inside = net.guest.listen(80);
    assert_eq!(
        net.friend.reaches(POD4, &inside, true).unwrap().to_string(),
        "10.244.0.8"
    );
    assert_eq!(
        net.friend.reaches(POD6, &inside, true).unwrap().to_string(),
        "fd00:10:244::8"
    );
    let outside = net.friend.listen(8080);
    assert_eq!(
        net.guest
            .reaches("10.244.0.8", &outside, true)
            .unwrap()
            .to_string(),
        POD4
    );
    assert_eq!(
        net.guest
            .reaches("fd00:10:244::8", &outside, true)
            .unwrap()
            .to_string(),
        POD6
    );
    assert_eq!(
        net.guest.reaches(POD4, &inside, true).unwrap().to_string(),
        "10.0.2.1",
        "itself, by its pod"
    );
}

#[test]
fn ports_that_are_not_named_are_closed() {
    if !pods::possible() {
        return;
    }
    let net = Net::masquerade();
    let (web, shell) = (net.guest.listen(80), net.guest.listen(22));
    assert!(net.friend.reaches(POD4, &web, true).is_some());
    let named = Plan {
        ports: vec![Port {
            protocol: Protocol::Tcp,
            port: 22,
        }],
        ..plan(Binding::Masquerade)
    };
    net.load(&rules::ruleset(&named));
    assert!(net.friend.reaches(POD4, &shell, true).is_some());
    assert!(net.friend.reaches(POD6, &shell, true).is_some());
    assert!(net.friend.reaches(POD4, &web, false).is_none());
    assert!(net.friend.reaches(POD6, &web, false).is_none());
}

#[test]
fn a_masqueraded_guest_cannot_send_as_somebody_else() {
    if !pods::possible() {
        return;
    }
    let net = Net::masquerade();
    let outside = net.friend.listen(8080);
    assert!(net.guest.reaches("10.244.0.8", &outside, true).is_some());
    net.guest.ip("addr add 10.0.2.77/24 dev eth0");
    net.guest.ip("route replace default via 10.0.2.1 src 10.0.2.77");
    assert!(net.guest.reaches("10.244.0.8", &outside, false).is_none());
    net.guest.ip("route replace default via 10.0.2.1 src 10.0.2.2");
    assert!(net.guest.reaches("10.244.0.8", &outside, true).is_some());
}

#[test]
fn a_policy_keeps_one_from_the_other() {
    if !pods::possible() {
        return;
    }
    let net = Net::masquerade();
    let (web, shell) = (net.guest.listen(80), net.guest.listen(22));
    let plan = plan(Binding::Masquerade);
    assert!(net.stranger.reaches(POD4, &web, true).is_some());
    net.load(&policy::ruleset(&plan, &only_the_friend()));
    assert!(net.friend.reaches(POD4, &web, true).is_some());
    assert!(net.friend.reaches(POD6, &web, true).is_some());
    assert!(
        net.node.reaches(POD4, &shell, true).is_some(),
        "the node is let in"
    );
    assert!(net.friend.reaches(POD4, &shell, false).is_none());
    assert!(net.stranger.reaches(POD4, &web, false).is_none());
    assert!(net.stranger.reaches(POD6, &web, false).is_none());
    let outside = net.stranger.listen(8080);
    assert!(
        net.guest.reaches("10.244.0.9", &outside, true).is_some(),
        "nothing is said of egress"
    );
    net.load(&policy::ruleset(&plan, &Isolation::default()));
    assert!(net.stranger.reaches(POD4, &web, true).is_some());
}

#[test]
fn a_bridged_guest_is_its_pod_and_nobody_else() {
    if !pods::possible() {
        return;
    }
    let net = Net::bridge();
    let (inside, outside) = (net.guest.listen(80), net.friend.listen(8080));
    assert_eq!(
        net.friend.reaches(POD4, &inside, true).unwrap().to_string(),
        "10.244.0.8"
    );
    assert_eq!(
        net.friend.reaches(POD6, &inside, true).unwrap().to_string(),
        "fd00:10:244::8"
    );
    assert_eq!(
        net.guest
            .reaches("10.244.0.8", &outside, true)
            .unwrap()
            .to_string(),
        POD4
    );
    net.guest.ip("addr add 10.244.0.66/24 dev eth0");
    net.guest
        .ip("route replace 10.244.0.8/32 dev eth0 src 10.244.0.66");
    assert!(net.guest.reaches("10.244.0.8", &outside, false).is_none());
    net.guest.ip("route del 10.244.0.8/32 dev eth0");
    assert!(net.guest.reaches("10.244.0.8", &outside, true).is_some());
    net.guest.ip("link set eth0 address 02:66:66:66:66:66");
    assert!(net.guest.reaches("10.244.0.8", &outside, false).is_none());
}

#[test]
fn a_policy_holds_for_a_bridged_guest_too() {
    if !pods::possible() {
        return;
    }
    let net = Net::bridge();
    if net
        .pod
        .within(|| std::fs::metadata("/proc/sys/net/bridge").is_err())
    {
        eprintln!("skipped: policies for bridged guests need the kernel's br_netfilter");
        return;
    }
    net.pod.set("bridge/bridge-nf-call-iptables", "1");
    net.pod.set("bridge/bridge-nf-call-ip6tables", "1");
    let web = net.guest.listen(80);
    assert!(net.stranger.reaches(POD4, &web, true).is_some());
    net.load(&policy::ruleset(&plan(Binding::Bridge), &only_the_friend()));
    assert!(net.friend.reaches(POD4, &web, true).is_some());
    assert!(net.friend.reaches(POD6, &web, true).is_some());
    assert!(net.stranger.reaches(POD4, &web, false).is_none());
    assert!(net.stranger.reaches(POD6, &web, false).is_none());
}
