//! Puts everything together, and takes it apart in order.
//!
//! ```text
//!   directories ─► images ─► cluster or local API ─► first heartbeat ─► the doors ─► heartbeats, the loop
//!   Ctrl-C, SIGTERM ─► the loop finishes what it is at ─► servers end ─► exit; machines run on
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use rvm_handler::agent::Agents;
use rvm_handler::controller;
use rvm_handler::devices;
use rvm_handler::doors::Doors;
use rvm_handler::events::Recorder;
use rvm_handler::images::Images;
use rvm_handler::images::pull::Puller;
use rvm_handler::launch::{Launcher, Pods, Processes};
use rvm_handler::metrics::{Handler, Transitions};
use rvm_handler::networks::client::Networks;
use rvm_handler::networks::enforce::Policies;
use rvm_handler::node::{self, Register};
use rvm_handler::place::Place;
use rvm_handler::plan::Me;
use rvm_handler::plugging::Plugs;
use rvm_handler::process::Machines;
use rvm_handler::process::children::Children;
use rvm_handler::process::watch::Watch;
use rvm_handler::pulling::Pulls;
use rvm_handler::retries::Retries;
use rvm_handler::steps::Effects;
use rvm_handler::volumes::binder;
use rvm_handler::volumes::claims::Claims;
use rvm_server::observe::traces::Traces;
use rvm_server::observe::{self, Pulse};
use rvm_server::{MachinesService, Subresources, TlsDoor, UnixDoor, certificates, program};
use rvmm_spec::AcceleratorChoice;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Cluster, Settings, Shown};
use crate::local_door::LocalDoor;

/// How long the loop may take to finish what it is at; an image that is being unpacked is begun anew next time.
const FINISH: Duration = Duration::from_secs(10);

/// What is said last.
const LEFT: &str = "rvm-handler ends; its machines go on running and are taken over at the next start";

/// Whose lines people want to read.
const OURS: [&str; 3] = ["rvm_handler", "rvm_local", "rvm_server"];

/// Serves until a signal says to end.
///
/// # Errors
/// What cannot be had at the start, or broke later.
pub fn run(settings: Settings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("no threads can be started")?;
    let entered = runtime.enter();
    let traces = Traces::to(settings.traces.as_ref(), "rvm-handler", Some(&settings.node))?;
    program::log(settings.log_format, &OURS, &traces);
    let served = runtime.block_on(serve(settings));
    drop((traces, entered));
    // A blocked reader of an image or of a socket must not keep us.
    runtime.shutdown_background();
    served
}

async fn serve(settings: Settings) -> Result<()> {
    let (stop, mut tasks) = (program::stopped_by_signals()?, JoinSet::<Result<()>>::new());
    let place = Place::take(&settings.run_dir, &settings.state_dir)?;
    let (listener, register) = registration(&settings, &place).await?;
    let ourselves = std::env::current_exe().context("our own program is not known")?;
    let networks = Networks::new(place.run(), ourselves.clone(), settings.pod_network);
    let networks = networks.of_pods(settings.pods.is_some());
    let puller = Puller::new(ourselves).believing(settings.registry_certs);
    let images = Images::new(settings.mirrors, settings.guests, place.state())?;
    let images = Arc::new(images.pulled_by(puller, settings.image_cache_limit));
    let claims = claims_of(&settings.cluster, place.state());
    let (client, local) = connect(&settings.cluster, place.state()).await?;
    let arrived = arrive(&settings.cluster, &register, &client);
    let Some((cluster, me)) = stop.run_until_cancelled(arrived).await.transpose()? else {
        return Ok(());
    };
    let tls = listener.zip(settings.grpc_tls.map(|(_, shown)| shown));
    let grpc = GrpcDoors::open(settings.grpc.as_deref(), tls, &client, &mut tasks)?;
    let home = format!("cluster {cluster} node {}", settings.node);
    let machines = Machines::open(place, settings.rvmm, home)?;
    let (machines, launcher) = launcher(machines, settings.pods, settings.accelerator, &mut tasks);
    let networks = keep(networks, &machines).await?;
    let ((me_sender, me), (wake, wakes)) = (watch::channel(me), mpsc::unbounded_channel());
    let events = Recorder::new(client.clone(), &settings.node);
    let (watch, agents) = (Watch::new(wake), Agents::default());
    let told = (watch.clone(), events.clone(), agents.clone());
    let doors = Doors::new(me.clone(), &machines, told, &networks, &images);
    let below = lead(doors, client.clone(), (grpc, local), &stop, &mut tasks);
    let watched = Handler::new(me.clone(), &machines, below, settings.heartbeat.1);
    let (transitions, pulse) = watch_over(settings.metrics, watched, &mut tasks).await?;
    let policies = policies(&settings.cluster, (&client, &networks, &events), &mut tasks);
    let effects = Arc::new(Effects {
        client: client.clone(),
        me,
        machines: Arc::clone(&machines),
        images,
        networks,
        agents,
        policies,
        host_disks: Arc::new(settings.host_disks),
        claims: Arc::clone(&claims),
        launcher,
        watch,
        events,
        accelerator: settings.accelerator,
        children: Children::default(),
        pulls: Pulls::default(),
        retries: Retries::default(),
        plugs: Plugs::default(),
        transitions,
    });
    tasks.spawn(tend_claims(client.clone(), claims));
    tasks.spawn(async move { Ok(register.keep_beating(&client, &me_sender, &pulse).await?) });
    tracing::info!(node = settings.node, run_dir = %settings.run_dir.display(), cluster, "rvm-handler serves");
    let control = controller::run(effects, wakes, stop.clone().cancelled_owned());
    let served = until_stopped(control, &mut tasks, &stop).await;
    tracing::info!(machines = machines.count(), "{LEFT}");
    tasks.shutdown().await;
    served
}

