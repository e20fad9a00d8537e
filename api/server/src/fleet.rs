//! The machines of a whole cluster, as one node: whatever is asked of a machine is asked of the handler of the node that runs it.
//!
//! ```text
//!   VMI ──status.nodeName──► Node ──annotation──► address ──mutual TLS, rvm.v1──► its handler, which has the machine
//! ```
//!
//! Each request makes a connection of its own: a console lives for hours, all else is rare, and so a renewed certificate holds from
//! the next request on. Where a handler is found is not trusted: it has to show the handlers' certificate.

mod link;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{Api, Client, ResourceExt};
use rvm_proto::v1::console_request::{Open as OpenConsole, Request as FromViewer};
use rvm_proto::v1::console_response::Response as ToViewer;
use rvm_proto::v1::machines_client::MachinesClient;
use rvm_proto::v1::port_forward_request::{self as port, Open as OpenPort, Request as IntoPort};
use rvm_proto::v1::port_forward_response::Response as FromPort;
use rvm_proto::v1::{
    ActRequest, AgentRequest, ConsoleRequest, ConsoleResponse, FreezeRequest, PortForwardRequest,
    StopRequest, UsageRequest, act_request, agent_request,
};
use rvm_proto::{ERROR_DOMAIN, reasons};
use rvm_types::VirtualMachineInstance;
use rvm_types::names::annotations;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use crate::agent::{AgentError, Agents, Command};
use crate::certificates::{HANDLER, Identity};
use crate::connection::Connection;
use crate::console::{AttachError, ConsoleStream, Consoles, Role};
use crate::ports::{DialError, Ports, Protocol};
use crate::power::{Act, Power};
use crate::reach::Unreachable;
use crate::turns::Turn;
use crate::usage::{Meters, Usage};
use link::Far;

/// How long a handler may take to answer its door.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a silent handler is asked whether it is still there, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Bytes that are read at once from the one who types.
const CHUNK: usize = 16 << 10;
/// Requests on their way to a handler.
const QUEUE: usize = 4;

/// All nodes' machines.
#[derive(Clone)]
pub struct Fleet {
    client: Client,
    identity: watch::Receiver<Arc<Identity>>,
}

// === impl Fleet ===

impl Fleet {
    /// The handlers of this cluster, to whom we are this.
    pub fn new(client: Client, identity: watch::Receiver<Arc<Identity>>) -> Self {
        Self { client, identity }
    }

    /// The handler that has this machine.
    async fn handler(&self, vmi: &VirtualMachineInstance) -> Result<MachinesClient<Channel>, Unreachable> {
        let name = vmi.node_name().ok_or(Unreachable::NotRunning)?;
        let node = Api::<NodeObject>::all(self.client.clone()).get(name).await;
        let node = node.map_err(|error| unavailable(format!("node {name:?}: {error}")))?;
        let address = address(&node)
            .ok_or_else(|| unavailable(format!("the handler of node {name:?} does not say where it is")))?;
        let identity = Arc::clone(&self.identity.borrow());
        let channel = endpoint(&address, &identity).map_err(|error| unavailable(error.to_string()))?;
        let channel = channel.connect().await;
        let channel = channel.map_err(|error| {
            let cause =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            unavailable(format!("the handler of node {name:?}, at {address}: {cause}"))
        })?;
        Ok(MachinesClient::new(channel))
    }
}

fn endpoint(address: &str, identity: &Identity) -> Result<Endpoint, tonic::transport::Error> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&identity.bundle))
        .identity(tonic::transport::Identity::from_pem(
            &identity.pair.certificate,
            &identity.pair.key,
        ))
        .domain_name(HANDLER);
    Ok(Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(tls)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE))
}

/// Where a node's handler says that it is: HOST:PORT, or :PORT at the node's own address.
fn address(node: &NodeObject) -> Option<String> {
    let said = node.annotations().get(annotations::HANDLER_ADDRESS)?;
    if !said.starts_with(':') {
        return Some(said.clone());
    }
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP")?;
    match internal.address.parse().ok()? {
        std::net::IpAddr::V4(host) => Some(format!("{host}{said}")),
        std::net::IpAddr::V6(host) => Some(format!("[{host}]{said}")),
    }
}

