//! The PodDisruptionBudget of a machine that is to stay: it holds where nobody answers the webhook, and is what tools look for.
//!
//! It is the VMI's, goes with it, and is made before the pod that it guards.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, PostParams};
use kube::{Client, Resource, ResourceExt};
use rvm_types::VirtualMachineInstance;
use rvm_types::names::labels;
use serde_json::{Value, json};

use super::Strategy;

/// Before the UID of its VMI.
const NAME: &str = "kubevirt-disruption-budget-";

/// Makes it where the VMI's strategy wants it; one that is there already is the same.
///
/// # Errors
/// The API's.
pub async fn guard(client: &Client, vmi: &VirtualMachineInstance) -> kube::Result<()> {
    if !matches!(
        Strategy::of(client, vmi).await?,
        Strategy::Migrate | Strategy::External
    ) {
        return Ok(());
    }
    let budget: PodDisruptionBudget = serde_json::from_value(budget(vmi)).map_err(kube::Error::SerdeError)?;
    let near: Api<PodDisruptionBudget> =
        Api::namespaced(client.clone(), &vmi.namespace().unwrap_or_default());
    match near.create(&PostParams::default(), &budget).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        made => made.map(drop),
    }
}

fn budget(vmi: &VirtualMachineInstance) -> Value {
    let uid = vmi.uid().unwrap_or_default();
    let owner = vmi.controller_owner_ref(&()).map(|mut owner| {
        owner.block_owner_deletion = Some(true);
        owner
    });
    json!({
        "metadata": {"name": format!("{NAME}{uid}"), "ownerReferences": owner.into_iter().collect::<Vec<_>>()},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {labels::CREATED_BY: uid}}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::sample;

    #[test]
    fn a_budget_keeps_the_one_pod_of_its_machine() {
        let budget = budget(&sample::vmi(json!({})));
        assert_eq!(budget["metadata"]["name"], "kubevirt-disruption-budget-vmi-uid");
        assert_eq!(budget["metadata"]["ownerReferences"][0]["uid"], "vmi-uid");
        assert_eq!(budget["spec"]["minAvailable"], 1);
        let selector = json!({"kubevirt.io/created-by": "vmi-uid"});
        assert_eq!(budget["spec"]["selector"]["matchLabels"], selector);
    }
}
