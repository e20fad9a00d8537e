//! What our servers have in common as programs: how they log, how they are told to end, how they reach the cluster.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::observe::traces::Traces;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins the log: the lines of these crates of ours, and of the libraries only what is wrong. Spans are for traces alone.
pub fn log(format: LogFormat, ours: &[&'static str], traces: &Traces) {
    let libraries = Targets::new().with_default(LevelFilter::WARN);
    let ours = ours.iter().fold(libraries, |lines, name| {
        lines.with_target(*name, LevelFilter::INFO)
    });
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let spans = traces.layer().with_filter(ours.clone());
    let subscriber = tracing_subscriber::registry().with(spans);
    let ours = ours.and(filter_fn(|metadata| metadata.is_event()));
    match format {
        LogFormat::Text => {
            let lines = lines
                .with_target(false)
                .with_ansi(std::io::stderr().is_terminal());
            subscriber.with(lines.with_filter(ours)).init();
        }
        LogFormat::Json => subscriber
            .with(lines.json().flatten_event(true).with_filter(ours))
            .init(),
    }
}

/// What is cancelled once we are asked to end.
///
/// # Errors
/// Signals cannot be handled.
pub fn stopped_by_signals() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
    });
    Ok(stop)
}

/// A client of the cluster that this kubeconfig names; without one, of the cluster that we run in.
///
/// # Errors
/// No cluster is named, or none that can be used.
pub async fn connect(kubeconfig: Option<&Path>, otherwise: &'static str) -> Result<Client> {
    client(configuration(kubeconfig, otherwise).await?)
}

/// A client of a cluster that has been found.
///
/// # Errors
/// It cannot be used.
pub fn client(config: Config) -> Result<Client> {
    Client::try_from(config).context("the cluster's address or certificates cannot be used")
}

/// Where the cluster is that this kubeconfig names, or in which we run, and who we are there.
///
/// # Errors
/// No cluster is named.
pub async fn configuration(kubeconfig: Option<&Path>, otherwise: &'static str) -> Result<Config> {
    let Some(path) = kubeconfig else {
        return Config::infer().await.context(otherwise);
    };
    let read = Kubeconfig::read_from(path);
    let read = read.with_context(|| format!("'{}' cannot be read", path.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("'{}' names no usable cluster", path.display()))
}
