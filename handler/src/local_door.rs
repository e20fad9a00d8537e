//! Local mode's API: its store is opened first, since it is the handler's cluster; its doors to kubectl and virtctl, and to browsers, last,
//! when there are machines that they can lead to.
//!
//! `<state>/kubeconfig` lets kubectl in, `<state>/web/address` a browser: only their owner can read them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use kube::Client;
use rvm_local::{Identity, LocalApi, Neighbour};
use rvm_server::web::{self, OwnToken, WebConsole};
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
    web: Option<(TcpListener, Arc<OwnToken>)>,
}

// === impl LocalDoor ===

impl LocalDoor {
    /// Opens the store, takes the ports and writes the kubeconfig. Who connects now waits until [`LocalDoor::serve`].
    pub(crate) async fn open(address: SocketAddr, web: Option<SocketAddr>, state: &Path) -> Result<Self> {
        let kinds = rvm_local::kubevirt()?;
        let api = LocalApi::open(state, kinds, &[BESIDE]).context("local mode cannot start")?;
        let identity = Arc::new(Identity::open(state)?);
        let (listener, address) = listen(address).await?;
        let kubeconfig = state.join("kubeconfig");
        identity.kubeconfig(&kubeconfig, address)?;
        tracing::info!(%address, kubeconfig = %kubeconfig.display(), "the local API serves kubectl");
        Ok(Self {
            api,
            identity,
            listener,
            web: web_door(web, state).await?,
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
        if let Some((listener, token)) = self.web {
            let console = WebConsole::of_local_mode(router.clone(), token);
            tasks.spawn(async move {
                web::local(listener, console).await;
                Ok(())
            });
        }
        tasks.spawn(async move {
            rvm_local::serve(self.listener, router, self.identity).await;
            Ok(())
        });
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    Ok((listener, address))
}

/// The browsers' door, if there is to be one; where it is, is only written where its owner reads it, since the token is part of it.
async fn web_door(wanted: Option<SocketAddr>, state: &Path) -> Result<Option<(TcpListener, Arc<OwnToken>)>> {
    let folder = state.join("web");
    let Some(wanted) = wanted else {
        web::withdraw(&folder).context("the web console's address cannot be taken back")?;
        return Ok(None);
    };
    let (listener, address) = listen(wanted).await?;
    let token = web::announce(&folder, address);
    let token = token.with_context(|| format!("'{}' cannot be written", folder.display()))?;
    tracing::info!(%address, "the web console is served; `rvm web` opens it");
    Ok(Some((listener, Arc::new(token))))
}
