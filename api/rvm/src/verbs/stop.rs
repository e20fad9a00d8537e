//! `rvm stop`: ends a machine and keeps its object.

use anyhow::{Context, Result, bail};
use rvm_proto::v1::StopRequest;
use rvm_types::Phase;
use tokio::time::timeout;

use super::{Changes, KIND, bare_name};
use crate::args::Stop;
use crate::connect::Client;
use crate::screen::say;

pub async fn run(mut client: Client, namespace: &str, args: &Stop) -> Result<()> {
    let name = bare_name(&args.name)?;
    let request = StopRequest {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        grace_period_seconds: args.grace_period,
    };
    client.stop(request).await?;
    if !args.wait {
        return Ok(say(&format!("{KIND}/{name} is stopping"))?);
    }
    let ended = timeout(
        args.patience.timeout,
        until_it_has_ended(&mut client, namespace, name),
    )
    .await;
    let phase =
        ended.with_context(|| format!("{name} still runs after {}s", args.patience.timeout.as_secs()))??;
    Ok(say(&format!("{KIND}/{name} stopped ({phase})"))?)
}

async fn until_it_has_ended(client: &mut Client, namespace: &str, name: &str) -> Result<Phase> {
    let mut changes = Changes::of(client, namespace, name).await?;
    while let Some(vmi) = changes.next().await? {
        if let Some(phase) = vmi.phase().filter(|phase| phase.is_final()) {
            return Ok(phase.clone());
        }
    }
    bail!("{name} was deleted meanwhile")
}
