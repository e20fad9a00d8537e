//! The command line: first as it is typed, then resolved into [`Settings`] that need no more looking up.

mod launching;

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use launching::Launching;
use rvm_handler::images::registries::Registries;
use rvm_handler::images::{Mirror, Mirrors};
use rvm_handler::networks::range::Range;
use rvm_handler::node::is_name;
use rvm_handler::volumes::host_disk::Allowed;
use rvm_server::TlsFiles;
use rvm_server::observe::traces::Collector;
use rvm_server::program::LogFormat;
use rvm_types::quantity::Quantity;
use rvmm_spec::AcceleratorChoice;

/// Makes this node's virtual machines match the cluster's wishes.
///
/// Ctrl-C and SIGTERM end the handler and not its machines: a handler that is started again takes them over.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// This node's name [default: the host's]
    #[arg(long, env = "RVM_NODE")]
    node: Option<String>,
    /// Bring an own small Kubernetes API along, kept in the state directory, instead of using a cluster's
    #[arg(long)]
    local: bool,
    /// With --local: the loopback port or address that kubectl reaches
    #[arg(long, value_name = "PORT|127.0.0.1:PORT", default_value = "127.0.0.1:0", value_parser = loopback, requires = "local")]
    listen: SocketAddr,
    /// With --local: the loopback port or address of the web console, or none; `rvm web` says where it is
    #[arg(long, value_name = "PORT|127.0.0.1:PORT|none", default_value = "127.0.0.1:0", value_parser = web, requires = "local")]
    web_listen: WebAddress,
    /// How to reach the cluster [default: the pod's service account, else ~/.kube/config]
    #[arg(long, env = "KUBECONFIG", value_name = "FILE", conflicts_with = "local")]
    kubeconfig: Option<PathBuf>,
    /// Make the node's object if the cluster has none, where no kubelet does
    #[arg(long)]
    register_node: bool,
    /// A Unix socket for the gRPC API [default with --local: rvm.sock in the run directory]
    #[arg(long, value_name = "unix:///PATH", value_parser = unix_socket)]
    grpc: Option<PathBuf>,
    /// A TCP address for the gRPC API, by mutual TLS only; without certificates of its own, with those that rvm-api hands over, and for
    /// rvm-api alone, which then finds it by the node's object
    #[arg(long, value_name = "ADDRESS:PORT")]
    grpc_listen: Option<SocketAddr>,
    /// The namespace in which rvm-api hands over certificates
    #[arg(
        long,
        env = "RVM_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "rvm",
        conflicts_with = "local",
        requires = "grpc_listen"
    )]
    api_namespace: String,
    #[command(flatten)]
    tls: Option<Tls>,
    #[command(flatten)]
    launching: Launching,
    /// Where running machines are kept [default: /run/rvm, or $XDG_RUNTIME_DIR/rvm without root]
    #[arg(long, env = "RVM_RUN", value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Where images, disks and the local store are kept [default: /var/lib/rvm, or $XDG_STATE_HOME/rvm without root]
    #[arg(long, env = "RVM_STATE", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The folder with Image and init.cpio, which boot an ordinary image
    #[arg(long, env = "RVM_GUESTS", value_name = "DIR")]
    guests: Option<PathBuf>,
    /// An image's place on this disk, as an OCI layout, or the registry that is asked in another's place; may be given more than once
    #[arg(
        long,
        env = "RVM_MIRRORS",
        value_name = "IMAGE=oci:DIR[:TAG]|REGISTRY=https://HOST[:PORT][/PREFIX]",
        value_delimiter = ','
    )]
    mirror: Vec<Mirror>,
    /// Which registries are asked for what no mirror stands for, as in containers-registries.conf(5)
    #[arg(long, env = "RVM_REGISTRIES", value_name = "FILE")]
    registries: Option<PathBuf>,
    /// A folder HOST[:PORT] for each registry, with certificates (*.crt) of those who sign for it, as in containers-certs.d(5)
    #[arg(long, env = "RVM_REGISTRY_CERTS", value_name = "DIR")]
    registry_certs: Option<PathBuf>,
    /// Most bytes of images that are kept; those that were asked for longest ago go, and never what a machine uses
    #[arg(long, value_name = "SIZE", default_value = "20Gi", value_parser = size)]
    image_cache_limit: u64,
    /// A folder below which a VMI's hostDisk may lie; may be given more than once [default: none, and there are no host disks]
    #[arg(long, value_name = "DIR")]
    host_disk_dir: Vec<PathBuf>,
    /// The addresses of machines on this node, which must not be in use elsewhere on the host; none: no machine has a network here
    #[arg(long, value_name = "ADDRESS/PREFIX|none", default_value = "10.244.0.0/24", value_parser = pod_network)]
    pod_network: PodNetwork,
    /// What runs the guests
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    accel: Accel,
    /// Seconds between heartbeats on the node's object
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    heartbeat_interval: u64,
    /// Age in seconds at which another node's heartbeat makes its claims free
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400))]
    heartbeat_stale_after: u64,
    /// Where /metrics, /healthz and /readyz are served, to whoever asks [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Where traces are sent by OTLP over gRPC [default: nowhere]
    #[arg(long, value_name = "http://HOST:PORT")]
    otlp_endpoint: Option<Collector>,
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// The certificates of the gRPC API's TCP address.
#[derive(Debug, clap::Args)]
#[group(id = "tls", requires_all = ["tls_cert", "tls_key", "client_ca"])]
struct Tls {
    /// The server's certificate, PEM
    #[arg(long, value_name = "FILE", required = false, requires = "grpc_listen")]
    tls_cert: PathBuf,
    /// The certificate's key, PEM
    #[arg(long, value_name = "FILE", required = false)]
    tls_key: PathBuf,
    /// Who signs the certificates of clients, PEM: an authority of its own, never the cluster's, since whoever it signs for may do all
    #[arg(long, value_name = "FILE", required = false)]
    client_ca: PathBuf,
    /// A client that gets in, by the common name or an alternative name of its certificate; may be given more than once [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    client: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Accel {
    Auto,
    Kvm,
    Tcg,
}

