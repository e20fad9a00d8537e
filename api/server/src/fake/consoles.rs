//! Machines that are only a console and a switch, both in the test's hands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rvm_types::VirtualMachineInstance;
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

use crate::agent::Command;
use crate::{
    Act, AgentError, Agents, AttachError, Connection, ConsoleStream, Consoles, DialError, Meters, Ports,
    Power, Protocol, Role, Turn, Turns, Unreachable, Usage,
};

const LOOPBACK: std::net::Ipv4Addr = std::net::Ipv4Addr::LOCALHOST;
/// Bytes that the pipe between a console and the server holds; a real socket holds some more.
const PIPE: usize = 4 << 10;

/// The machine's end of one viewer's console: what is written to it the viewer sees, what is read from it the
/// viewer has typed. Dropping it is the machine's end.
pub type FakeConsole = DuplexStream;

/// A machine that was stopped, and the grace that was given.
type Stopped = (String, Option<Duration>);

/// Machines in the hands of a test. Clones are the same machines.
#[derive(Clone)]
pub struct FakeMachines {
    viewers: mpsc::UnboundedSender<FakeConsole>,
    refusal: Arc<Mutex<Option<AttachError>>>,
    stopped: Arc<Mutex<Vec<Stopped>>>,
    acts: Arc<Mutex<Vec<(String, Act)>>>,
    told: Arc<Mutex<Vec<Command>>>,
    answers: Arc<Mutex<HashMap<&'static str, Value>>>,
    frozen: Arc<Mutex<Vec<Duration>>>,
    turns: Arc<Turns>,
    looks: Arc<AtomicU64>,
}

impl FakeMachines {
    /// Machines, and where the console of each new viewer comes out.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<FakeConsole>) {
        let (viewers, consoles) = mpsc::unbounded_channel();
        (
            Self {
                viewers,
                refusal: Arc::default(),
                stopped: Arc::default(),
                acts: Arc::default(),
                told: Arc::default(),
                answers: Arc::default(),
                frozen: Arc::default(),
                turns: Arc::default(),
                looks: Arc::default(),
            },
            consoles,
        )
    }

    /// Refuses the next viewer.
    pub fn refuse(&self, error: Unreachable) {
        *lock(&self.refusal) = Some(error.into());
    }

    /// Which machines were stopped, and with which grace.
    pub fn stopped(&self) -> Vec<Stopped> {
        lock(&self.stopped).clone()
    }

    /// From now on the guests' agents answer a command so. They know no others.
    pub fn answer(&self, command: Command, answer: Value) {
        lock(&self.answers).insert(command.name(), answer);
    }

    /// What the guests' agents were told, answered or not.
    pub fn told(&self) -> Vec<Command> {
        lock(&self.told).clone()
    }

    /// For how long guests were frozen.
    pub fn frozen(&self) -> Vec<Duration> {
        lock(&self.frozen).clone()
    }

    /// What was done with which machines.
    pub fn acts(&self) -> Vec<(String, Act)> {
        lock(&self.acts).clone()
    }
}

#[tonic::async_trait]
impl Consoles for FakeMachines {
    async fn attach(&self, vmi: &VirtualMachineInstance, role: Role) -> Result<ConsoleStream, AttachError> {
        if let Some(refusal) = lock(&self.refusal).take() {
            return Err(refusal);
        }
        let (server, machine) = tokio::io::duplex(PIPE);
        self.viewers.send(machine).expect("the test still takes viewers");
        let turn = match role {
            Role::Types => self.turns.take(vmi.metadata.uid.as_deref().unwrap_or_default()),
            Role::Looks => Turn::to_look(),
        };
        Ok(ConsoleStream::new(server, vmi.node_name().unwrap_or("here"), turn).with_accelerator("tcg"))
    }
}

#[tonic::async_trait]
impl Power for FakeMachines {
    async fn stop(&self, vmi: &VirtualMachineInstance, grace: Option<Duration>) -> Result<(), Unreachable> {
        lock(&self.stopped).push((vmi.metadata.name.clone().unwrap_or_default(), grace));
        Ok(())
    }

    async fn act(&self, vmi: &VirtualMachineInstance, act: Act) -> Result<(), Unreachable> {
        lock(&self.acts).push((vmi.metadata.name.clone().unwrap_or_default(), act));
        Ok(())
    }
}

#[tonic::async_trait]
impl Agents for FakeMachines {
    async fn tell(&self, _: &VirtualMachineInstance, command: Command) -> Result<Value, AgentError> {
        lock(&self.told).push(command);
        let answer = lock(&self.answers).get(command.name()).cloned();
        answer.ok_or_else(|| AgentError::Refused(format!("{} has not been found", command.name())))
    }

    async fn freeze_for(&self, vmi: &VirtualMachineInstance, time: Duration) -> Result<(), AgentError> {
        self.tell(vmi, Command::Freeze).await?;
        lock(&self.frozen).push(time);
        Ok(())
    }
}

/// A second passes between two looks, of which a quarter is spent.
#[tonic::async_trait]
impl Meters for FakeMachines {
    async fn usage(&self, _: &VirtualMachineInstance) -> Result<Usage, Unreachable> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Usage {
            at: looks * 1_000_000,
            cpu: looks * 250_000,
            memory: 96 << 20,
            cpus: 2,
            guest_memory: 128 << 20,
        })
    }
}

/// The guests' ports are this host's own, so that a test can listen on one.
#[tonic::async_trait]
impl Ports for FakeMachines {
    async fn dial(
        &self,
        _: &VirtualMachineInstance,
        protocol: Protocol,
        port: u16,
    ) -> Result<Connection, DialError> {
        let connected = async {
            Ok(match protocol {
                Protocol::Tcp => Connection::tcp(TcpStream::connect((LOOPBACK, port)).await?),
                Protocol::Udp => {
                    let socket = UdpSocket::bind((LOOPBACK, 0)).await?;
                    socket.connect((LOOPBACK, port)).await?;
                    Connection::udp(socket)
                }
            })
        };
        connected.await.map_err(DialError::Refused)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
