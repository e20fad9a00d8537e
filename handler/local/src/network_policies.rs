//! NetworkPolicies, with the rules that kube-apiserver has for them, and one more: ports are numbers.
//!
//! The handler keeps machines to what is let in here, so what it could not keep to is refused.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::builtin::base;
use crate::names;
use crate::resource::{Admission, Resource};
use crate::status::Cause;
use crate::table::Column;

const TYPES: [&str; 2] = ["Ingress", "Egress"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// What a policy promises.
struct PolicyRules;

impl Admission for PolicyRules {
    /// Says which directions it is about, where its author left that to what it has rules for.
    fn default(&self, object: &mut Value, _before: Option<&Value>) {
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
            return;
        };
        let says = |field: &str| {
            spec.get(field)
                .and_then(Value::as_array)
                .is_some_and(|list| !list.is_empty())
        };
        if !says("policyTypes") {
            let types = if says("egress") { &TYPES[..] } else { &TYPES[..1] };
            let types = json!(types);
            spec.insert("policyTypes".to_owned(), types);
        }
    }

    fn validate(&self, object: &Value, _before: Option<&Value>) -> Vec<Cause> {
        match NetworkPolicy::deserialize(object) {
            Ok(policy) => policy.spec.map_or_else(Vec::new, |spec| wrongs(&spec)),
            Err(error) => vec![Cause::invalid("spec", &Value::Null, error.to_string())],
        }
    }
}

fn wrongs(spec: &NetworkPolicySpec) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(selector) = &spec.pod_selector {
        check_selector(selector, "spec.podSelector", &mut causes);
    }
    for (index, kind) in spec.policy_types.iter().flatten().enumerate() {
        check_one_of(kind, &format!("spec.policyTypes[{index}]"), &TYPES, &mut causes);
    }
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = format!("spec.ingress[{index}]");
        check_ports(rule.ports.as_deref(), &path, &mut causes);
        check_peers(rule.from.as_deref(), &format!("{path}.from"), &mut causes);
    }
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let path = format!("spec.egress[{index}]");
        check_ports(rule.ports.as_deref(), &path, &mut causes);
        check_peers(rule.to.as_deref(), &format!("{path}.to"), &mut causes);
    }
    causes
}

fn check_one_of(text: &str, path: &str, known: &[&str], causes: &mut Vec<Cause>) {
    if !known.contains(&text) {
        let known: Vec<String> = known.iter().map(|text| (*text).to_owned()).collect();
        causes.push(Cause::unsupported(path, &json!(text), &known));
    }
}

fn check_ports(ports: Option<&[NetworkPolicyPort]>, path: &str, causes: &mut Vec<Cause>) {
    for (index, port) in ports.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        if let Some(protocol) = &port.protocol {
            check_one_of(protocol, &format!("{path}.protocol"), &PROTOCOLS, causes);
        }
        let is_port = |number: i32| (1..=65535).contains(&number);
        let wrong = "must be between 1 and 65535, inclusive";
        match (&port.port, port.end_port) {
            (None, Some(_)) => {
                let why = "may not be specified when `port` is not specified";
                causes.push(Cause::forbidden(format!("{path}.endPort"), why));
            }
            (Some(IntOrString::String(name)), _) => {
                let why = "is a name; rvm supports numbers only";
                causes.push(Cause::invalid(format!("{path}.port"), &json!(name), why));
            }
            (Some(IntOrString::Int(first)), _) if !is_port(*first) => {
                causes.push(Cause::invalid(format!("{path}.port"), &json!(first), wrong));
            }
            (Some(IntOrString::Int(_)), Some(last)) if !is_port(last) => {
                causes.push(Cause::invalid(format!("{path}.endPort"), &json!(last), wrong));
            }
            (Some(IntOrString::Int(first)), Some(last)) if last < *first => {
                let why = "must be greater than or equal to `port`";
                causes.push(Cause::invalid(format!("{path}.endPort"), &json!(last), why));
            }
            _ => {}
        }
    }
}

