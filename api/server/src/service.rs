//! The service itself: each call of rvm.v1, in a few lines that say what it does.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::Client;
use rvm_proto::MAX_MESSAGE;
use rvm_proto::v1::console_request::Request as FromViewer;
use rvm_proto::v1::images_server::ImagesServer;
use rvm_proto::v1::machines_server::{Machines, MachinesServer};
use rvm_proto::v1::port_forward_request::Request as IntoPort;
use rvm_proto::v1::virtual_machines_server::VirtualMachinesServer;
use rvm_proto::v1::{
    ActRequest, ActResponse, AgentRequest, AgentResponse, ApplyRequest, ApplyResponse, ConsoleRequest,
    ConsoleResponse, DeleteRequest, DeleteResponse, FreezeRequest, FreezeResponse, GetRequest, GetResponse,
    GuestInfoRequest, GuestInfoResponse, ListFileSystemsRequest, ListFileSystemsResponse, ListRequest,
    ListResponse, ListUsersRequest, ListUsersResponse, PortForwardRequest, PortForwardResponse,
    SoftRebootRequest, SoftRebootResponse, StopRequest, StopResponse, UnfreezeRequest, UnfreezeResponse,
    UsageRequest, UsageResponse, VersionRequest, VersionResponse, WatchRequest, WatchResponse,
};
use rvm_types::VirtualMachineInstance;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::access::{Caller, Gate, Wanted};
use crate::agent::{self, AgentError};
use crate::console::{self, AttachError, Role};
use crate::error::invalid_argument;
use crate::images::{ImageStore, ImagesService};
use crate::node::Node;
use crate::objects::{Objects, or_default, to_json};
use crate::ports::{self, DialError};
use crate::power;
use crate::reach::Unreachable;
use crate::subresources::{Machine, Subresources, guest};
use crate::usage;
use crate::virtual_machines::VirtualMachinesService;
use crate::watch::watch;

/// The machines of a cluster, and the consoles that this node reaches.
#[derive(Clone)]
pub struct MachinesService {
    objects: Objects,
    node: Arc<dyn Node>,
    images: Option<ImagesService>,
    below: Subresources,
    gate: Gate,
}

impl MachinesService {
    /// A service over this cluster, and over the machines of this node.
    pub fn new(client: Client, node: Arc<dyn Node>) -> Self {
        Self {
            objects: Objects::new(client.clone()),
            below: Subresources::new(client, Arc::clone(&node)),
            node,
            images: None,
            gate: Gate::Open,
        }
    }

    /// For users of this cluster, each of whom may do what their roles let them.
    #[must_use]
    pub fn by_roles_of(self, client: Client) -> Self {
        Self {
            gate: Gate::Roles(client),
            ..self
        }
    }

    /// With the images of this node.
    #[must_use]
    pub fn with_images(self, store: Arc<dyn ImageStore>) -> Self {
        let images = ImagesService::new(self.objects.clone(), store);
        Self {
            images: Some(images),
            ..self
        }
    }

    /// The service of images with its limits, ready for a server.
    pub fn images_server(&self) -> Option<ImagesServer<ImagesService>> {
        let server = ImagesServer::new(self.images.clone()?);
        Some(server.max_encoding_message_size(MAX_MESSAGE))
    }

    /// The service of VirtualMachines with its limits, ready for a server.
    pub(crate) fn virtual_machines(&self) -> VirtualMachinesServer<VirtualMachinesService> {
        VirtualMachinesService::new(self.below.clone(), self.gate.clone()).into_server()
    }

