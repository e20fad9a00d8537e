//! `rvm-api`: arguments → serve until told to end. What KubeVirt calls virt-api and virt-controller, for a cluster of rvm-handlers.
//!
//! Exit status: 0 ended by a signal, 1 an error, 2 the command line was wrong; an error is one line on standard error.

mod metrics;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rvm_server::program::LogFormat;

/// Serves subresources.kubevirt.io to kube-apiserver and rvm.v1 (gRPC) to users, and follows VirtualMachines.
///
/// It keeps nothing of its own: machines go on without it, and another one can go on at any moment.
#[derive(Debug, Parser)]
#[command(version)]
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
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    match serve::run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rvm-api: {error:#}");
            ExitCode::FAILURE
        }
    }
}
