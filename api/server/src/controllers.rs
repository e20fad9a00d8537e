//! All that follows the objects of a cluster and is done once in it, however many API servers there are: in local mode in the
//! handler, in a cluster in whichever `rvm-api` holds the Lease.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;

use crate::pods::{self, Launcher};
use crate::{kubevirt, replicas, scheduling, unresponsive, vm};

/// Runs them until `ended` is done; what is begun then is finished.
pub async fn run(client: Client, ended: impl Future<Output = ()> + Send + 'static) {
    let ended = ended.shared();
    let always = always(client.clone(), ended.clone());
    futures::join!(always, scheduling::run(client, ended));
}

/// The same for a cluster of several nodes, whose handlers may be silent for so long. With a launcher each machine is in a pod, and
/// the cluster's scheduler finds its node.
pub async fn run_for_nodes(
    client: Client,
    limit: Duration,
    launcher: Option<Launcher>,
    ended: impl Future<Output = ()> + Send + 'static,
) {
    let ended = ended.shared();
    let placed = async {
        match launcher {
            Some(launcher) => pods::run(client.clone(), launcher, ended.clone()).await,
            None => scheduling::run(client.clone(), ended.clone()).await,
        }
    };
    futures::join!(
        always(client.clone(), ended.clone()),
        placed,
        unresponsive::run(client.clone(), limit, ended.clone())
    );
}

/// What does not depend on how machines get their nodes.
async fn always(client: Client, ended: impl Future<Output = ()> + Clone + Send + Sync + 'static) {
    let machines = vm::run(client.clone(), ended.clone());
    let sets = replicas::run(client.clone(), ended.clone());
    futures::join!(machines, sets, kubevirt::run(client, ended));
}
