//! Many VMIs, made one after the other at a steady rate, and when each ran: by the timestamps in their status, as KubeVirt's own
//! measure goes, and by the clock of somebody who watches, since timestamps are whole seconds.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config, ResourceExt};
use rvm_types::{Phase, VirtualMachineInstance as Vmi};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long the last of them may take. No measure of anything.
const PATIENCE: Duration = Duration::from_secs(1200);

/// The image that they boot, which a mirror leads to.
pub const IMAGE: &str = "rvm.test/nothing:1";

/// When VMIs ran, in seconds after they were made.
#[derive(Debug)]
pub struct Times {
    /// By `phaseTransitionTimestamps` and `creationTimestamp`.
    pub stamped: Vec<f64>,
    /// By a watcher's clock, from before each was asked for.
    pub watched: Vec<f64>,
    /// Seconds in which all were made.
    pub making: f64,
}

/// A client of a cluster's administrator.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Makes so many at so many a second, and waits until all run.
pub async fn make(client: Client, count: u32, rate: u32) -> Result<Times> {
    let api: Api<Vmi> = Api::namespaced(client, "default");
    let watching = tokio::spawn(watch(api.clone(), count));
    let mut made: HashMap<String, Instant> = HashMap::new();
    let mut ticks = interval(Duration::from_secs(1) / rate);
    // One that comes late is not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    for number in 0..count {
        ticks.tick().await;
        let vmi = vmi(number)?;
        made.insert(vmi.name_any(), Instant::now());
        api.create(&PostParams::default(), &vmi).await?;
    }
    let making = begun.elapsed().as_secs_f64();
    let ran = timeout(PATIENCE, watching).await.context("not all run")???;
    let watched = made.iter().filter_map(|(name, made)| {
        let ran = ran.get(name)?;
        Some(ran.duration_since(*made).as_secs_f64())
    });
    Ok(Times {
        watched: watched.collect(),
        stamped: stamped(&api).await?,
        making,
    })
}

/// When each was first seen to run.
async fn watch(api: Api<Vmi>, count: u32) -> Result<HashMap<String, Instant>> {
    let mut ran = HashMap::new();
    let mut events = Box::pin(watcher(api, watcher::Config::default()));
    while ran.len() < usize::try_from(count)? {
        match events.next().await.context("the watch has ended")?? {
            Event::Apply(vmi) | Event::InitApply(vmi) => {
                ensure!(
                    vmi.phase() != Some(&Phase::Failed),
                    "{} has failed",
                    vmi.name_any()
                );
                if vmi.phase() == Some(&Phase::Running) {
                    ran.entry(vmi.name_any()).or_insert_with(Instant::now);
                }
            }
            Event::Init | Event::InitDone | Event::Delete(_) => {}
        }
    }
    Ok(ran)
}

async fn stamped(api: &Api<Vmi>) -> Result<Vec<f64>> {
    let all = api.list(&ListParams::default()).await?;
    all.iter()
        .map(|vmi| running_after(vmi).context("no timestamps"))
        .collect()
}

fn running_after(vmi: &Vmi) -> Option<f64> {
    let made = vmi.metadata.creation_timestamp.as_ref()?.0;
    let status = serde_json::to_value(vmi.status.as_ref()?).ok()?;
    let transitions = status["phaseTransitionTimestamps"].as_array()?;
    let runs = transitions.iter().find(|one| one["phase"] == "Running")?;
    let runs: jiff::Timestamp = runs["phaseTransitionTimestamp"].as_str()?.parse().ok()?;
    Some(runs.duration_since(made).as_secs_f64())
}

/// Of the shape of KubeVirt's minimal VMI in its density test: 90 MiB, a tenth of a processor, masquerade.
fn vmi(number: u32) -> Result<Vmi> {
    let boot = json!({"container": {"image": IMAGE, "kernelPath": "/kernel"}});
    let vmi = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": format!("vmi-{number}"), "namespace": "default"},
        "spec": {
            "domain": {
                "devices": {"interfaces": [{"name": "default", "masquerade": {}}]},
                "firmware": {"kernelBoot": boot},
                "resources": {"requests": {"cpu": "100m", "memory": "90Mi"}},
            },
            "networks": [{"name": "default", "pod": {}}],
            "terminationGracePeriodSeconds": 0,
        },
    });
    Ok(serde_json::from_value(vmi)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmi_ran_when_its_status_says_so() {
        let mut made = serde_json::to_value(vmi(7).unwrap()).unwrap();
        made["metadata"]["creationTimestamp"] = json!("2026-11-22T04:00:00Z");
        let at = |phase: &str, time: &str| json!({"phase": phase, "phaseTransitionTimestamp": time});
        made["status"] = json!({"phaseTransitionTimestamps": [
            at("Pending", "2026-11-22T04:00:00Z"), at("Running", "2026-11-22T04:00:02Z"),
        ]});
        let vmi: Vmi = serde_json::from_value(made).unwrap();
        assert_eq!(running_after(&vmi), Some(2.0));
    }
}
