//! A console by rvm.v1: what was said to nobody yet comes first, and others may look on.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use rvm_proto::reasons::NOT_RUNNING_YET;
use rvm_proto::v1::console_request::{Close, Open, Request};
use rvm_proto::v1::console_response::Response;
use rvm_proto::v1::{ConsoleRequest, GetRequest};
use rvm_types::Phase;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic_types::StatusExt;

use super::machine::tell;
use super::{Attached, Attempt, QUEUE, Typed};
use crate::connect::Client;
use crate::screen::progress;
use crate::verbs::{Changes, parse};

/// Between two attempts to attach to a machine that should run by now.
const AGAIN: Duration = Duration::from_millis(200);
/// On a line of its own, also where the terminal is raw.
const TAKEN_OVER: &str = "\r\nSomebody else types at this console now; what you type goes nowhere. Attach again to take it back.\r";

pub(super) struct Rvm {
    client: Client,
    open: Open,
}

// === impl Rvm ===

impl Rvm {
    pub(super) fn new(client: Client, namespace: String, name: &str, read_only: bool) -> Self {
        let name = name.to_owned();
        Self {
            client,
            open: Open {
                namespace,
                name,
                read_only,
            },
        }
    }

    pub(super) async fn attach(&mut self) -> Result<Attempt> {
        match self.try_to().await {
            Ok(console) => Ok(Attempt::Attached(console)),
            Err(status) if is_early(&status) => Ok(Attempt::Early(status.into())),
            Err(status) => Err(status.into()),
        }
    }

    async fn try_to(&mut self) -> Result<Attached, Status> {
        let (typed, orders) = mpsc::channel(QUEUE);
        let open = Request::Open(self.open.clone());
        let orders = ReceiverStream::new(orders).map(|typed| match typed {
            Typed::Input(input) => Request::Input(input),
            Typed::Close => Request::Close(Close {}),
        });
        let requests = stream::iter([open]).chain(orders).map(|request| ConsoleRequest {
            request: Some(request),
        });
        let mut seen = self.client.console(requests).await?.into_inner();
        match seen.message().await?.and_then(|first| first.response) {
            Some(Response::Attached(_)) => {}
            _ => return Err(Status::internal("the server has closed the console at once")),
        }
        let seen = seen.map_err(anyhow::Error::from).try_filter_map(|response| {
            std::future::ready(Ok(match response.response {
                Some(Response::Output(output)) => Some(output),
                Some(Response::TakenOver(_)) => {
                    progress(TAKEN_OVER);
                    None
                }
                _ => None,
            }))
        });
        Ok(Attached {
            typed,
            seen: seen.boxed(),
        })
    }

    pub(super) async fn until_it_should_run(&mut self, said: &mut Option<Phase>) -> Result<()> {
        sleep(AGAIN).await;
        let mut changes = Changes::of(&mut self.client, &self.open.namespace, &self.open.name).await?;
        while let Some(vmi) = changes.next().await? {
            let phase = vmi.phase().cloned().unwrap_or(Phase::Pending);
            if !phase.is_before_running() {
                return Ok(());
            }
            tell(&self.open.name, phase, said);
        }
        bail!("{} was deleted meanwhile", self.open.name)
    }

    pub(super) async fn phase(&mut self) -> Result<Option<Phase>> {
        let request = GetRequest {
            namespace: self.open.namespace.clone(),
            name: self.open.name.clone(),
        };
        let object = self.client.get(request).await?.into_inner().object;
        Ok(parse(&object)?.phase().cloned())
    }
}

fn is_early(status: &Status) -> bool {
    status
        .get_details_error_info()
        .is_some_and(|info| info.reason == NOT_RUNNING_YET)
}
