//! A machine's packet filter: what its plan means as a ruleset of nftables, in the pod's namespace.
//!
//! ```text
//!   masquerade   eth0 ─► pod's address becomes the guest's ─► tap0        table inet rvm
//!                eth0 ◄─ guest's address becomes the pod's ◄─ tap0
//!   bridge       eth0 ◄── frames, as they are, if they are the guest's ──► tap0    table bridge rvm
//! ```
//!
//! The guest is hostile: it sends from its own addresses or not at all, nobody's name server or router is imitated, and what it
//! says to DHCP servers and routers ends here (the responder has read it from the tap before any rule sees it).
//! A ruleset is text in nftables' own language, since that is what an administrator reads in `nft list ruleset`; all that
//! goes into it are addresses, numbers and constants. It replaces its table as a whole, in one transaction.

use std::fmt::Write as _;

use super::model::{Binding, POD_LINK, Plan, Port, Protocol, TAP};

/// The table of a plan's rules, in the family of its binding.
const TABLE: &str = "rvm";

/// The ruleset that makes a namespace treat its guest as the plan says.
pub fn ruleset(plan: &Plan) -> String {
    match plan.binding {
        Binding::Masquerade => masquerade(plan),
        Binding::Bridge => bridge(plan),
    }
}

/// A table that replaces the one of its name.
pub(super) fn table(family: &str, name: &str, body: &str) -> String {
    // Deleting needs that it is there; making it twice is no error.
    format!("add table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{\n{body}}}\n")
}

fn masquerade(plan: &Plan) -> String {
    let (pod, guest) = (&plan.pod, &plan.guest);
    let mut dnat = String::new();
    for ports in let_in(&plan.ports) {
        let _ = writeln!(dnat, "    ip daddr {}{ports} dnat ip to {}", pod.v4, guest.v4);
        if plan.has_v6() {
            let _ = writeln!(dnat, "    ip6 daddr {}{ports} dnat ip6 to {}", pod.v6, guest.v6);
        }
    }
    let mut snat6 = String::new();
    if plan.has_v6() {
        let _ = writeln!(
            snat6,
            "    oifname \"{POD_LINK}\" ip6 saddr {} snat ip6 to {}",
            guest.v6, pod.v6
        );
    }
    // The rules for the tap are for a guest that speaks to itself by the pod's address.
    let body = format!(
        r#"  chain to_guest {{
    type nat hook prerouting priority dstnat; policy accept;
{dnat}  }}
  chain from_guest {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{POD_LINK}" ip saddr {guest4} snat ip to {pod4}
{snat6}    oifname "{TAP}" ip saddr {guest4} snat ip to {gateway4}
    oifname "{TAP}" ip6 saddr {guest6} snat ip6 to {gateway6}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state invalid drop
    iifname "{TAP}" ip saddr != {guest4} drop
    iifname "{TAP}" ip6 saddr != {guest6} drop
    ct state established,related accept
    iifname "{TAP}" oifname "{POD_LINK}" accept
    ct status dnat accept
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    meta l4proto {{ icmp, ipv6-icmp }} accept
    iifname "{TAP}" udp dport {{ 67, 547 }} drop
    iifname "{TAP}" meta l4proto {{ tcp, udp }} th dport 53 accept
    meta l4proto tcp reject with tcp reset
    reject
  }}
"#,
        guest4 = guest.v4,
        guest6 = guest.v6,
        pod4 = pod.v4,
        gateway4 = guest.v4_gateway,
        gateway6 = guest.v6_gateway,
    );
    table("inet", TABLE, &body)
}

/// The matches for what is let in, one for each protocol; one for everything where no port is named.
fn let_in(ports: &[Port]) -> Vec<String> {
    let of = |protocol: Protocol, name: &str| {
        let mut numbers: Vec<u16> = ports
            .iter()
            .filter(|port| port.protocol == protocol)
            .map(|port| port.port)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
        (!numbers.is_empty()).then(|| format!(" {name} dport {{ {} }}", numbers.join(", ")))
    };
    if ports.is_empty() {
        return vec![String::new()];
    }
    [of(Protocol::Tcp, "tcp"), of(Protocol::Udp, "udp")]
        .into_iter()
        .flatten()
        .collect()
}

