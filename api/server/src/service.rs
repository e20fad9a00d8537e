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
use rvm_proto::v1::{
    ActRequest, ActResponse, AgentRequest, AgentResponse, ApplyRequest, ApplyResponse, ConsoleRequest,
    ConsoleResponse, DeleteRequest, DeleteResponse, GetRequest, GetResponse, ListRequest, ListResponse,
    PortForwardRequest, PortForwardResponse, StopRequest, StopResponse, VersionRequest, VersionResponse,
    WatchRequest, WatchResponse,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::agent::{self, AgentError};
use crate::console::{self, AttachError};
use crate::error::invalid_argument;
use crate::images::{ImageStore, ImagesService};
use crate::node::Node;
use crate::objects::{Objects, to_json};
use crate::ports::{self, DialError};
use crate::power;
use crate::reach::Unreachable;
use crate::watch::watch;

/// The machines of a cluster, and the consoles that this node reaches.
#[derive(Clone)]
pub struct MachinesService {
    objects: Objects,
    node: Arc<dyn Node>,
    images: Option<ImagesService>,
}

impl MachinesService {
    /// A service over this cluster, and over the machines of this node.
    pub fn new(client: Client, node: Arc<dyn Node>) -> Self {
        Self {
            objects: Objects::new(client),
            node,
            images: None,
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

    /// The service with its limits, ready for a server.
    pub fn into_server(self) -> MachinesServer<Self> {
        MachinesServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// Waits for the first request of a viewer and opens the console that it names.
    async fn open(
        &self,
        mut requests: Streaming<ConsoleRequest>,
    ) -> Result<ReceiverStream<Result<ConsoleResponse, Status>>, Status> {
        let first = requests.message().await?.and_then(|first| first.request);
        let Some(FromViewer::Open(open)) = first else {
            return Err(invalid_argument(
                "the first request must say which console to open",
            ));
        };
        let vmi = self.objects.get_typed(&open.namespace, &open.name).await?;
        let refusal = |error: AttachError| console::refusal(&open.name, &error);
        console::judge(&vmi).map_err(refusal)?;
        let stream = self.node.attach(&vmi).await.map_err(refusal)?;
        Ok(ReceiverStream::new(console::view(
            stream,
            requests,
            open.read_only,
        )))
    }

    /// Waits for the first request into a port and connects to the one that it names.
    async fn connect(
        &self,
        mut requests: Streaming<PortForwardRequest>,
    ) -> Result<ReceiverStream<Result<PortForwardResponse, Status>>, Status> {
        let first = requests.message().await?.and_then(|first| first.request);
        let Some(IntoPort::Open(open)) = first else {
            return Err(invalid_argument("the first request must say which port to open"));
        };
        let (protocol, port) = ports::wanted(&open)?;
        let vmi = self.objects.get_typed(&open.namespace, &open.name).await?;
        let refusal = |error: DialError| ports::refusal(&open.name, port, &error);
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

    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(VersionResponse {
            version,
            api_versions: vec!["v1".to_owned()],
        }))
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let ApplyRequest { manifest, namespace } = request.into_inner();
        let (outcome, object) = self.objects.apply(&manifest, &namespace).await?;
        Ok(Response::new(ApplyResponse {
            outcome: outcome.into(),
            object: to_json(object)?,
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { namespace, name } = request.into_inner();
        let object = self.objects.get(&namespace, &name).await?;
        Ok(Response::new(GetResponse {
            object: to_json(object)?,
        }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let objects = self.objects.list(&request.into_inner().namespace).await?;
        let objects = objects.into_iter().map(to_json).collect::<Result<_, _>>()?;
        Ok(Response::new(ListResponse { objects }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { namespace, name } = request.into_inner();
        let (api, name) = match name.as_str() {
            "" => (self.objects.all_or(&namespace)?, None),
            _ => (self.objects.namespaced(&namespace)?, Some(name)),
        };
        Ok(Response::new(watch(api, name).boxed()))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let StopRequest {
            namespace,
            name,
            grace_period_seconds,
        } = request.into_inner();
        let vmi = self.objects.get_typed(&namespace, &name).await?;
        let refusal = |error: Unreachable| error.status(&format!("{name:?} cannot be stopped"));
        Unreachable::judge_end(&vmi).map_err(refusal)?;
        let grace = grace_period_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        self.node.stop(&vmi, grace).await.map_err(refusal)?;
        Ok(Response::new(StopResponse {}))
    }

    async fn act(&self, request: Request<ActRequest>) -> Result<Response<ActResponse>, Status> {
        let request = request.into_inner();
        let act = power::wanted(request.act())?;
        let name = &request.name;
        let vmi = self.objects.get_typed(&request.namespace, name).await?;
        let refusal = |error: Unreachable| error.status(&format!("nothing can be done with {name:?}"));
        Unreachable::judge(&vmi).map_err(refusal)?;
        self.node.act(&vmi, act).await.map_err(refusal)?;
        Ok(Response::new(ActResponse {}))
    }

    async fn agent(&self, request: Request<AgentRequest>) -> Result<Response<AgentResponse>, Status> {
        let request = request.into_inner();
        let command = agent::wanted(request.command())?;
        let name = &request.name;
        let vmi = self.objects.get_typed(&request.namespace, name).await?;
        let refusal = |error: AgentError| agent::refusal(name, &error);
        Unreachable::judge(&vmi).map_err(|why| refusal(why.into()))?;
        let said = self.node.tell(&vmi, command).await.map_err(refusal)?;
        let answer = said.to_string().into();
        Ok(Response::new(AgentResponse { answer }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { namespace, name } = request.into_inner();
        let uid = self.objects.delete(&namespace, &name).await?;
        Ok(Response::new(DeleteResponse { uid }))
    }

    async fn console(
        &self,
        request: Request<Streaming<ConsoleRequest>>,
    ) -> Result<Response<Self::ConsoleStream>, Status> {
        self.open(request.into_inner()).await.map(Response::new)
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        self.connect(request.into_inner()).await.map(Response::new)
    }
}
