//! A program that speaks rvm.v1 to rvm-api, as one of the cluster's users.

use std::fs;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rvm_proto::v1::console_request::{Open, Request};
use rvm_proto::v1::console_response::Response;
use rvm_proto::v1::machines_client::MachinesClient;
use rvm_proto::v1::virtual_machines_client::VirtualMachinesClient;
use rvm_proto::v1::{ConsoleRequest, ConsoleResponse};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Status, Streaming};

use crate::certificates::Pair;

/// How long anything may take that will come if it comes at all.
const PATIENCE: Duration = Duration::from_secs(120);

/// By what a program shows who it is.
#[derive(Debug, Clone, Copy)]
pub enum Shows<'a> {
    /// Nothing.
    Nothing,
    /// A client certificate.
    Certificate(&'a Pair),
    /// A bearer token.
    Token(&'a str),
}

/// A connection.
#[derive(Debug)]
pub struct Grpc {
    runtime: Runtime,
    channel: Channel,
    bearer: Bearer,
}

/// Puts a token to each call, if there is one.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

/// What calls go through.
pub type Link = InterceptedService<Channel, Bearer>;

/// A console that is open.
#[derive(Debug)]
pub struct Viewer<'a> {
    grpc: &'a Grpc,
    typed: mpsc::Sender<ConsoleRequest>,
    seen: Streaming<ConsoleResponse>,
    said: Vec<u8>,
    taken_over: bool,
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

// === impl Grpc ===

impl Grpc {
    /// Connects to this address, where somebody must be whom this authority vouches for.
    ///
    /// # Errors
    /// Nobody is, or the certificate that is shown is not taken.
    pub fn open(address: &str, authority: &[u8], shows: Shows<'_>) -> Result<Self> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        let mut bearer = Bearer(None);
        match shows {
            Shows::Nothing => {}
            Shows::Certificate(pair) => {
                let (certificate, key) = (fs::read(&pair.certificate)?, fs::read(&pair.key)?);
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            Shows::Token(token) => bearer.0 = Some(format!("Bearer {token}").parse()?),
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let channel = runtime.block_on(endpoint.connect())?;
        Ok(Self {
            runtime,
            channel,
            bearer,
        })
    }

    /// The machines.
    #[must_use]
    pub fn machines(&self) -> MachinesClient<Link> {
        MachinesClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// The VirtualMachines.
    #[must_use]
    pub fn virtual_machines(&self) -> VirtualMachinesClient<Link> {
        VirtualMachinesClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// The connection itself, and what is put to each call.
    #[must_use]
    pub fn link(&self) -> Link {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    /// Waits for a call.
    ///
    /// # Errors
    /// What it ends in.
    pub fn wait<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let called = async { tokio::time::timeout(PATIENCE, call).await };
        let ended = self.runtime.block_on(called);
        ended.unwrap_or_else(|_| Err(Status::deadline_exceeded("it takes too long")))
    }

    /// Opens a console.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn console(&self, namespace: &str, name: &str, read_only: bool) -> Result<Viewer<'_>, Status> {
        let (typed, requests) = mpsc::channel(1);
        let open = Request::Open(Open {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            read_only,
        });
        let open = ConsoleRequest { request: Some(open) };
        let seen = self.wait(async {
            // The queue is empty, and its other end is in our hands.
            let _ = typed.send(open).await;
            let console = self.machines().console(ReceiverStream::new(requests)).await;
            let mut seen = console?.into_inner();
            match seen.message().await?.and_then(|first| first.response) {
                Some(Response::Attached(_)) => Ok(seen),
                other => Err(Status::internal(format!("{other:?} came first"))),
            }
        })?;
        Ok(Viewer {
            grpc: self,
            typed,
            seen,
            said: Vec::new(),
            taken_over: false,
        })
    }
}

// === impl Viewer ===

impl Viewer<'_> {
    /// Types this.
    ///
    /// # Errors
    /// The console is closed.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let input = Request::Input(bytes.to_vec().into());
        let request = ConsoleRequest { request: Some(input) };
        let sent = self.grpc.wait(async { Ok(self.typed.send(request).await) })?;
        Ok(sent?)
    }

    /// Waits until this was printed, since it was last waited for something.
    ///
    /// # Errors
    /// It never was.
    pub fn expect(&mut self, text: &str) -> Result<()> {
        loop {
            let said = String::from_utf8_lossy(&self.said).into_owned();
            if let Some(at) = said.find(text) {
                self.said = said.as_bytes()[at + text.len()..].to_vec();
                return Ok(());
            }
            let next = self.next();
            ensure!(
                next.with_context(|| format!("instead of {text:?} after {said:?}"))?,
                "the console ended instead of {text:?} after {said:?}"
            );
        }
    }

    /// Waits until it is told that somebody else types.
    ///
    /// # Errors
    /// It never is.
    pub fn until_taken_over(&mut self) -> Result<()> {
        while !self.taken_over {
            ensure!(self.next()?, "the console ended");
        }
        Ok(())
    }

    /// Hears what is next; whether there is something.
    fn next(&mut self) -> Result<bool> {
        let grpc = self.grpc;
        match grpc.wait(self.seen.message())?.map(|said| said.response) {
            None => return Ok(false),
            Some(Some(Response::Output(output))) => self.said.extend_from_slice(&output),
            Some(Some(Response::TakenOver(_))) => self.taken_over = true,
            Some(other) => bail!("{other:?}"),
        }
        Ok(true)
    }
}
