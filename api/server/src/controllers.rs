//! All that follows the objects of a cluster and is done once in it, however many API servers there are: in local mode in the
//! handler, in a cluster in whichever `rvm-api` holds the Lease.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;

use crate::{kubevirt, replicas, scheduling, unresponsive, vm};

/// Runs them until `ended` is done; what is begun then is finished.
pub async fn run(client: Client, ended: impl Future<Output = ()> + Send + 'static) {
    let ended = ended.shared();
    let machines = vm::run(client.clone(), ended.clone());
    let sets = replicas::run(client.clone(), ended.clone());
    let told = kubevirt::run(client.clone(), ended.clone());
    futures::join!(machines, sets, told, scheduling::run(client, ended));
}

/// The same for a cluster of several nodes, whose handlers may be silent for so long.
pub async fn run_for_nodes(
    client: Client,
    limit: Duration,
    ended: impl Future<Output = ()> + Send + 'static,
) {
    let ended = ended.shared();
    futures::join!(
        run(client.clone(), ended.clone()),
        unresponsive::run(client, limit, ended)
    );
}