/// How machines get their processes: as ours, or in pods, whose devices are offered to the kubelet that has this folder.
fn launcher(
    machines: Machines,
    kubelet: Option<PathBuf>,
    accelerator: AcceleratorChoice,
    tasks: &mut JoinSet<Result<()>>,
) -> (Arc<Machines>, Arc<dyn Launcher>) {
    let Some(kubelet) = kubelet else {
        return (Arc::new(machines), Arc::new(Processes));
    };
    let pods = Pods::new(kubelet.clone());
    tasks.spawn(async move {
        devices::offer(&kubelet, accelerator).await;
        Ok(())
    });
    (Arc::new(machines.in_pods()), Arc::new(pods))
}

/// Keeps machines to the cluster's policies while this handler is here, where nobody else does.
fn policies(
    cluster: &Cluster,
    (client, networks, events): (&Client, &Arc<Networks>, &Recorder),
    tasks: &mut JoinSet<Result<()>>,
) -> Option<Arc<Policies>> {
    let policies = cluster
        .has_no_network_plugin()
        .then(|| Arc::new(Policies::new(client.clone(), Arc::clone(networks))))?;
    let (following, events) = (Arc::clone(&policies), events.clone());
    tasks.spawn(async move {
        following.follow(&events).await;
        Ok(())
    });
    Some(policies)
}

/// Has the networks go whose machines went while no handler was here, and the others stay for as long as this one is.
async fn keep(networks: Networks, machines: &Arc<Machines>) -> Result<Arc<Networks>> {
    let machines = Arc::clone(machines);
    let keep = move || {
        let uids = machines.all()?.into_iter().map(|vm| vm.uid).collect();
        if let Err(error) = networks.keep(uids) {
            tracing::warn!(
                error = rvm_handler::steps::chain(&error),
                "networks of former machines stay"
            );
        }
        Ok(Arc::new(networks))
    };
    tokio::task::spawn_blocking(keep).await?
}

/// Takes the gRPC API's TCP address, and says how this node is known in the cluster.
async fn registration(settings: &Settings, place: &Place) -> Result<(Option<TcpListener>, Register)> {
    let listener = listen(settings.grpc_tls.as_ref()).await?;
    // Only rvm-api looks for it, and only by the certificates that it handed over does it know it.
    let by_api = matches!(settings.grpc_tls, Some((_, Shown::HandedOver(_))));
    let address = listener.as_ref().filter(|_| by_api);
    let address = address.map(TcpListener::local_addr).transpose();
    let address = address.context("the listener has no address")?.map(|address| {
        if address.ip().is_unspecified() {
            format!(":{}", address.port())
        } else {
            address.to_string()
        }
    });
    let register = Register {
        name: settings.node.clone(),
        handler: place.id(),
        address,
        create: settings.register_node,
        interval: settings.heartbeat.0,
        stale_after: settings.heartbeat.1,
        in_pods: settings.pods.is_some(),
        has_kvm: devices::has_kvm(settings.accelerator),
    };
    Ok((listener, register))
}