fn unavailable(why: String) -> Unreachable {
    Unreachable::Unavailable(io::Error::other(why))
}

fn names(vmi: &VirtualMachineInstance) -> (String, String) {
    (vmi.namespace().unwrap_or_default(), vmi.name_any())
}

/// What the handler says of a machine that it does not reach.
fn unreachable(status: &Status) -> Unreachable {
    match reason(status).as_deref() {
        Some(reasons::NOT_RUNNING_YET | reasons::ENDED) => Unreachable::NotRunning,
        _ => unavailable(status.message().to_owned()),
    }
}

fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == ERROR_DOMAIN).then_some(info.reason)
}

#[tonic::async_trait]
impl Consoles for Fleet {
    async fn attach(&self, vmi: &VirtualMachineInstance, role: Role) -> Result<ConsoleStream, AttachError> {
        let mut handler = self.handler(vmi).await?;
        let (namespace, name) = names(vmi);
        let (requests, sent) = mpsc::channel(QUEUE);
        let open = FromViewer::Open(OpenConsole {
            namespace,
            name,
            read_only: role == Role::Looks,
        });
        // The queue is empty, and its other end is in our hands.
        let _ = requests.send(asked(open)).await;
        let console = handler.console(ReceiverStream::new(sent)).await;
        let mut responses = console.map_err(|status| no_console(&status))?.into_inner();
        let first = responses.message().await.map_err(|status| no_console(&status))?;
        let Some(ToViewer::Attached(attached)) = first.and_then(|first| first.response) else {
            return Err(unavailable("the handler opens no console".to_owned()).into());
        };
        let (near, far) = link::pipe();
        let (kept, turn) = Turn::kept_elsewhere();
        tokio::spawn(carry(far, requests, responses, kept));
        Ok(ConsoleStream::new(near, attached.node, turn).with_accelerator(attached.accelerator))
    }
}

fn no_console(status: &Status) -> AttachError {
    match reason(status).as_deref() {
        Some(reasons::NO_CONSOLE) => AttachError::NoConsole,
        _ => unreachable(status).into(),
    }
}

fn asked(request: FromViewer) -> ConsoleRequest {
    ConsoleRequest {
        request: Some(request),
    }
}

/// Moves a console's bytes both ways, until either end is done, or the link to the handler is lost.
async fn carry(
    Far { pipe, link }: Far,
    requests: mpsc::Sender<ConsoleRequest>,
    mut responses: Streaming<ConsoleResponse>,
    turn: oneshot::Sender<()>,
) {
    let mut turn = Some(turn);
    let (mut typed, mut shown) = tokio::io::split(pipe);
    let to_machine = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = typed.read(&mut chunk).await {
            let input = Bytes::copy_from_slice(chunk.get(..count).unwrap_or_default());
            if requests.send(asked(FromViewer::Input(input))).await.is_err() {
                return;
            }
        }
    };
    let to_viewer = async {
        loop {
            let response = match responses.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return,
                Err(_) => return link.is_lost(),
            };
            match response.response {
                Some(ToViewer::Output(output)) if shown.write_all(&output).await.is_err() => return,
                Some(ToViewer::TakenOver(_)) => {
                    // Whoever had it may be gone.
                    let _ = turn.take().map(|turn| turn.send(()));
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        () = to_machine => {}
        () = to_viewer => {}
    }
}

#[tonic::async_trait]
impl Power for Fleet {
    async fn stop(&self, vmi: &VirtualMachineInstance, grace: Option<Duration>) -> Result<(), Unreachable> {
        let (namespace, name) = names(vmi);
        let seconds = |grace: Duration| u32::try_from(grace.as_secs()).unwrap_or(u32::MAX);
        let request = StopRequest {
            namespace,
            name,
            grace_period_seconds: grace.map(seconds),
        };
        let stopped = self.handler(vmi).await?.stop(request).await;
        stopped.map(drop).map_err(|status| unreachable(&status))
    }

    async fn act(&self, vmi: &VirtualMachineInstance, act: Act) -> Result<(), Unreachable> {
        let (namespace, name) = names(vmi);
        let request = ActRequest {
            namespace,
            name,
            act: act_request::Act::from(act).into(),
        };
        let acted = self.handler(vmi).await?.act(request).await;
        acted.map(drop).map_err(|status| unreachable(&status))
    }
}

#[tonic::async_trait]
impl Agents for Fleet {
    async fn tell(&self, vmi: &VirtualMachineInstance, command: Command) -> Result<Value, AgentError> {
        let (namespace, name) = names(vmi);
        let request = AgentRequest {
            namespace,
            name,
            command: agent_request::Command::from(command).into(),
        };
        let told = self.handler(vmi).await?.agent(request).await;
        let answer = told.map_err(|status| no_answer(&status))?.into_inner().answer;
        let said = serde_json::from_slice(&answer);
        said.map_err(|error| unavailable(format!("the handler's answer is no JSON: {error}")).into())
    }

    async fn freeze_for(&self, vmi: &VirtualMachineInstance, time: Duration) -> Result<(), AgentError> {
        let (namespace, name) = names(vmi);
        let request = FreezeRequest {
            namespace,
            name,
            // At once would be never.
            thaw_after_milliseconds: u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1),
        };
        let frozen = self.handler(vmi).await?.freeze(request).await;
        frozen.map(drop).map_err(|status| no_answer(&status))
    }
}