    /// The service with its limits, ready for a server.
    pub fn into_server(self) -> MachinesServer<Self> {
        MachinesServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// A machine, for somebody who may do this with it.
    async fn machine(
        &self,
        caller: &Caller,
        verb: &'static str,
        (namespace, name): &Machine,
        subresource: &str,
    ) -> Result<VirtualMachineInstance, Status> {
        let wanted = Wanted::of_instance(verb, (namespace, name), subresource);
        caller.may(&wanted).await?;
        self.objects.get_typed(namespace, name).await
    }

    /// The same, where somebody else reads it.
    async fn allowed(
        &self,
        caller: &Caller,
        verb: &'static str,
        (namespace, name): (String, String),
        subresource: &str,
    ) -> Result<Machine, Status> {
        let machine = (or_default(namespace), name);
        let wanted = Wanted::of_instance(verb, (&machine.0, &machine.1), subresource);
        caller.may(&wanted).await.map(|()| machine)
    }

    /// Waits for the first request of a viewer and opens the console that it names.
    async fn open(
        &self,
        caller: &Caller,
        mut requests: Streaming<ConsoleRequest>,
    ) -> Result<ReceiverStream<Result<ConsoleResponse, Status>>, Status> {
        let first = requests.message().await?.and_then(|first| first.request);
        let Some(FromViewer::Open(open)) = first else {
            return Err(invalid_argument(
                "the first request must say which console to open",
            ));
        };
        let machine = (or_default(open.namespace), open.name);
        let vmi = self.machine(caller, "get", &machine, "console").await?;
        let refusal = |error: AttachError| console::refusal(&machine.1, &error);
        console::judge(&vmi).map_err(refusal)?;
        let role = if open.read_only { Role::Looks } else { Role::Types };
        let stream = self.node.attach(&vmi, role).await.map_err(refusal)?;
        Ok(ReceiverStream::new(console::view(
            stream,
            requests,
            open.read_only,
        )))
    }

    /// Waits for the first request into a port and connects to the one that it names.
    async fn connect(
        &self,
        caller: &Caller,
        mut requests: Streaming<PortForwardRequest>,
    ) -> Result<ReceiverStream<Result<PortForwardResponse, Status>>, Status> {
        let first = requests.message().await?.and_then(|first| first.request);
        let Some(IntoPort::Open(open)) = first else {
            return Err(invalid_argument("the first request must say which port to open"));
        };
        let (protocol, port) = ports::wanted(&open)?;
        let machine = (or_default(open.namespace), open.name);
        let vmi = self.machine(caller, "get", &machine, "portforward").await?;
        let refusal = |error: DialError| ports::refusal(&machine.1, port, &error);
        Unreachable::judge(&vmi).map_err(|why| refusal(why.into()))?;
        let connection = self.node.dial(&vmi, protocol, port).await.map_err(refusal)?;
        Ok(ReceiverStream::new(ports::forward(connection, requests)))
    }
}

#[tonic::async_trait]
impl Machines for MachinesService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;
    type ConsoleStream = ReceiverStream<Result<ConsoleResponse, Status>>;
    type PortForwardStream = ReceiverStream<Result<PortForwardResponse, Status>>;

    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        caller.may(&Wanted::of_group("get", "", "version")).await?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(VersionResponse {
            version,
            api_versions: vec!["v1".to_owned()],
        }))
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let ApplyRequest { manifest, namespace } = request.into_inner();
        let (outcome, object) = self.objects.apply(&manifest, &namespace, &caller).await?;
        Ok(Response::new(ApplyResponse {
            outcome: outcome.into(),
            object: to_json(object)?,
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let GetRequest { namespace, name } = request.into_inner();
        let namespace = or_default(namespace);
        caller.may(&Wanted::object("get", &namespace, &name)).await?;
        let object = self.objects.get(&namespace, &name).await?;
        Ok(Response::new(GetResponse {
            object: to_json(object)?,
        }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let namespace = request.into_inner().namespace;
        caller.may(&Wanted::object("list", &namespace, "")).await?;
        let objects = self.objects.list(&namespace).await?;
        let objects = objects.into_iter().map(to_json).collect::<Result<_, _>>()?;
        Ok(Response::new(ListResponse { objects }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.gate.caller(&request)?;
        let WatchRequest { namespace, name } = request.into_inner();
        let (namespace, name) = match name.as_str() {
            "" => (namespace, None),
            _ => (or_default(namespace), Some(name)),
        };
        let one = name.as_deref().unwrap_or_default();
        for verb in ["list", "watch"] {
            caller.may(&Wanted::object(verb, &namespace, one)).await?;
        }
        let api = self.objects.all_or(&namespace)?;
        Ok(Response::new(watch(api, name).boxed()))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let StopRequest {
            namespace,
            name,
            grace_period_seconds,
        } = request.into_inner();
        let namespace = or_default(namespace);
        caller.may(&Wanted::object("delete", &namespace, &name)).await?;
        let vmi = self.objects.get_typed(&namespace, &name).await?;
        let refusal = |error: Unreachable| error.status(&format!("{name:?} cannot be stopped"));
        Unreachable::judge_end(&vmi).map_err(refusal)?;
        let grace = grace_period_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        self.node.stop(&vmi, grace).await.map_err(refusal)?;
        Ok(Response::new(StopResponse {}))
    }

    async fn act(&self, request: Request<ActRequest>) -> Result<Response<ActResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let act = power::wanted(request.act())?;
        let machine = (or_default(request.namespace), request.name);
        let vmi = self
            .machine(&caller, "update", &machine, act.subresource())
            .await?;
        let refusal = |error: Unreachable| error.status(&format!("nothing can be done with {:?}", machine.1));
        Unreachable::judge(&vmi).map_err(refusal)?;
        self.node.act(&vmi, act).await.map_err(refusal)?;
        Ok(Response::new(ActResponse {}))
    }

    async fn agent(&self, request: Request<AgentRequest>) -> Result<Response<AgentResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let command = agent::wanted(request.command())?;
        let machine = (or_default(request.namespace), request.name);
        let (verb, subresource) = command.subresource();
        let vmi = self.machine(&caller, verb, &machine, subresource).await?;
        let refusal = |error: AgentError| agent::refusal(&machine.1, &error);
        Unreachable::judge(&vmi).map_err(|why| refusal(why.into()))?;
        let said = self.node.tell(&vmi, command).await.map_err(refusal)?;
        let answer = said.to_string().into();
        Ok(Response::new(AgentResponse { answer }))
    }

    async fn soft_reboot(
        &self,
        request: Request<SoftRebootRequest>,
    ) -> Result<Response<SoftRebootResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let SoftRebootRequest { namespace, name } = request.into_inner();
        let machine = (namespace, name);
        let machine = self.allowed(&caller, "update", machine, "softreboot").await?;
        self.below.soft_reboot(&machine).await?;
        Ok(Response::new(SoftRebootResponse {}))
    }

    async fn freeze(&self, request: Request<FreezeRequest>) -> Result<Response<FreezeResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let asked = request.into_inner();
        let time = guest::bounded(Duration::from_millis(asked.thaw_after_milliseconds.into()));
        let time = time.map_err(|why| invalid_argument(format!("thaw_after_milliseconds {why}")))?;
        let machine = (asked.namespace, asked.name);
        let machine = self.allowed(&caller, "update", machine, "freeze").await?;
        self.below.freeze(&machine, time).await?;
        Ok(Response::new(FreezeResponse {}))
    }

    async fn unfreeze(
        &self,
        request: Request<UnfreezeRequest>,
    ) -> Result<Response<UnfreezeResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let UnfreezeRequest { namespace, name } = request.into_inner();
        let machine = (namespace, name);
        let machine = self.allowed(&caller, "update", machine, "unfreeze").await?;
        self.below.unfreeze(&machine).await?;
        Ok(Response::new(UnfreezeResponse {}))
    }

    async fn guest_info(
        &self,
        request: Request<GuestInfoRequest>,
    ) -> Result<Response<GuestInfoResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let GuestInfoRequest { namespace, name } = request.into_inner();
        let machine = (namespace, name);
        let machine = self.allowed(&caller, "get", machine, "guestosinfo").await?;
        let info = self.below.guest_info(&machine).await?.to_string().into();
        Ok(Response::new(GuestInfoResponse { info }))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let ListUsersRequest { namespace, name } = request.into_inner();
        let machine = (namespace, name);
        let machine = self.allowed(&caller, "get", machine, "userlist").await?;
        let users = self.below.guest_users(&machine).await?.to_string().into();
        Ok(Response::new(ListUsersResponse { users }))
    }

    async fn list_file_systems(
        &self,
        request: Request<ListFileSystemsRequest>,
    ) -> Result<Response<ListFileSystemsResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let ListFileSystemsRequest { namespace, name } = request.into_inner();
        let machine = (namespace, name);
        let machine = self.allowed(&caller, "get", machine, "filesystemlist").await?;
        let file_systems = self.below.guest_file_systems(&machine).await?.to_string().into();
        Ok(Response::new(ListFileSystemsResponse { file_systems }))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Result<Response<UsageResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let UsageRequest { namespace, name } = request.into_inner();
        let machine = (or_default(namespace), name);
        let vmi = self.machine(&caller, "get", &machine, "usage").await?;
        let refusal = |why: Unreachable| usage::refusal(&machine.1, &why);
        Unreachable::judge(&vmi).map_err(refusal)?;
        let usage = self.node.usage(&vmi).await.map_err(refusal)?;
        Ok(Response::new(usage.into()))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let DeleteRequest { namespace, name } = request.into_inner();
        let namespace = or_default(namespace);
        caller.may(&Wanted::object("delete", &namespace, &name)).await?;
        let uid = self.objects.delete(&namespace, &name).await?;
        Ok(Response::new(DeleteResponse { uid }))
    }

    async fn console(
        &self,
        request: Request<Streaming<ConsoleRequest>>,
    ) -> Result<Response<Self::ConsoleStream>, Status> {
        let caller = self.gate.caller(&request)?;
        self.open(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        let caller = self.gate.caller(&request)?;
        self.connect(&caller, request.into_inner())
            .await
            .map(Response::new)
    }
}
