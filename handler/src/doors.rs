//! The doors to a node's machines, which the gRPC server asks for: a byte stream to a machine's console, a guest's port, and a machine's end.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rvm_server::{
    Act, AttachError, Connection, ConsoleStream, Consoles, DialError, MachinesService, Ports, Power,
    Protocol, Role, Subresources, Turn, Turns, Unreachable,
};
use rvm_types::{Claim, VirtualMachineInstance};
use rvmm_control::{Accelerator, Client, ClientError, Info, Request};
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::agent::Agents;
use crate::events::Happening;
use crate::events::Recorder;
use crate::images::Images;
use crate::networks::client::{NetworkError, Networks};
use crate::networks::model;
use crate::plan::Me;
use crate::process::Machines;
use crate::process::watch::Watch;
use crate::shelf::Shelf;
use crate::steps::chain;
use crate::thaws::Thaws;
use crate::vm::{Machine, VmId};

/// How long a guest may take to answer a connection.
const TAKES: Duration = Duration::from_secs(30);

/// The consoles and switches of this node's machines.
#[derive(Debug, Clone)]
pub struct Doors {
    /// This node and handler.
    pub me: watch::Receiver<Me>,
    /// Its machines.
    pub machines: Arc<Machines>,
    /// Has a machine looked at after it was ended.
    pub watch: Watch,
    /// Where events go.
    pub events: Recorder,
    /// The networks here.
    pub networks: Arc<Networks>,
    /// The images here.
    pub images: Arc<Images>,
    /// Who types at the consoles here.
    pub turns: Arc<Turns>,
    /// The guests that are frozen for a time.
    pub thaws: Thaws,
    /// What guests here said.
    pub agents: Agents,
}

// === impl Doors ===

impl Doors {
    /// To these machines; the watch and the recorder are told of what is done here.
    pub fn new(
        me: watch::Receiver<Me>,
        machines: &Arc<Machines>,
        (watch, events, agents): (Watch, Recorder, Agents),
        networks: &Arc<Networks>,
        images: &Arc<Images>,
    ) -> Self {
        Self {
            me,
            machines: Arc::clone(machines),
            watch,
            events,
            networks: Arc::clone(networks),
            images: Arc::clone(images),
            turns: Arc::default(),
            thaws: Thaws::default(),
            agents,
        }
    }

    /// What leads through these doors to the machines of a cluster: our own service, and KubeVirt's subresources. Called once a process, in
    /// its runtime: what a former handler has begun here goes on.
    pub fn lead(self, client: kube::Client) -> (MachinesService, Subresources) {
        self.thaws.resume(Arc::clone(&self.machines));
        let shelf = Arc::new(Shelf {
            me: self.me.clone(),
            machines: Arc::clone(&self.machines),
            images: Arc::clone(&self.images),
        });
        let doors = Arc::new(self);
        let below = Subresources::new(client.clone(), Arc::clone(&doors) as _);
        (MachinesService::new(client, doors).with_images(shelf), below)
    }

    /// The VM, if it is one of this handler's.
    pub(crate) fn here(&self, vmi: &VirtualMachineInstance) -> Result<VmId, Unreachable> {
        match Claim::on(vmi) {
            Some(claim) if self.me.borrow().made(claim) => VmId::of(vmi).ok_or(Unreachable::NotRunning),
            Some(claim) => Err(Unreachable::AnotherNode {
                node: claim.node.to_owned(),
            }),
            None => Err(Unreachable::NotRunning),
        }
    }

    async fn machine(&self, id: &VmId) -> Result<Machine, Unreachable> {
        let (machines, id) = (Arc::clone(&self.machines), id.clone());
        let seen = tokio::task::spawn_blocking(move || machines.observe(&id)).await;
        seen.map_err(|error| Unreachable::Unavailable(error.into()))?
            .map_err(|error| Unreachable::Unavailable(io::Error::other(error)))
    }

