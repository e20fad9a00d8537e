//! NetworkPolicies: from what the cluster says to what one pod may hear and say, and from that to a ruleset.
//!
//! In a cluster that is the business of its network plugin. Local mode has none, so the pod's namespace keeps the rules itself, beside
//! those of its plan (`rules.rs`): a packet has to pass both. As Kubernetes has it, a pod is open in a direction until a policy
//! selects it for that direction; then only what some policy allows passes. Answers always do, and so does what comes from the node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};

use super::model::Plan;
use super::rules::table;

/// The table of a pod's policies.
const TABLE: &str = "rvm_policy";

/// Labels, of a pod or a namespace.
pub type Labels = BTreeMap<String, String>;

/// A pod as policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: Labels,
    /// By which others see it.
    pub v4: Ipv4Addr,
    /// The same in IPv6.
    pub v6: Ipv6Addr,
}

/// What a pod may hear and say; nothing where it is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Isolation {
    ingress: Option<Vec<Allowed>>,
    egress: Option<Vec<Allowed>>,
}

/// Peers, and the ports by which they are allowed; all where none is named.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Allowed {
    peers: Peers,
    ports: Vec<Ports>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Peers {
    All,
    Some {
        pods: BTreeSet<IpAddr>,
        blocks: Vec<(Network, Vec<Network>)>,
    },
}

/// Ports of a protocol, from one to another; all where none is named.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ports {
    protocol: &'static str,
    range: Option<(u16, u16)>,
}

/// A policy that cannot be kept to. Admission lets none of them in; a policy that is there anyway isolates and allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A block that is no network.
    #[error("'{0}' is not a network in CIDR notation")]
    Cidr(String),
    /// A protocol without ports.
    #[error("the protocol '{0}' is not supported: TCP, UDP and SCTP are")]
    Protocol(String),
    /// A port by name.
    #[error("the port '{0}' is a name; only numbers are supported")]
    NamedPort(String),
    /// A number that is none of a port.
    #[error("{0} is not a port")]
    Port(i32),
    /// A selector that selects in a way that is not known.
    #[error("the selector cannot be used: {0}")]
    Selector(String),
}

/// A network: an address, and how many bits of it count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network(IpAddr, u8);

/// What the policies of a cluster mean for one of its pods.
pub fn isolation(
    me: &Pod,
    policies: &[NetworkPolicy],
    pods: &[Pod],
    namespaces: &BTreeMap<String, Labels>,
) -> Isolation {
    let mut isolation = Isolation::default();
    for policy in policies {
        let Some(spec) = policy.spec.as_ref() else {
            continue;
        };
        let here = policy.metadata.namespace.as_deref() == Some(&me.namespace);
        let everybody = LabelSelector::default();
        let selector = spec.pod_selector.as_ref().unwrap_or(&everybody);
        // A selector that cannot be read selects: what should be kept apart is not let together by a slip.
        if !here || !matches(selector, &me.labels).unwrap_or(true) {
            continue;
        }
        let cluster = Cluster {
            namespace: &me.namespace,
            pods,
            namespaces,
        };
        let types = spec.policy_types.iter().flatten();
        let types: BTreeSet<&str> = types.map(String::as_str).collect();
        let egress = spec.egress.as_deref().unwrap_or_default();
        if types.is_empty() || types.contains("Ingress") {
            let rules = spec.ingress.iter().flatten();
            let allowed =
                rules.filter_map(|rule| cluster.allowed(rule.from.as_deref(), rule.ports.as_deref()).ok());
            isolation.ingress.get_or_insert_default().extend(allowed);
        }
        if types.contains("Egress") || (types.is_empty() && !egress.is_empty()) {
            let rules = egress.iter();
            let allowed =
                rules.filter_map(|rule| cluster.allowed(rule.to.as_deref(), rule.ports.as_deref()).ok());
            isolation.egress.get_or_insert_default().extend(allowed);
        }
    }
    isolation
}

// === impl Isolation ===

impl Isolation {
    /// Of a pod that may neither hear nor say anything.
    pub fn complete() -> Self {
        Self {
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
        }
    }
}

fn matches(selector: &LabelSelector, labels: &Labels) -> Result<bool, PolicyError> {
    let selector = Selector::try_from(selector.clone());
    let selector = selector.map_err(|error| PolicyError::Selector(error.to_string()))?;
    Ok(selector.matches(labels))
}

/// Where a policy looks for its peers.
struct Cluster<'a> {
    namespace: &'a str,
    pods: &'a [Pod],
    namespaces: &'a BTreeMap<String, Labels>,
}

impl Cluster<'_> {
    fn allowed(
        &self,
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
    ) -> Result<Allowed, PolicyError> {
        let ports = ports.unwrap_or_default().iter().map(Ports::read);
        let ports = ports.collect::<Result<_, _>>()?;
        let peers = peers.unwrap_or_default();
        if peers.is_empty() {
            let peers = Peers::All;
            return Ok(Allowed { peers, ports });
        }
        let (mut found, mut blocks) = (BTreeSet::new(), Vec::new());
        for peer in peers {
            match &peer.ip_block {
                Some(block) => blocks.push(Network::of_block(block)?),
                None => {
                    for pod in self.pods {
                        if self.is(pod, peer)? {
                            found.extend([IpAddr::V4(pod.v4), IpAddr::V6(pod.v6)]);
                        }
                    }
                }
            }
        }
        let peers = Peers::Some { pods: found, blocks };
        Ok(Allowed { peers, ports })
    }

    fn is(&self, pod: &Pod, peer: &NetworkPolicyPeer) -> Result<bool, PolicyError> {
        let none = Labels::new();
        let place = match &peer.namespace_selector {
            None => pod.namespace == self.namespace,
            Some(selector) => matches(selector, self.namespaces.get(&pod.namespace).unwrap_or(&none))?,
        };
        let itself = peer.pod_selector.as_ref();
        Ok(place && itself.map_or(Ok(true), |selector| matches(selector, &pod.labels))?)
    }
}

