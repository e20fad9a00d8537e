//! What policies mean, as the table of a pod.

use std::slice::from_ref;

use serde_json::{Value, json};

use super::*;
use crate::networks::sample;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn pod(namespace: &str, app: &str, last: u8) -> Pod {
    Pod {
        namespace: namespace.to_owned(),
        labels: labels(&[("app", app)]),
        v4: Ipv4Addr::new(10, 244, 0, last),
        v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, last.into()),
    }
}

fn policy(spec: &Value) -> NetworkPolicy {
    serde_json::from_value(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
    }))
    .unwrap()
}

/// What the policies mean for the pod `db` of the namespace `shop`.
fn meaning(specs: &[Value]) -> Isolation {
    let pods = [
        pod("shop", "db", 7),
        pod("shop", "web", 8),
        pod("lab", "web", 9),
        pod("lab", "probe", 10),
    ];
    let namespaces = BTreeMap::from([
        ("shop".to_owned(), labels(&[("tier", "prod")])),
        ("lab".to_owned(), labels(&[("tier", "test")])),
    ]);
    let policies: Vec<_> = specs.iter().map(policy).collect();
    isolation(&pods[0], &policies, &pods, &namespaces)
}

/// The lines of one chain.
fn rules(specs: &[Value], chain: &str) -> Vec<String> {
    let text = ruleset(&sample::masquerade(), &meaning(specs));
    let lines = text
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != format!("chain {chain} {{"));
    lines
        .skip(1)
        .take_while(|line| *line != "}")
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_pod_that_no_policy_selects_is_open() {
    assert_eq!(meaning(&[]), Isolation::default());
    let other = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]});
    assert_eq!(meaning(&[other]), Isolation::default());
}

#[test]
fn a_pod_that_is_selected_hears_nothing_but_what_is_allowed() {
    let closed = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    assert_eq!(rules(from_ref(&closed), "ingress"), ["drop"]);
    assert_eq!(rules(from_ref(&closed), "egress"), Vec::<String>::new());
    let web = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]},
    ]});
    assert_eq!(
        rules(&[closed, web], "ingress"),
        [
            "ip saddr { 10.244.0.8 } tcp dport 5432-5432 return",
            "ip6 saddr { fd00:10:244::8 } tcp dport 5432-5432 return",
            "drop",
        ]
    );
}

#[test]
fn namespaces_and_pods_are_selected_together_or_apart() {
    let web = json!({"matchLabels": {"app": "web"}});
    let test = json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["test"]}]});
    let both =
        json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": test, "podSelector": web}]}]});
    assert_eq!(rules(&[both], "ingress")[0], "ip saddr { 10.244.0.9 } return");
    let either = json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": test}, {"podSelector": web}]}]});
    assert_eq!(
        rules(&[either], "ingress")[0],
        "ip saddr { 10.244.0.8, 10.244.0.9, 10.244.0.10 } return"
    );
    let nobody = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "none"}}}]}]});
    assert_eq!(rules(&[nobody], "ingress"), ["drop"]);
}

#[test]
fn blocks_have_exceptions_and_ports_have_ranges() {
    let block = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}}, {"ipBlock": {"cidr": "fd00::/8"}}],
        "ports": [{"protocol": "UDP", "port": 53}, {"port": 8000, "endPort": 8010}],
    }]});
    let v4 = "ip daddr 10.0.0.0/8 ip daddr != 10.1.0.0/16 ip daddr != 10.2.0.0/16";
    assert_eq!(
        rules(&[block], "egress"),
        [
            format!("{v4} udp dport 53-53 return"),
            format!("{v4} tcp dport 8000-8010 return"),
            "ip6 daddr fd00::/8 udp dport 53-53 return".to_owned(),
            "ip6 daddr fd00::/8 tcp dport 8000-8010 return".to_owned(),
            "drop".to_owned(),
        ]
    );
}

#[test]
fn a_rule_without_peers_allows_everybody() {
    let port = json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "UDP"}]}]});
    assert_eq!(
        rules(&[port], "ingress"),
        ["meta nfproto { ipv4, ipv6 } meta l4proto udp return", "drop"]
    );
    let all = json!({"podSelector": {}, "ingress": [{}]});
    assert_eq!(
        rules(&[all], "ingress"),
        ["meta nfproto { ipv4, ipv6 } return", "drop"]
    );
}

#[test]
fn egress_is_meant_where_rules_are_written_for_it() {
    let implied = json!({"podSelector": {}, "egress": [{}]});
    assert!(meaning(&[implied]).egress.is_some());
    let none = json!({"podSelector": {}, "ingress": [{}]});
    assert_eq!(meaning(&[none]).egress, None);
}

#[test]
fn what_cannot_be_read_allows_nothing() {
    let named = json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]});
    assert_eq!(rules(&[named], "ingress"), ["drop"]);
    let nonsense = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]});
    assert_eq!(rules(&[nonsense], "ingress"), ["drop"]);
}
