//! The door of a cluster's users to rvm.v1: whoever shows who they are, to kube-apiserver's satisfaction, may do what their roles let them.
//!
//! ```text
//!   a call ──TLS, maybe a certificate of the cluster's authority──► Doorkeeper ──User──► the service ──access──► done, or refused
//!                                                                     └─ otherwise a bearer token: TokenReview
//! ```
//!
//! It has a port of its own: at the other one a certificate is the front proxy's, who speaks for everybody, and no user of the cluster must
//! be taken for that one. A call whose sender nobody knows reaches no service, reflection included.

mod keeper;

use std::future::Future;
use std::sync::Arc;

use kube::Client;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::aggregated::FrontProxy;
use crate::certificates::Identity;
use crate::listen::{self, ListenError};
use crate::tls::{TlsDoor, server_config_for_anybody};
use crate::{Fleet, MachinesService};
pub(crate) use keeper::Doorkeeper;

/// Serves the fleet's machines at this listener until `shutdown` is done.
///
/// # Errors
/// The certificates cannot be used, or the server breaks.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    fleet: Arc<Fleet>,
    identity: watch::Receiver<Arc<Identity>>,
    front: watch::Receiver<Arc<FrontProxy>>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ListenError> {
    let service = MachinesService::new(client.clone(), fleet).by_roles_of(client.clone());
    let first = config(&identity.borrow(), &front.borrow())?;
    let (sender, config) = watch::channel(Some(Arc::new(first)));
    let door = TlsDoor::for_anybody(listener, config);
    tokio::select! {
        served = listen::serve(door.guests(), service, Doorkeeper::of(client), shutdown) => served,
        () = renew(sender, identity, front) => Ok(()),
    }
}

/// New connections go by the certificates of their time.
async fn renew(
    sender: watch::Sender<Option<Arc<ServerConfig>>>,
    mut identity: watch::Receiver<Arc<Identity>>,
    mut front: watch::Receiver<Arc<FrontProxy>>,
) {
    loop {
        tokio::select! {
            // Either sender lives as long as the program.
            Ok(()) = identity.changed() => {}
            Ok(()) = front.changed() => {}
            else => return std::future::pending().await,
        }
        match config(&identity.borrow(), &front.borrow()) {
            Ok(renewed) => drop(sender.send_replace(Some(Arc::new(renewed)))),
            Err(error) => tracing::warn!(%error, "the certificates stay as they were"),
        }
    }
}

fn config(identity: &Identity, front: &FrontProxy) -> Result<ServerConfig, ListenError> {
    let (certificate, key) = (&identity.pair.certificate, &identity.pair.key);
    let users = front.authority_of_users().map(str::as_bytes);
    server_config_for_anybody(certificate.as_bytes(), key.as_bytes(), users)
}