impl Ports {
    fn read(port: &NetworkPolicyPort) -> Result<Self, PolicyError> {
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => "tcp",
            "UDP" => "udp",
            "SCTP" => "sctp",
            other => return Err(PolicyError::Protocol(other.to_owned())),
        };
        let number = |number: i32| match u16::try_from(number) {
            Ok(number @ 1..) => Ok(number),
            _ => Err(PolicyError::Port(number)),
        };
        let range = match &port.port {
            None => None,
            Some(IntOrString::String(name)) => return Err(PolicyError::NamedPort(name.clone())),
            Some(IntOrString::Int(first)) => {
                let (first, last) = (number(*first)?, number(port.end_port.unwrap_or(*first))?);
                if last < first {
                    return Err(PolicyError::Port(last.into()));
                }
                Some((first, last))
            }
        };
        Ok(Self { protocol, range })
    }

    fn rule(&self) -> String {
        match self.range {
            None => format!(" meta l4proto {}", self.protocol),
            Some((first, last)) => format!(" {} dport {first}-{last}", self.protocol),
        }
    }
}

impl Network {
    fn read(text: &str) -> Result<Self, PolicyError> {
        let wrong = || PolicyError::Cidr(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits: u8 = bits.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most {
            return Err(wrong());
        }
        Ok(Self(address, bits))
    }

    fn of_block(block: &IPBlock) -> Result<(Self, Vec<Self>), PolicyError> {
        let except = block.except.iter().flatten().map(|text| Self::read(text));
        Ok((Self::read(&block.cidr)?, except.collect::<Result<_, _>>()?))
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

// === the ruleset ===

/// The ruleset that keeps a pod to this. It is made of what other pods have for addresses, and has to be made anew when they change.
pub fn ruleset(plan: &Plan, isolation: &Isolation) -> String {
    let (v4, v6) = (plan.guest.v4, plan.guest.v6);
    let mut body = String::from(
        "  chain forward {\n    type filter hook forward priority filter - 10; policy accept;\n    \
         ct state established,related accept\n    \
         icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n",
    );
    // No policy keeps a pod from itself.
    let _ = writeln!(
        body,
        "    ip saddr {v4} ip daddr {v4} accept\n    ip6 saddr {v6} ip6 daddr {v6} accept"
    );
    if isolation.ingress.is_some() {
        let _ = writeln!(
            body,
            "    ip saddr {} ip daddr {v4} accept\n    ip6 saddr {} ip6 daddr {v6} accept",
            plan.pod.v4_gateway, plan.pod.v6_gateway
        );
        let _ = writeln!(
            body,
            "    ip daddr {v4} jump ingress\n    ip6 daddr {v6} jump ingress"
        );
    }
    if isolation.egress.is_some() {
        let _ = writeln!(
            body,
            "    ip saddr {v4} jump egress\n    ip6 saddr {v6} jump egress"
        );
    }
    body.push_str("  }\n");
    for (name, end, allowed) in [
        ("ingress", "saddr", &isolation.ingress),
        ("egress", "daddr", &isolation.egress),
    ] {
        if let Some(allowed) = allowed {
            chain(&mut body, name, end, allowed);
        }
    }
    table("inet", TABLE, &body)
}

/// What is allowed goes back to where it came from; a direction that is not looked at yet is looked at there.
fn chain(body: &mut String, name: &str, end: &str, allowed: &[Allowed]) {
    let _ = writeln!(body, "  chain {name} {{");
    for allowed in allowed {
        let ports: Vec<String> = match allowed.ports.is_empty() {
            true => vec![String::new()],
            false => allowed.ports.iter().map(Ports::rule).collect(),
        };
        for peers in allowed.peers.rules(end) {
            for ports in &ports {
                let _ = writeln!(body, "    {peers}{ports} return");
            }
        }
    }
    let _ = writeln!(body, "    drop\n  }}");
}

impl Peers {
    fn rules(&self, end: &str) -> Vec<String> {
        let Self::Some { pods, blocks } = self else {
            return vec!["meta nfproto { ipv4, ipv6 }".to_owned()];
        };
        let mut rules = Vec::new();
        for of in ["ip", "ip6"] {
            let some: Vec<String> = pods
                .iter()
                .filter(|address| family(**address) == of)
                .map(IpAddr::to_string)
                .collect();
            if !some.is_empty() {
                rules.push(format!("{of} {end} {{ {} }}", some.join(", ")));
            }
        }
        for (Network(address, bits), except) in blocks {
            let of = family(*address);
            let mut rule = format!("{of} {end} {address}/{bits}");
            for Network(address, bits) in except {
                if family(*address) == of {
                    let _ = write!(rule, " {of} {end} != {address}/{bits}");
                }
            }
            rules.push(rule);
        }
        rules
    }
}

#[cfg(test)]
mod tests;
