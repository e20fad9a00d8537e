//! `rvm permitted-devices`: which devices of nodes the installation lets guests have, as virtctl prints them.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cluster::{Cluster, Resource};
use crate::screen::say;

pub async fn run(cluster: &Cluster) -> Result<()> {
    let list = cluster
        .get(&cluster.collection(Resource::Installation, false))
        .await?;
    let Some(installation) = list["items"].get(0) else {
        bail!("No KubeVirt resource in {:?} namespace", cluster.namespace());
    };
    let permitted = &installation["spec"]["configuration"]["permittedHostDevices"];
    Ok(say(&format!(
        "Permitted Devices: \nHost Devices: \n{} \nGPU Devices: \n{}",
        names(&permitted["pciHostDevices"]),
        names(&permitted["mediatedDevices"])
    ))?)
}

fn names(devices: &Value) -> String {
    let devices = devices.as_array().map(Vec::as_slice).unwrap_or_default();
    let names = devices
        .iter()
        .filter_map(|device| device["resourceName"].as_str());
    names.collect::<Vec<_>>().join(", ")
}
