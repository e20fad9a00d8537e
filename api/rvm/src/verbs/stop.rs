//! `rvm stop`: ends a machine and keeps its object: a VirtualMachine's as virtctl does, an instance's by rvm.v1, which alone can.

use anyhow::{Context, Result, bail};
use rvm_proto::v1::StopRequest;
use rvm_types::Phase;
use tokio::time::timeout;

use super::{Changes, KIND, bare_name, machine};
use crate::args::{Global, Stop, Target};
use crate::cluster::{Cluster, Resource};
use crate::connect::{Client, connect};
use crate::screen::{Bar, say};
use crate::signals::unless_interrupted;

pub async fn run(global: &Global, namespace: &str, args: &Stop) -> Result<()> {
    if let Some(cluster) = cluster_of(global, &args.name).await? {
        return machine::stop(&cluster, bare_name(&args.name)?, &args.force, &args.rehearsal).await;
    }
    if args.rehearsal.dry_run {
        bail!("--dry-run is for VirtualMachines");
    }
    let mut client = connect(global).await?;
    let name = bare_name(&args.name)?;
    let request = StopRequest {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        grace_period_seconds: args.force.grace_period,
    };
    client.stop(request).await?;
    if !args.wait {
        return Ok(say(&format!("{KIND}/{name} is stopping"))?);
    }
    let ended = timeout(
        args.patience.timeout,
        unless_interrupted(until_it_has_ended(&mut client, namespace, name)),
    )
    .await;
    let phase =
        ended.with_context(|| format!("{name} still runs after {}s", args.patience.timeout.as_secs()))??;
    Ok(say(&format!("{KIND}/{name} stopped ({phase})"))?)
}

/// The cluster that has a VirtualMachine of this name, if one can be asked. A server of rvm.v1 that was named is asked alone.
async fn cluster_of(global: &Global, name: &str) -> Result<Option<Cluster>> {
    let kind = name.split_once('/').and_then(|(kind, _)| Target::resource(kind));
    if kind == Some(Resource::Machine) {
        return Cluster::of(global).await.map(Some);
    }
    if global.server.is_some() || name.contains('/') {
        return Ok(None);
    }
    let Ok(cluster) = Cluster::of(global).await else {
        return Ok(None);
    };
    let is_there = cluster.has(Resource::Machine, name).await?;
    Ok(is_there.then_some(cluster))
}

async fn until_it_has_ended(client: &mut Client, namespace: &str, name: &str) -> Result<Phase> {
    let mut changes = Changes::of(client, namespace, name).await?;
    let bar = Bar::new()?;
    while let Some(vmi) = changes.next().await? {
        if bar.is_shown() {
            bar.say(&format!(
                "{name}: {}",
                vmi.phase().map_or("Pending", Phase::as_str)
            ));
        }
        if let Some(phase) = vmi.phase().filter(|phase| phase.is_final()) {
            return Ok(phase.clone());
        }
    }
    bail!("{name} was deleted meanwhile")
}
