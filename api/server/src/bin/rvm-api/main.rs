//! `rvm-api`: arguments → serve until told to end, or one task. What KubeVirt calls virt-api and virt-controller, for a cluster of rvm-handlers.
//!
//! Exit status: 0 ended by a signal, 1 an error, 2 the command line was wrong; an error is one line on standard error.

mod metrics;
mod serve;
mod uninstall;
mod web_console;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use rvm_server::observe::traces::Collector;
use rvm_server::pods::Launcher;
use rvm_server::program::LogFormat;

/// Serves subresources.kubevirt.io to kube-apiserver and rvm.v1 (gRPC) to users, and follows VirtualMachines.
///
/// It keeps nothing of its own: machines go on without it, and another one can go on at any moment.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// How to reach the cluster [default: the pod's service account, else ~/.kube/config]
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where kube-apiserver reaches us
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Where users reach the gRPC API, rvm.v1
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8444")]
    grpc_listen: SocketAddr,
    /// Where browsers reach the web console, by https [default: there is none]
    #[arg(long, value_name = "ADDRESS:PORT")]
    web_listen: Option<SocketAddr>,
    /// A name or an address by which users reach either besides the Service's, for its certificate; may be repeated
    #[arg(long = "grpc-name", value_name = "HOST")]
    grpc_names: Vec<String>,
    /// The namespace of our Service, Secrets and Lease
    #[arg(long, env = "RVM_NAMESPACE", value_name = "NAMESPACE", default_value = "rvm")]
    namespace: String,
    /// Age in seconds at which a node's heartbeat makes it unresponsive
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    node_stale_after: u64,
    /// Where /metrics, /healthz and /readyz are served, to whoever asks [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Where machines run: as processes of the handlers (process), or each in a pod of its own (pod)
    #[arg(long, value_enum, default_value_t)]
    launcher: LauncherArg,
    /// The image of machines' pods, with rvmm
    #[arg(long, value_name = "IMAGE", required_if_eq("launcher", "pod"))]
    launcher_image: Option<String>,
    /// The image of the pods of machines that may be emulated, with rvmm and QEMU [default: that of --launcher-image]
    #[arg(long, value_name = "IMAGE")]
    launcher_image_tcg: Option<String>,
    /// Have nodes without KVM emulate the machines in pods, unless the KubeVirt says otherwise (developerConfiguration.useEmulation)
    #[arg(long)]
    use_emulation: bool,
    /// Where traces are sent by OTLP over gRPC [default: nowhere]
    #[arg(long, value_name = "http://HOST:PORT")]
    otlp_endpoint: Option<Collector>,
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    task: Option<Task>,
}

/// What is done instead of serving.
#[derive(Debug, Subcommand)]
enum Task {
    /// Serves the web console alone, by https with a certificate that it makes itself, for users of the cluster with their own tokens
    WebConsole {
        /// How to reach the cluster [default: the pod's service account, else ~/.kube/config]
        #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// Where browsers reach it
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8445")]
        listen: SocketAddr,
        /// A name or an address by which they do, for its certificate; may be repeated
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
    },
    /// Says whether rvm can be taken from the cluster: an error while there are machines, which could not end well without it
    BeforeUninstall {
        /// How to reach the cluster [default: the pod's service account, else ~/.kube/config]
        #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// End and remove all machines instead, and wait until they are gone
        #[arg(long)]
        remove: bool,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LauncherArg {
    #[default]
    Process,
    Pod,
}

// === impl Args ===

impl Args {
    /// How pods are made, if machines are to be in pods.
    fn launcher(&self) -> Option<Launcher> {
        (self.launcher == LauncherArg::Pod).then(|| Launcher {
            image: self.launcher_image.clone().unwrap_or_default(),
            emulating: self.launcher_image_tcg.clone(),
            use_emulation: self.use_emulation,
        })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.task {
        Some(Task::WebConsole {
            kubeconfig,
            listen,
            names,
        }) => web_console::run(kubeconfig.as_deref(), *listen, names),
        Some(Task::BeforeUninstall { kubeconfig, remove }) => uninstall::run(kubeconfig.as_deref(), *remove),
        None => serve::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rvm-api: {error:#}");
            ExitCode::FAILURE
        }
    }
}
