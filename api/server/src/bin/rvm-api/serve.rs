//! Puts everything together, and takes it apart in order.
//!
//! ```text
//!   cluster ─► the front proxy ─► certificates ─► the door ─► served, while one of us follows VirtualMachines
//!   Ctrl-C, SIGTERM ─► the controller finishes what it is at and lets its Lease go ─► connections end ─► exit
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rvm_server::aggregated::{self, FrontProxy};
use rvm_server::certificates::{Identity, Keeper};
use rvm_server::leader::Candidate;
use rvm_server::observe::traces::Traces;
use rvm_server::web::{self, WebConsole};
use rvm_server::{Fleet, Subresources, controllers, observe, program, users};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Args;
use crate::metrics::Server;

/// Whose lines people want to read.
const OURS: [&str; 2] = ["rvm_api", "rvm_server"];
/// Who holds it follows VirtualMachines.
const LEASE: &str = "rvm-controller";

/// Serves until a signal says to end.
///
/// # Errors
/// What cannot be had at the start, or broke later.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("no threads can be started")?;
    let _entered = runtime.enter();
    let traces = Traces::to(args.otlp_endpoint.as_ref(), "rvm-api", None)?;
    program::log(args.log_format, &OURS, &traces);
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<()> {
    let stop = program::stopped_by_signals()?;
    let otherwise = "no cluster is known; give --kubeconfig";
    let config = program::configuration(args.kubeconfig.as_deref(), otherwise).await?;
    let client = program::client(config.clone())?;
    let front = watch::Sender::new(Arc::new(FrontProxy::read(&client).await?));
    let keeper = Keeper::new(&client, &args.namespace, &args.grpc_names);
    let identity = keeper.first().await?;
    let (listener, address) = listen(args.listen).await?;
    let (for_users, grpc) = listen(args.grpc_listen).await?;
    let fleet = Arc::new(Fleet::new(client.clone(), identity.subscribe()));
    let below = Subresources::new(client.clone(), Arc::clone(&fleet) as _);
    let server = Server::new(client.clone(), below.clone());
    let leads = server.leads();
    let users = users::serve(
        for_users,
        client.clone(),
        fleet,
        identity.subscribe(),
        front.subscribe(),
        std::future::pending(),
    );
    let served = aggregated::serve(
        listener,
        client.clone(),
        below,
        identity.subscribe(),
        front.subscribe(),
    );
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    tasks.spawn(async move { Ok(served.await?) });
    tasks.spawn(async move { Ok(users.await?) });
    serve_beside(args, (config, server), &identity, &mut tasks).await?;
    tasks.spawn(ever(aggregated::follow(client.clone(), front)));
    tasks.spawn(ever(keeper.go_on(identity)));
    tracing::info!(%address, %grpc, namespace = args.namespace, "rvm-api serves");
    let stale_after = Duration::from_secs(args.node_stale_after);
    let candidate = Candidate::new(&client, &args.namespace, LEASE, me());
    let controller = candidate.follow(&stop, |ended| {
        leads.while_running(controllers::run_for_nodes(
            client.clone(),
            stale_after,
            args.launcher(),
            ended.cancelled_owned(),
        ))
    });
    tokio::select! {
        () = controller => Ok(()),
        Some(ended) = tasks.join_next() => ended.context("a server broke").flatten(),
    }
}

/// Serves what is only there where it is asked for: the web console, and metrics.
async fn serve_beside(
    args: &Args,
    (config, server): (kube::Config, Server),
    identity: &watch::Sender<Arc<Identity>>,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<()> {
    if let Some(at) = args.web_listen {
        let (listener, address) = listen(at).await?;
        let console = WebConsole::of_cluster(config).context("the web console cannot reach the cluster")?;
        let served = web::secured(listener, console, identity.subscribe());
        tasks.spawn(async move { Ok(served.await?) });
        tracing::info!(%address, "the web console is served, by https");
    }
    if let Some(at) = args.metrics_listen {
        let (listener, address) = listen(at).await?;
        tasks.spawn(ever(observe::serve(listener, Arc::new(server))));
        tracing::info!(%address, "metrics are served");
    }
    Ok(())
}

async fn listen(at: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(at).await;
    let listener = listener.with_context(|| format!("cannot listen on {at}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    Ok((listener, address))
}

/// What has no end of its own.
async fn ever(work: impl Future<Output = ()>) -> Result<()> {
    work.await;
    Ok(())
}

/// A name that nobody has or had.
fn me() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().into_owned();
    format!("{host}_{}", uuid::Uuid::new_v4())
}