impl From<Accel> for AcceleratorChoice {
    fn from(accel: Accel) -> Self {
        match accel {
            Accel::Auto => Self::Auto,
            Accel::Kvm => Self::Kvm,
            Accel::Tcg => Self::Tcg,
        }
    }
}

/// What is to be done, with every default filled in.
#[derive(Debug)]
pub struct Settings {
    /// How the log is written.
    pub log_format: LogFormat,
    /// Where traces go.
    pub traces: Option<Collector>,
    /// Where the VMIs are.
    pub cluster: Cluster,
    /// This node's name.
    pub node: String,
    /// Make its object where there is none.
    pub register_node: bool,
    /// Time between heartbeats, and how old the heartbeat of a dead handler is.
    pub heartbeat: (Duration, Duration),
    /// The gRPC API's Unix socket.
    pub grpc: Option<PathBuf>,
    /// The gRPC API's TCP address.
    pub grpc_tls: Option<(SocketAddr, Shown)>,
    /// Where metrics are.
    pub metrics: Option<SocketAddr>,
    /// Where running machines are kept.
    pub run_dir: PathBuf,
    /// Where everything else is kept.
    pub state_dir: PathBuf,
    /// The VMM.
    pub rvmm: PathBuf,
    /// Machines run in pods, of which the kubelet keeps things here.
    pub pods: Option<PathBuf>,
    /// Kernel and init for ordinary images.
    pub guests: Option<PathBuf>,
    /// Where images are.
    pub mirrors: Mirrors,
    /// Who signs for registries.
    pub registry_certs: Option<PathBuf>,
    /// Most bytes of images that are kept.
    pub image_cache_limit: u64,
    /// Where host disks may lie.
    pub host_disks: Allowed,
    /// The addresses of machines.
    pub pod_network: Option<Range>,
    /// What runs the guests.
    pub accelerator: AcceleratorChoice,
}

/// The certificates that are shown at a door.
#[derive(Debug)]
pub enum Shown {
    /// The operator's.
    Files(TlsFiles),
    /// Those that rvm-api hands over in this namespace.
    HandedOver(String),
}

/// Where the VMIs are.
#[derive(Debug)]
pub enum Cluster {
    /// In our own API, which kubectl reaches here, and browsers, if they do, there.
    Local(SocketAddr, Option<SocketAddr>),
    /// In a cluster.
    Remote(Option<PathBuf>),
}