fn check_peers(peers: Option<&[NetworkPolicyPeer]>, path: &str, causes: &mut Vec<Cause>) {
    for (index, peer) in peers.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}[{index}]");
        let selectors = [
            ("podSelector", &peer.pod_selector),
            ("namespaceSelector", &peer.namespace_selector),
        ];
        let named = selectors
            .iter()
            .filter_map(|(name, selector)| Some((name, selector.as_ref()?)));
        let before = causes.len();
        let mut count = 0;
        for (name, selector) in named {
            count += 1;
            check_selector(selector, &format!("{path}.{name}"), causes);
        }
        match (&peer.ip_block, count) {
            (None, 0) => causes.push(Cause::required(path, "must specify a peer")),
            (Some(_), 1..) if causes.len() == before => {
                let why = "may not specify both ipBlock and another peer";
                causes.push(Cause::forbidden(path, why));
            }
            (Some(block), 0) => check_block(block, &format!("{path}.ipBlock"), causes),
            _ => {}
        }
    }
}

/// A network: an address, and how many bits of it count.
#[derive(Clone, Copy)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u32) = (address.parse().ok()?, bits.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { address, bits })
    }

    /// Whether all of another one is in it, and something else is, too.
    fn is_beyond(self, other: Self) -> bool {
        let common =
            |one: u128, two: u128, width: u32| self.bits == 0 || (one ^ two) >> (width - self.bits) == 0;
        let same = match (self.address, other.address) {
            (IpAddr::V4(one), IpAddr::V4(two)) => common(u32::from(one).into(), u32::from(two).into(), 32),
            (IpAddr::V6(one), IpAddr::V6(two)) => common(one.into(), two.into(), 128),
            _ => false,
        };
        same && other.bits > self.bits
    }
}

fn check_block(block: &IPBlock, path: &str, causes: &mut Vec<Cause>) {
    let wrong = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let Some(whole) = Network::read(&block.cidr) else {
        causes.push(Cause::invalid(format!("{path}.cidr"), &json!(block.cidr), wrong));
        return;
    };
    for (index, text) in block.except.iter().flatten().enumerate() {
        let path = format!("{path}.except[{index}]");
        match Network::read(text) {
            None => causes.push(Cause::invalid(path, &json!(text), wrong)),
            Some(part) if !whole.is_beyond(part) => {
                let why = format!("must be a strict subset of `cidr` {}", block.cidr);
                causes.push(Cause::invalid(path, &json!(text), why));
            }
            Some(_) => {}
        }
    }
}

fn check_selector(selector: &LabelSelector, path: &str, causes: &mut Vec<Cause>) {
    for (key, value) in selector.match_labels.iter().flatten() {
        check_key(key, &format!("{path}.matchLabels"), causes);
        check_value(value, &format!("{path}.matchLabels[{key}]"), causes);
    }
    for (index, one) in selector.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        check_key(&one.key, &format!("{path}.key"), causes);
        check_one_of(&one.operator, &format!("{path}.operator"), &OPERATORS, causes);
        let values = one.values.as_deref().unwrap_or_default();
        match (one.operator.as_str(), values.is_empty()) {
            ("In" | "NotIn", true) => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{path}.values"), why));
            }
            ("Exists" | "DoesNotExist", false) => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{path}.values"), why));
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            check_value(value, &format!("{path}.values[{index}]"), causes);
        }
    }
}

fn check_key(key: &str, path: &str, causes: &mut Vec<Cause>) {
    let problems = names::qualified_problems(key).into_iter();
    causes.extend(problems.map(|problem| Cause::invalid(path, &json!(key), problem)));
}

fn check_value(value: &str, path: &str, causes: &mut Vec<Cause>) {
    let problems = names::value_problems(value).into_iter();
    causes.extend(problems.map(|problem| Cause::invalid(path, &json!(value), problem)));
}

pub(crate) fn network_policies() -> Resource {
    Resource {
        short_names: vec!["netpol".to_owned()],
        columns: vec![
            Column::made("Pod-Selector", "Which pods it is about", |policy| {
                json!(selector_text(&policy["spec"]["podSelector"]))
            }),
            Column::age(),
        ],
        admission: Some(Arc::new(PolicyRules)),
        ..base::<NetworkPolicy>("networking.k8s.io", "networkpolicies", true)
    }
}