#[tonic::async_trait]
impl Meters for Fleet {
    async fn usage(&self, vmi: &VirtualMachineInstance) -> Result<Usage, Unreachable> {
        let (namespace, name) = names(vmi);
        let request = UsageRequest { namespace, name };
        let said = self.handler(vmi).await?.usage(request).await;
        said.map(|said| said.into_inner().into())
            .map_err(|status| unreachable(&status))
    }
}

fn no_answer(status: &Status) -> AgentError {
    match reason(status).as_deref() {
        Some(reasons::NO_AGENT) => AgentError::Absent,
        Some(reasons::AGENT_REFUSED) => AgentError::Refused(status.message().to_owned()),
        _ => unreachable(status).into(),
    }
}

#[tonic::async_trait]
impl Ports for Fleet {
    async fn dial(
        &self,
        vmi: &VirtualMachineInstance,
        protocol: Protocol,
        port: u16,
    ) -> Result<Connection, DialError> {
        let mut handler = self.handler(vmi).await?;
        let (namespace, name) = names(vmi);
        let (requests, sent) = mpsc::channel(QUEUE);
        let open = IntoPort::Open(OpenPort {
            namespace,
            name,
            protocol: port::Protocol::from(protocol).into(),
            port: port.into(),
        });
        // The queue is empty, and its other end is in our hands.
        let _ = requests.send(PortForwardRequest { request: Some(open) }).await;
        let connected = handler.port_forward(ReceiverStream::new(sent)).await;
        let mut responses = connected.map_err(|status| no_port(&status))?.into_inner();
        match responses.message().await.map_err(|status| no_port(&status))? {
            Some(first) if matches!(first.response, Some(FromPort::Connected(_))) => {
                Ok(Connection::carried(protocol, responses, requests))
            }
            _ => Err(DialError::Refused(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn no_port(status: &Status) -> DialError {
    match (reason(status).as_deref(), status.code()) {
        (Some(reasons::NO_NETWORK), _) => DialError::NoNetwork(status.message().to_owned()),
        (None, tonic::Code::Unavailable) => DialError::Refused(io::Error::other(status.message().to_owned())),
        _ => unreachable(status).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(said: &str, internal: &str) -> NodeObject {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "annotations": {annotations::HANDLER_ADDRESS: said}},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": internal},
            ]},
        }))
        .expect("a node")
    }

    #[test]
    fn a_handler_is_where_it_says_or_at_its_nodes_own_address() {
        assert_eq!(
            address(&node("10.0.0.9:1", "10.0.0.1")).as_deref(),
            Some("10.0.0.9:1")
        );
        assert_eq!(
            address(&node(":8187", "10.0.0.1")).as_deref(),
            Some("10.0.0.1:8187")
        );
        assert_eq!(
            address(&node(":8187", "fd00::1")).as_deref(),
            Some("[fd00::1]:8187")
        );
        assert_eq!(address(&node(":8187", "nonsense")), None);
        assert_eq!(address(&NodeObject::default()), None);
    }
}