// === impl Cluster ===

impl Cluster {
    /// Whether nobody else keeps machines to its NetworkPolicies.
    pub fn has_no_network_plugin(&self) -> bool {
        matches!(self, Self::Local(..))
    }

    /// A namespace that is there for as long as the cluster is.
    pub fn oldest_namespace(&self) -> &'static str {
        match self {
            Self::Local(..) => "default",
            Self::Remote(_) => "kube-system",
        }
    }
}

// === impl Tls ===

impl Tls {
    fn files(self) -> TlsFiles {
        TlsFiles {
            certificate: self.tls_cert,
            key: self.tls_key,
            client_ca: self.client_ca,
            clients: self.client,
        }
    }
}

// === impl Args ===

impl Args {
    /// Fills in the defaults.
    ///
    /// # Errors
    /// A default that this host does not have.
    pub fn resolve(self) -> Result<Settings> {
        let root = rustix::process::geteuid().is_root();
        let run_dir = absolute(self.run_dir.map_or_else(|| default_run_dir(root), Ok)?)?;
        let state_dir = absolute(self.state_dir.map_or_else(|| default_state_dir(root), Ok)?)?;
        let grpc = self.grpc.or_else(|| self.local.then(|| run_dir.join("rvm.sock")));
        let shown = match (self.tls, self.local) {
            (Some(tls), _) => Some(Shown::Files(tls.files())),
            (None, false) => Some(Shown::HandedOver(self.api_namespace)),
            (None, true) => None,
        };
        let grpc_tls = self.grpc_listen.map(|address| {
            let shown = shown.context("--grpc-listen with --local needs --tls-cert, --tls-key and --client-ca: there is no rvm-api to hand certificates over");
            shown.map(|shown| (address, shown))
        });
        let grpc_tls = grpc_tls.transpose()?;
        let node = self.node.unwrap_or_else(host_name);
        ensure!(
            is_name(&node),
            "'{node}' cannot be a node's name: lower case letters, digits, '-' and '.', 63 at most; name one with --node"
        );
        let registries = self.registries.map(|file| Registries::read(&file));
        let registries = registries.transpose()?.unwrap_or_default();
        let (rvmm, pods) = self.launching.resolve(root)?;
        let (interval, stale_after) = (self.heartbeat_interval, self.heartbeat_stale_after);
        ensure!(
            stale_after > interval,
            "--heartbeat-stale-after must be more than --heartbeat-interval, or living nodes look dead"
        );
        Ok(Settings {
            log_format: self.log_format,
            traces: self.otlp_endpoint,
            cluster: if self.local {
                Cluster::Local(self.listen, self.web_listen.0)
            } else {
                Cluster::Remote(self.kubeconfig)
            },
            node,
            register_node: self.local || self.register_node,
            heartbeat: (Duration::from_secs(interval), Duration::from_secs(stale_after)),
            grpc,
            grpc_tls,
            metrics: self.metrics_listen,
            run_dir,
            state_dir,
            rvmm,
            pods,
            guests: self.guests.map(absolute).transpose()?,
            mirrors: self.mirror.into_iter().collect::<Mirrors>().with(registries),
            registry_certs: self.registry_certs.map(absolute).transpose()?,
            image_cache_limit: self.image_cache_limit,
            host_disks: Allowed(
                self.host_disk_dir
                    .into_iter()
                    .map(absolute)
                    .collect::<Result<_>>()?,
            ),
            pod_network: self.pod_network.0,
            accelerator: self.accel.into(),
        })
    }
}

/// Machines' addresses, or none. Not an `Option`, which would mean that the argument may be left out.
#[derive(Debug, Clone, Copy)]
struct PodNetwork(Option<Range>);

fn pod_network(text: &str) -> Result<PodNetwork> {
    if text == "none" {
        return Ok(PodNetwork(None));
    }
    Ok(PodNetwork(Some(text.parse()?)))
}

/// Where the web console is, or that there is none. Not an `Option`, which would mean that the argument may be left out.
#[derive(Debug, Clone, Copy)]
struct WebAddress(Option<SocketAddr>);

