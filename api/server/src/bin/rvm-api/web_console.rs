//! The web console alone, beside a machine of its own: as that of a whole cluster, for whoever has a token, and without an account of its
//! own.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use rvm_server::certificates::Alone;
use rvm_server::observe::traces::Traces;
use rvm_server::program::{self, LogFormat};
use rvm_server::web::{self, WebConsole};
use tokio::net::TcpListener;

/// What it is called where nobody names it.
const NAME: &str = "localhost";

/// Serves it until a signal says to end, under these names.
///
/// # Errors
/// What cannot be had at the start, or broke later.
#[tokio::main(flavor = "current_thread")]
pub async fn run(kubeconfig: Option<&Path>, listen: SocketAddr, names: &[String]) -> Result<()> {
    program::log(LogFormat::Text, &["rvm_api", "rvm_server"], &Traces::default());
    let stop = program::stopped_by_signals()?;
    let otherwise = "no cluster is known; give --kubeconfig";
    let config = program::configuration(kubeconfig, otherwise).await?;
    let console = WebConsole::of_cluster(config).context("the web console cannot reach the cluster")?;
    let names = [&[NAME.to_owned()], names].concat();
    let (alone, identity) = Alone::new(names).context("no certificate can be made")?;
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
    let served = web::secured(listener, console, identity.subscribe());
    tracing::info!(address = %listen, "the web console is served, by https");
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = alone.go_on(identity) => Ok(()),
        served = served => Ok(served?),
    }
}