    async fn end(&self, vmi: &VirtualMachineInstance, grace: Duration) -> Result<(), Unreachable> {
        let id = self.here(vmi)?;
        match self.machine(&id).await? {
            Machine::Absent | Machine::Ended(_) | Machine::Lost => return Err(Unreachable::NotRunning),
            Machine::Prepared | Machine::Launching(_) | Machine::Silent | Machine::Alive(_) => {}
        }
        self.events.record(
            vmi,
            &Happening::normal(
                rvm_types::names::events::DELETED,
                "VirtualMachineInstance stopping",
            ),
        );
        let (machines, vm) = (Arc::clone(&self.machines), id.clone());
        let stopped = tokio::task::spawn_blocking(move || machines.stop(&vm, grace)).await;
        self.watch.wake(&id);
        let stopped = stopped.map_err(|error| Unreachable::Unavailable(error.into()))?;
        stopped
            .map(drop)
            .map_err(|error| Unreachable::Unavailable(io::Error::other(error)))
    }
}

#[tonic::async_trait]
impl Consoles for Doors {
    async fn attach(&self, vmi: &VirtualMachineInstance, role: Role) -> Result<ConsoleStream, AttachError> {
        let id = self.here(vmi)?;
        let machine = self.machine(&id).await?;
        let stream = UnixStream::connect(self.machines.run_dir(&id).console_socket()).await;
        let stream = stream.map_err(Unreachable::Unavailable)?;
        let turn = match role {
            Role::Types => self.turns.take(&id.uid),
            Role::Looks => Turn::to_look(),
        };
        let console = ConsoleStream::new(stream, &self.me.borrow().node, turn);
        Ok(match machine {
            Machine::Alive(info) => console.with_accelerator(accelerator(&info)),
            _ => console,
        })
    }
}

#[tonic::async_trait]
impl Power for Doors {
    /// Begins to: a guest that can be asked has the grace period to switch itself off.
    async fn stop(&self, vmi: &VirtualMachineInstance, grace: Option<Duration>) -> Result<(), Unreachable> {
        self.end(vmi, grace.unwrap_or_else(|| vmi.grace_period())).await
    }

    async fn act(&self, vmi: &VirtualMachineInstance, act: Act) -> Result<(), Unreachable> {
        let id = self.here(vmi)?;
        let socket = self.machines.run_dir(&id).control_socket();
        let pressed = tokio::task::spawn_blocking(move || press(&socket, act)).await;
        self.watch.wake(&id);
        pressed
            .map_err(|error| Unreachable::Unavailable(error.into()))?
            .map_err(|error| Unreachable::Unavailable(io::Error::other(error)))
    }
}

/// What a machine refuses is passed on: it is the machine that knows its state.
fn press(socket: &Path, act: Act) -> Result<(), ClientError> {
    Client::connect(socket)?.perform(match act {
        Act::Pause => Request::Pause,
        Act::Resume => Request::Resume,
        Act::Reset => Request::Reset,
    })
}

#[tonic::async_trait]
impl Ports for Doors {
    async fn dial(
        &self,
        vmi: &VirtualMachineInstance,
        protocol: Protocol,
        port: u16,
    ) -> Result<Connection, DialError> {
        let id = self.here(vmi)?;
        let networks = Arc::clone(&self.networks);
        let socket = tokio::task::spawn_blocking(move || {
            let protocol = match protocol {
                Protocol::Tcp => model::Protocol::Tcp,
                Protocol::Udp => model::Protocol::Udp,
            };
            let plan = networks.of(&id).map_err(|error| no_network(&error))?;
            plan.ok_or_else(|| DialError::NoNetwork("it has no network".to_owned()))?;
            networks
                .dial(&id, protocol, port)
                .map_err(|error| no_network(&error))
        });
        let socket = socket.await.map_err(|error| DialError::Refused(error.into()))??;
        connected(socket, protocol).await.map_err(DialError::Refused)
    }
}

fn no_network(error: &NetworkError) -> DialError {
    DialError::NoNetwork(chain(error))
}

/// The connection that this socket has begun to make, when it stands.
async fn connected(socket: OwnedFd, protocol: Protocol) -> io::Result<Connection> {
    if protocol == Protocol::Udp {
        return Ok(Connection::udp(UdpSocket::from_std(socket.into())?));
    }
    let stream = TcpStream::from_std(socket.into())?;
    match timeout(TAKES, stream.writable()).await {
        Ok(writable) => writable?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    }
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(Connection::tcp(stream)),
    }
}

fn accelerator(info: &Info) -> &'static str {
    match info.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
    }
}
