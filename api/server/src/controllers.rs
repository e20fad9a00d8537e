//! All that follows the objects of a cluster and is done once in it, however many API servers there are: in local mode in the
//! handler, in a cluster in whichever `rvm-api` holds the Lease.

use std::future::Future;

use futures::FutureExt;
use kube::Client;

use crate::{scheduling, vm};

/// Runs them until `ended` is done; what is begun then is finished.
pub async fn run(client: Client, ended: impl Future<Output = ()> + Send + 'static) {
    let ended = ended.shared();
    let machines = vm::run(client.clone(), ended.clone());
    futures::join!(machines, scheduling::run(client, ended));
}
