//! The arguments of `rvm expose`: as virtctl has them.

use clap::Args;

/// Arguments of `expose`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --port the Service has the ports that the machine's interface on its pod's network names. \
    A Service leads to the pods of machines, which rvm's do not have yet: what it is made for waits for them; \
    rvm port-forward reaches a guest without."
)]
pub struct Expose {
    /// What NAME is: vmi, vm or vmirs
    #[arg(value_name = "TYPE")]
    pub kind: String,
    /// The machine, or the replica set
    #[arg(value_name = "NAME")]
    pub target: String,
    /// The Service's name
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// The port that it serves
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The guest's port, a number or a name [default: --port]
    #[arg(long, value_name = "PORT")]
    pub target_port: Option<String>,
    /// The port's name
    #[arg(long, value_name = "NAME")]
    pub port_name: Option<String>,
    /// TCP or UDP
    #[arg(long, value_name = "PROTOCOL", default_value = "TCP")]
    pub protocol: String,
    /// ClusterIP, NodePort or LoadBalancer
    #[arg(long = "type", value_name = "TYPE", default_value = "ClusterIP")]
    pub service: String,
    /// The Service's address in the cluster; None has no address [default: any free one]
    #[arg(long, value_name = "IP")]
    pub cluster_ip: Option<String>,
    /// One more address, which something outside the cluster leads to a node
    #[arg(long, value_name = "IP")]
    pub external_ip: Option<String>,
    /// IPv4, IPv6, or both in the order of preference: IPv4,IPv6
    #[arg(long, value_name = "FAMILY")]
    pub ip_family: Option<String>,
    /// SingleStack, PreferDualStack or RequireDualStack
    #[arg(long, value_name = "POLICY")]
    pub ip_family_policy: Option<String>,
}
