//! Puts everything together, and takes it apart in order.
//!
//! ```text
//!   run directory ─► images ─► cluster or local API ─► first heartbeat ─► gRPC, https, heartbeats, the loop
//!   Ctrl-C, SIGTERM ─► the loop finishes what it is at ─► servers end ─► exit; machines run on
//! ```

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rvm_handler::consoles::Doors;
use rvm_handler::controller;
use rvm_handler::events::Recorder;
use rvm_handler::images::Images;
use rvm_handler::process::Machines;
use rvm_handler::process::watch::Watch;
use rvm_handler::steps::{Effects, Retries};
use rvm_local::{Identity, LocalApi};
use rvm_server::MachinesService;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{Cluster, LogFormat, Settings};

/// How long the loop may take to finish what it is at; an image that is being unpacked is begun anew next time.
const FINISH: Duration = Duration::from_secs(10);

/// Whose lines people want to read.
const OURS: [&str; 3] = ["rvm_handler", "rvm_local", "rvm_server"];

/// Serves until a signal says to end.
///
/// # Errors
/// What cannot be had at the start, or broke later.
pub fn run(settings: Settings) -> Result<()> {
    log(settings.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("no threads can be started")?;
    let served = runtime.block_on(serve(settings));
    // A blocked reader of an image or of a socket must not keep us.
    runtime.shutdown_background();
    served
}

/// Our own lines, and of the libraries only what is wrong.
fn log(format: LogFormat) {
    let ours = Targets::new().with_default(LevelFilter::WARN);
    let ours = OURS
        .iter()
        .fold(ours, |ours, name| ours.with_target(*name, LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let subscriber = tracing_subscriber::registry();
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

async fn serve(settings: Settings) -> Result<()> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let images = Images::new(settings.mirrors, settings.guests, &settings.state_dir)?;
    let (client, cluster) = connect(&settings.cluster, &settings.state_dir, &mut tasks).await?;
    let node = settings.register.name.clone();
    let home = format!("{cluster} node {node}");
    let machines = Arc::new(Machines::open(
        &settings.run_dir,
        &settings.state_dir,
        settings.rvmm,
        home,
    )?);
    let first_beat = settings.register.first_beat(&client);
    let Some(me) = stop.run_until_cancelled(first_beat).await else {
        return Ok(());
    };
    let (me_sender, me) = watch::channel(me);
    let (wake, wakes) = mpsc::unbounded_channel();
    let (watch, events) = (Watch::new(wake), Recorder::new(client.clone(), &node));
    let doors = Arc::new(Doors {
        node: node.clone(),
        machines: Arc::clone(&machines),
        watch: watch.clone(),
        events: events.clone(),
    });
    let service = MachinesService::new(client.clone(), Arc::clone(&doors) as _, doors);
    listen(settings.grpc, settings.grpc_tls, &service, &stop, &mut tasks).await?;
    let effects = Arc::new(Effects {
        client: client.clone(),
        me,
        machines: Arc::clone(&machines),
        images: Arc::new(images),
        watch,
        events,
        accelerator: settings.accelerator,
        retries: Retries::default(),
    });
    let register = settings.register;
    tasks.spawn(async move {
        register.keep_beating(&client, &me_sender).await;
        Ok(())
    });
    tracing::info!(node, run_dir = %settings.run_dir.display(), cluster, "rvm-handler serves");
    let control = controller::run(effects, wakes, stop.clone().cancelled_owned());
    let served = until_stopped(control, &mut tasks, &stop).await;
    let running = machines.all().map_or(0, |all| all.len());
    tracing::info!(
        machines = running,
        "rvm-handler ends; its machines go on running and are taken over at the next start"
    );
    tasks.shutdown().await;
    served
}

/// Runs the loop until the end, or until a server breaks.
async fn until_stopped(
    control: impl Future<Output = ()>,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<()> {
    let mut control = std::pin::pin!(control);
    let broken = tokio::select! {
        () = &mut control => return Ok(()),
        () = stop.cancelled() => Ok(()),
        Some(ended) = tasks.join_next() => ended.context("a server broke").flatten(),
    };
    stop.cancel();
    if tokio::time::timeout(FINISH, control).await.is_err() {
        tracing::warn!("something takes too long to finish and is left");
    }
    broken
}

fn stop_on_signals(stop: &CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

/// The client of the cluster, and the cluster's name: what tells its machines from another's.
async fn connect(
    cluster: &Cluster,
    state: &Path,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<(Client, String)> {
    match cluster {
        Cluster::Local(address) => {
            let client = open_local(*address, state, tasks).await?;
            Ok((client, format!("local {}", state.display())))
        }
        Cluster::Remote(kubeconfig) => {
            let config = config(kubeconfig.as_deref()).await?;
            let name = config.cluster_url.to_string();
            let client =
                Client::try_from(config).context("the cluster's address or certificates cannot be used")?;
            Ok((client, name))
        }
    }
}

async fn config(kubeconfig: Option<&Path>) -> Result<Config> {
    let Some(path) = kubeconfig else {
        return Config::infer()
            .await
            .context("no cluster is known; give --kubeconfig or --local");
    };
    let read = Kubeconfig::read_from(path).with_context(|| format!("'{}' cannot be read", path.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("'{}' names no usable cluster", path.display()))
}

async fn open_local(address: SocketAddr, state: &Path, tasks: &mut JoinSet<Result<()>>) -> Result<Client> {
    let api = LocalApi::open(state, vec![rvm_local::virtual_machine_instances()?])
        .context("local mode cannot start")?;
    let identity = Arc::new(Identity::open(state)?);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let kubeconfig = state.join("kubeconfig");
    identity.kubeconfig(&kubeconfig, address)?;
    tracing::info!(%address, kubeconfig = %kubeconfig.display(), "the local API serves kubectl");
    let router = api.router();
    tasks.spawn(async move {
        rvm_local::serve(listener, router, identity).await;
        Ok(())
    });
    Ok(api.client())
}

/// Opens the doors of the gRPC API.
async fn listen(
    socket: Option<std::path::PathBuf>,
    tls: Option<(SocketAddr, rvm_server::TlsFiles)>,
    service: &MachinesService,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<()> {
    if let Some(path) = socket {
        let (service, stop) = (service.clone(), stop.clone());
        tasks.spawn(async move { Ok(rvm_server::serve_unix(&path, service, stop.cancelled()).await?) });
    }
    if let Some((address, files)) = tls {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let (service, stop) = (service.clone(), stop.clone());
        tasks.spawn(
            async move { Ok(rvm_server::serve_tls(listener, &files, service, stop.cancelled()).await?) },
        );
    }
    Ok(())
}