fn web(text: &str) -> Result<WebAddress> {
    let address = (text != "none").then(|| loopback(text));
    Ok(WebAddress(address.transpose()?))
}

fn size(text: &str) -> Result<u64> {
    Quantity::from(text).bytes().context("not a size, such as 20Gi")
}

fn loopback(text: &str) -> Result<SocketAddr> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let address: SocketAddr = text
        .parse()
        .context("not a port, and not an address with a port")?;
    ensure!(address.ip().is_loopback(), "only loopback addresses are served");
    Ok(address)
}

fn unix_socket(text: &str) -> Result<PathBuf> {
    let path = text
        .strip_prefix("unix://")
        .context("must be unix:///PATH; a TCP address needs --grpc-listen")?;
    ensure!(
        path.starts_with('/'),
        "must be unix:///PATH, with an absolute path"
    );
    Ok(PathBuf::from(path))
}

fn default_run_dir(root: bool) -> Result<PathBuf> {
    if root {
        return Ok("/run/rvm".into());
    }
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    Ok(Path::new(&runtime.context("XDG_RUNTIME_DIR is not set; say where with --run-dir")?).join("rvm"))
}

fn default_state_dir(root: bool) -> Result<PathBuf> {
    if root {
        return Ok("/var/lib/rvm".into());
    }
    let state = env::var_os("XDG_STATE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    Ok(state
        .or_else(home)
        .context("neither XDG_STATE_HOME nor HOME is set; say where with --state-dir")?
        .join("rvm"))
}

/// rvmm is started from another directory, so no path may be relative.
fn absolute(path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    std::path::absolute(path).with_context(|| format!("'{}'", path.display()))
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["rvm-handler"], args].concat())
    }

    #[test]
    fn a_tcp_address_without_certificates_is_refused_where_nobody_hands_them_over() {
        let local = ["--local", "--rvmm", "/bin/true", "--grpc-listen", "0.0.0.0:1"];
        assert!(parse(&local).unwrap().resolve().is_err());
        assert!(parse(&["--grpc-listen", "0.0.0.0:1", "--tls-cert", "c", "--tls-key", "k"]).is_err());
        let args = parse(&[
            "--rvmm",
            "/bin/true",
            "--grpc-listen",
            "0.0.0.0:1",
            "--tls-cert",
            "c",
            "--tls-key",
            "k",
            "--client-ca",
            "a",
        ]);
        let (_, shown) = args.unwrap().resolve().unwrap().grpc_tls.unwrap();
        assert!(matches!(shown, Shown::Files(files) if files.key == Path::new("k")));
    }

    #[test]
    fn in_a_cluster_rvm_api_hands_the_certificates_over() {
        let args = parse(&["--rvmm", "/bin/true", "--grpc-listen", "0.0.0.0:1"]).unwrap();
        let (_, shown) = args.resolve().unwrap().grpc_tls.unwrap();
        assert!(matches!(shown, Shown::HandedOver(namespace) if namespace == "rvm"));
    }

    #[test]
    fn local_mode_listens_on_loopback_only() {
        assert!(parse(&["--local", "--listen", "0.0.0.0:80"]).is_err());
        assert!(parse(&["--local", "--listen", "nonsense"]).is_err());
        assert!(parse(&["--local", "--web-listen", "0.0.0.0:80"]).is_err());
        assert!(parse(&["--web-listen", "8080"]).is_err());
        assert_eq!(
            parse(&["--local", "--web-listen", "none"]).unwrap().web_listen.0,
            None
        );
        assert_eq!(
            parse(&["--local", "--listen", "8443"]).unwrap().listen,
            "127.0.0.1:8443".parse().unwrap()
        );
    }

    #[test]
    fn a_cluster_and_local_mode_exclude_each_other() {
        assert!(parse(&["--local", "--kubeconfig", "f"]).is_err());
    }

    #[test]
    fn a_heartbeat_that_is_stale_before_it_is_due_is_refused() {
        let args = parse(&[
            "--heartbeat-interval",
            "60",
            "--heartbeat-stale-after",
            "60",
            "--rvmm",
            "/bin/true",
        ]);
        assert!(args.unwrap().resolve().is_err());
    }
}