fn bridge(plan: &Plan) -> String {
    // One without an address of the kind says nothing by it but to its own link.
    let own6 = if plan.has_v6() {
        format!("::, {}, fe80::/10", plan.pod.v6)
    } else {
        "::, fe80::/10".to_owned()
    };
    // An IPv6 neighbour's advertisement names its target behind 8 bytes: the guest speaks for its addresses only.
    let body = format!(
        r#"  chain from_guest {{
    type filter hook prerouting priority filter; policy accept;
    iifname != "{TAP}" accept
    ether saddr != {mac} drop
    ether type arp arp saddr ip != {{ 0.0.0.0, {pod4} }} drop
    ether type arp accept
    udp dport {{ 67, 547 }} drop
    udp sport {{ 67, 547 }} drop
    icmpv6 type {{ nd-router-solicit, nd-router-advert }} drop
    icmpv6 type nd-neighbor-advert @th,64,16 != 0xfe80 @th,64,128 != {target} drop
    ip saddr {pod4} accept
    ip6 saddr {{ {own6} }} accept
    drop
  }}
  chain to_guest {{
    type filter hook postrouting priority filter; policy accept;
    oifname "{TAP}" udp sport {{ 67, 547 }} drop
    oifname "{TAP}" icmpv6 type nd-router-advert drop
  }}
"#,
        mac = plan.mac,
        pod4 = plan.pod.v4,
        target = format_args!("{:#x}", u128::from(plan.pod.v6)),
    );
    table("bridge", TABLE, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::sample;

    #[test]
    fn a_masquerade_lets_everything_in_unless_ports_are_named() {
        let all = ruleset(&sample::masquerade());
        assert!(
            all.contains("    ip daddr 10.244.0.7 dnat ip to 10.0.2.2\n"),
            "{all}"
        );
        let port = |protocol, port| Port { protocol, port };
        let plan = Plan {
            ports: vec![
                port(Protocol::Udp, 53),
                port(Protocol::Tcp, 80),
                port(Protocol::Tcp, 22),
                port(Protocol::Tcp, 80),
            ],
            ..sample::masquerade()
        };
        let some = ruleset(&plan);
        let lines: Vec<_> = some.lines().filter(|line| line.contains("dnat ip")).collect();
        assert_eq!(
            lines,
            [
                "    ip daddr 10.244.0.7 tcp dport { 22, 80 } dnat ip to 10.0.2.2",
                "    ip6 daddr fd00:10:244::7 tcp dport { 22, 80 } dnat ip6 to fd10:0:2::2",
                "    ip daddr 10.244.0.7 udp dport { 53 } dnat ip to 10.0.2.2",
                "    ip6 daddr fd00:10:244::7 udp dport { 53 } dnat ip6 to fd10:0:2::2",
            ]
        );
    }

    #[test]
    fn a_ruleset_replaces_its_table() {
        let text = ruleset(&sample::masquerade());
        assert!(text.starts_with("add table inet rvm\ndelete table inet rvm\ntable inet rvm {\n"));
        let text = ruleset(&sample::bridge());
        assert!(text.starts_with("add table bridge rvm\ndelete table bridge rvm\ntable bridge rvm {\n"));
    }

    #[test]
    fn a_bridged_guest_without_ipv6_speaks_it_on_its_own_link_only() {
        let mut plan = sample::bridge();
        plan.pod.v6 = std::net::Ipv6Addr::UNSPECIFIED;
        let text = ruleset(&plan);
        assert!(text.contains("ip6 saddr { ::, fe80::/10 } accept"), "{text}");
    }

    #[test]
    fn a_bridged_guest_sends_as_itself_only() {
        let text = ruleset(&sample::bridge());
        assert!(text.contains("ether saddr != 02:11:22:33:44:55 drop"));
        assert!(
            text.contains("@th,64,128 != 0xfd000010024400000000000000000007 drop"),
            "{text}"
        );
    }
}
