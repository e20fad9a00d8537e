//! Local mode's API: its store is opened first, since it is the handler's cluster; its door to kubectl and virtctl last, when there
//! are machines that it can lead to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use kube::Client;
use rvm_local::{Identity, LocalApi, Neighbour};
use rvm_server::{Subresources, subresources};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The group that is served beside the objects.
const BESIDE: Neighbour = Neighbour {
    group: subresources::GROUP,
    versions: &subresources::VERSIONS,
};

/// The API, and the port on which it is going to be served.
pub(crate) struct LocalDoor {
    api: LocalApi,
    identity: Arc<Identity>,
    listener: TcpListener,
}

// === impl LocalDoor ===

impl LocalDoor {
    /// Opens the store, takes the port and writes the kubeconfig. Who connects now waits until [`LocalDoor::serve`].
    pub(crate) async fn open(address: SocketAddr, state: &Path) -> Result<Self> {
        let kinds = rvm_local::kubevirt()?;
        let api = LocalApi::open(state, kinds, &[BESIDE]).context("local mode cannot start")?;
        let identity = Arc::new(Identity::open(state)?);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr().context("the listener has no address")?;
        let kubeconfig = state.join("kubeconfig");
        identity.kubeconfig(&kubeconfig, address)?;
        tracing::info!(%address, kubeconfig = %kubeconfig.display(), "the local API serves kubectl");
        Ok(Self {
            api,
            identity,
            listener,
        })
    }

    /// A client that needs no door.
    pub(crate) fn client(&self) -> Client {
        self.api.client()
    }

    /// Serves the objects and what is below them, and follows VirtualMachines: where there is one handler, there is one who does.
    pub(crate) fn serve(self, below: Subresources, tasks: &mut JoinSet<Result<()>>) {
        // They keep nothing, so they may end at any moment.
        let controllers = rvm_server::controllers::run(self.api.client(), std::future::pending());
        tasks.spawn(async move {
            controllers.await;
            Ok(())
        });
        let router = self.api.router().merge(below.router());
        tasks.spawn(async move {
            rvm_local::serve(self.listener, router, self.identity).await;
            Ok(())
        });
    }
}