async fn listen(tls: Option<&(SocketAddr, Shown)>) -> Result<Option<TcpListener>> {
    let Some((address, _)) = tls else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    Ok(Some(listener))
}

/// Tells of this handler, where somebody is to be told. Returns what that is told of.
async fn watch_over(
    at: Option<SocketAddr>,
    handler: Handler,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<(Transitions, Arc<Pulse>)> {
    let told = (handler.transitions.clone(), Arc::clone(&handler.pulse));
    let Some(at) = at else { return Ok(told) };
    let listener = TcpListener::bind(at).await;
    let listener = listener.with_context(|| format!("cannot listen on {at}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    tracing::info!(%address, "metrics are served");
    tasks.spawn(async move {
        observe::serve(listener, Arc::new(handler)).await;
        Ok(())
    });
    Ok(told)
}

/// Opens the ways to the machines. Returns that of local mode.
fn lead(
    doors: Doors,
    client: Client,
    (grpc, local): (GrpcDoors, Option<LocalDoor>),
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<()>>,
) -> Option<Subresources> {
    let (service, below) = doors.lead(client);
    grpc.serve(&service, stop, tasks);
    local.map(|local| {
        local.serve(below.clone(), tasks);
        below
    })
}

/// The claims' disks; in local mode there is nobody else who could keep them.
fn claims_of(cluster: &Cluster, state: &Path) -> Arc<Claims> {
    Arc::new(match cluster {
        Cluster::Local(..) => Claims::below(state),
        _ => Claims::of_cluster(),
    })
}

/// Binds claims and lets them go, for as long as it is let, where nobody else does.
async fn tend_claims(client: Client, claims: Arc<Claims>) -> Result<()> {
    if !claims.are_ours() {
        return std::future::pending().await;
    }
    binder::follow(&client, &claims).await;
    Ok(())
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

/// The client of the cluster, and the cluster's own door where that is ours.
async fn connect(cluster: &Cluster, state: &Path) -> Result<(Client, Option<LocalDoor>)> {
    match cluster {
        Cluster::Local(address, web) => {
            let local = LocalDoor::open(*address, *web, state).await?;
            Ok((local.client(), Some(local)))
        }
        Cluster::Remote(kubeconfig) => {
            let otherwise = "no cluster is known; give --kubeconfig or --local";
            Ok((program::connect(kubeconfig.as_deref(), otherwise).await?, None))
        }
    }
}

/// Learns which cluster that is, and takes the node's name there.
async fn arrive(cluster: &Cluster, register: &Register, client: &Client) -> Result<(String, Me)> {
    let id = node::cluster_id(client, cluster.oldest_namespace()).await;
    Ok((id, register.first_beat(client).await?))
}

/// The doors of the gRPC API, open before anything is promised.
struct GrpcDoors {
    unix: Option<UnixDoor>,
    tls: Option<TlsDoor>,
}

// === impl GrpcDoors ===

impl GrpcDoors {
    fn open(
        socket: Option<&Path>,
        tls: Option<(TcpListener, Shown)>,
        client: &Client,
        tasks: &mut JoinSet<Result<()>>,
    ) -> Result<Self> {
        let unix = socket.map(UnixDoor::bind).transpose()?;
        let tls = match tls {
            None => None,
            Some((listener, Shown::Files(files))) => Some(TlsDoor::new(listener, &files)?),
            Some((listener, Shown::HandedOver(namespace))) => {
                let (sender, config) = watch::channel(None);
                let received = certificates::receive(client.clone(), namespace, sender);
                tasks.spawn(async move {
                    received.await;
                    Ok(())
                });
                Some(TlsDoor::renewed(
                    listener,
                    config,
                    vec![certificates::API.to_owned()],
                ))
            }
        };
        Ok(Self { unix, tls })
    }

    fn serve(self, service: &MachinesService, stop: &CancellationToken, tasks: &mut JoinSet<Result<()>>) {
        if let Some(door) = self.unix {
            let (service, stop) = (service.clone(), stop.clone());
            tasks.spawn(async move { Ok(door.serve(service, stop.cancelled()).await?) });
        }
        if let Some(door) = self.tls {
            let (service, stop) = (service.clone(), stop.clone());
            tasks.spawn(async move { Ok(rvm_server::serve_tls(door, service, stop.cancelled()).await?) });
        }
    }
}