/// A selector as `kubectl` prints it.
fn selector_text(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let others = selector["matchExpressions"].as_array().into_iter().flatten();
    let others = others.map(|one| {
        let values: Vec<String> = one["values"].as_array().into_iter().flatten().map(text).collect();
        let (key, values) = (text(&one["key"]), values.join(","));
        match one["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key,
        }
    });
    let all: Vec<String> = labels.chain(others).collect();
    match all.is_empty() {
        true => "<none>".to_owned(),
        false => all.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a policy with this spec.
    fn said(spec: &Value) -> Vec<String> {
        let causes = PolicyRules.validate(&json!({"metadata": {"name": "p"}, "spec": spec}), None);
        let value = crate::status::Failure::invalid("", "", "", causes).to_value();
        let causes = value["details"]["causes"].as_array().cloned().unwrap_or_default();
        causes
            .iter()
            .map(|cause| {
                format!(
                    "{}: {}",
                    cause["field"].as_str().unwrap(),
                    cause["message"].as_str().unwrap()
                )
            })
            .collect()
    }

    #[test]
    fn what_kubernetes_takes_is_taken() {
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"},
        ]});
        let spec = json!({"podSelector": selector, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{}, {"from": [{"podSelector": {}, "namespaceSelector": {}}], "ports": [{"port": 80}, {"protocol": "UDP"}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"ipBlock": {"cidr": "::/0"}}],
                "ports": [{"protocol": "SCTP", "port": 32000, "endPort": 32768}]}],
        });
        assert_eq!(said(&spec), Vec::<String>::new());
        assert_eq!(selector_text(&spec["podSelector"]), "app=web,tier in (a,b),!old");
        assert_eq!(selector_text(&json!({})), "<none>");
    }

    #[test]
    fn what_could_not_be_kept_to_is_refused_by_its_field() {
        let of_port =
            |port: Value| said(&json!({"podSelector": {}, "ingress": [{"ports": [port]}]})).concat();
        assert!(of_port(json!({"port": "http"})).starts_with("spec.ingress[0].ports[0].port: "));
        assert!(of_port(json!({"port": "http"})).contains("rvm supports numbers only"));
        assert!(of_port(json!({"port": 0})).contains("between 1 and 65535"));
        assert!(of_port(json!({"port": 9, "endPort": 8})).starts_with("spec.ingress[0].ports[0].endPort"));
        assert!(of_port(json!({"endPort": 8})).contains("may not be specified"));
        assert!(of_port(json!({"protocol": "ICMP"})).contains("Unsupported value"));
        let of_peer = |peer: Value| said(&json!({"podSelector": {}, "egress": [{"to": [peer]}]})).concat();
        assert!(of_peer(json!({})).contains("must specify a peer"));
        assert!(of_peer(json!({"ipBlock": {"cidr": "10.0.0.0/33"}})).contains("must be a valid CIDR"));
        let block = |except: &str| json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": [except]}});
        assert!(of_peer(block("11.0.0.0/16")).contains("strict subset"));
        assert!(of_peer(block("10.0.0.0/8")).contains("strict subset"));
        assert!(of_peer(block("fd00::/16")).contains("strict subset"));
        let both = json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}});
        assert!(of_peer(both).contains("may not specify both"));
        let of_selector = |one: Value| said(&json!({"podSelector": {"matchExpressions": [one]}})).concat();
        assert!(of_selector(json!({"key": "a", "operator": "Near"})).contains("Unsupported value"));
        assert!(of_selector(json!({"key": "a", "operator": "In"})).contains("must be specified"));
        assert!(
            of_selector(json!({"key": "a", "operator": "Exists", "values": ["b"]})).contains("may not be")
        );
        assert!(
            said(&json!({"podSelector": {}, "policyTypes": ["Sideways"]}))
                .concat()
                .contains("Unsupported value")
        );
    }

    #[test]
    fn a_policy_says_which_directions_it_is_about() {
        let types = |mut policy: Value| {
            PolicyRules.default(&mut policy, None);
            policy["spec"]["policyTypes"].clone()
        };
        assert_eq!(types(json!({"spec": {"podSelector": {}}})), json!(["Ingress"]));
        assert_eq!(
            types(json!({"spec": {"egress": [{}]}})),
            json!(["Ingress", "Egress"])
        );
        assert_eq!(
            types(json!({"spec": {"policyTypes": ["Egress"]}})),
            json!(["Egress"])
        );
    }
}
