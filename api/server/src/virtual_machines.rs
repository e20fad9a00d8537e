//! rvm.v1's service of VirtualMachines: what `subresources` judges and writes, for programs.

use rvm_proto::MAX_MESSAGE;
use rvm_proto::v1::expand_virtual_machine_request::Which;
use rvm_proto::v1::virtual_machines_server::{VirtualMachines, VirtualMachinesServer};
use rvm_proto::v1::{
    ExpandVirtualMachineRequest, ExpandVirtualMachineResponse, RestartVirtualMachineRequest,
    RestartVirtualMachineResponse, StartVirtualMachineRequest, StartVirtualMachineResponse,
    StopVirtualMachineRequest, StopVirtualMachineResponse,
};
use tonic::{Request, Response, Status};

use crate::access::{Caller, Gate, Wanted};
use crate::error::invalid_argument;
use crate::objects::or_default;
use crate::subresources::Subresources;
use crate::subresources::expand::expand_given;
use crate::subresources::machine::Action;

/// The VirtualMachines of a cluster.
#[derive(Clone)]
pub(crate) struct VirtualMachinesService {
    below: Subresources,
    gate: Gate,
}

impl VirtualMachinesService {
    pub(crate) fn new(below: Subresources, gate: Gate) -> Self {
        Self { below, gate }
    }

    /// The service with its limits, ready for a server.
    pub(crate) fn into_server(self) -> VirtualMachinesServer<Self> {
        VirtualMachinesServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    async fn act(
        &self,
        caller: &Caller,
        (namespace, name): (String, String),
        (word, action): (&str, Action),
        dry_run: bool,
    ) -> Result<(), Status> {
        let namespace = or_default(namespace);
        let wanted = Wanted::of_machine("update", (&namespace, &name), word);
        caller.may(&wanted).await?;
        Ok(self.below.act((namespace, name), action, dry_run).await?)
    }
}

#[tonic::async_trait]
impl VirtualMachines for VirtualMachinesService {
    async fn start(
        &self,
        request: Request<StartVirtualMachineRequest>,
    ) -> Result<Response<StartVirtualMachineResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let asked = request.into_inner();
        let action = Action::Start { paused: asked.paused };
        let machine = (asked.namespace, asked.name);
        self.act(&caller, machine, ("start", action), asked.dry_run)
            .await?;
        Ok(Response::new(StartVirtualMachineResponse {}))
    }

    async fn stop(
        &self,
        request: Request<StopVirtualMachineRequest>,
    ) -> Result<Response<StopVirtualMachineResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let asked = request.into_inner();
        let grace = asked.grace_period_seconds.map(u64::from);
        let machine = (asked.namespace, asked.name);
        let action = Action::Stop { grace };
        self.act(&caller, machine, ("stop", action), asked.dry_run)
            .await?;
        Ok(Response::new(StopVirtualMachineResponse {}))
    }

    async fn restart(
        &self,
        request: Request<RestartVirtualMachineRequest>,
    ) -> Result<Response<RestartVirtualMachineResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let asked = request.into_inner();
        let grace = asked.force.then_some(0);
        let machine = (asked.namespace, asked.name);
        let action = Action::Restart { grace };
        self.act(&caller, machine, ("restart", action), asked.dry_run)
            .await?;
        Ok(Response::new(RestartVirtualMachineResponse {}))
    }

    async fn expand(
        &self,
        request: Request<ExpandVirtualMachineRequest>,
    ) -> Result<Response<ExpandVirtualMachineResponse>, Status> {
        let caller = self.gate.caller(&request)?;
        let ExpandVirtualMachineRequest { namespace, which } = request.into_inner();
        let namespace = or_default(namespace);
        let expanded = match which {
            Some(Which::Name(name)) => {
                let wanted = Wanted::of_machine("get", (&namespace, &name), "expand-spec");
                caller.may(&wanted).await?;
                self.below.expand(&(namespace, name)).await?
            }
            Some(Which::Given(given)) => {
                let wanted = Wanted::of_group("update", &namespace, "expand-vm-spec");
                caller.may(&wanted).await?;
                expand_given(&given, &namespace)?
            }
            None => return Err(invalid_argument("the request does not say which VirtualMachine")),
        };
        let object = expanded.to_string().into();
        Ok(Response::new(ExpandVirtualMachineResponse { object }))
    }
}
