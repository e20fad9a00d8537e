//! Keeps the KubeVirt: the object in which tools look whether machines can be run here, and like which KubeVirt.
//!
//! ```text
//!   any change of a KubeVirt ─► all of them ─┬─ none: one is made, `kubevirt/kubevirt`
//!                                            └─ the oldest is told to be deployed, each other that it is not the first
//! ```
//!
//! Nothing is installed or removed by it: where it says that all is ready, that is said by a controller that runs. One that is deleted
//! is made again.

use std::future::Future;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use rvm_types::condition::{self, Condition, FALSE, TRUE};
use rvm_types::kubevirt::{DEPLOYED, KUBEVIRT_VERSION, KubeVirt, KubeVirtSpec, KubeVirtStatus};
use rvm_types::names::{ARCHITECTURE, conditions, reasons};

/// Namespace and name of the one that we make: KubeVirt's own.
const PLACE: &str = "kubevirt";
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps it until `shutdown` is done.
pub async fn run(client: Client, shutdown: impl Future<Output = ()> + Send + Clone) {
    let all: Api<KubeVirt> = Api::all(client.clone());
    let mut changes = watcher(all, watcher::Config::default())
        .default_backoff()
        .take_until(shutdown.clone().boxed())
        .boxed();
    while let Some(change) = changes.next().await {
        let is_news = matches!(
            change,
            Ok(watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_))
        );
        if !is_news {
            continue;
        }
        while let Err(error) = tend(&client).await {
            tracing::warn!(%error, "the KubeVirt is not as it should be, trying again");
            if tokio::time::timeout(RETRY, shutdown.clone()).await.is_ok() {
                return;
            }
        }
    }
}

/// Makes one where there is none, and writes what is to be said of each.
async fn tend(client: &Client) -> kube::Result<()> {
    let all: Api<KubeVirt> = Api::all(client.clone());
    let mut found = all.list(&ListParams::default()).await?.items;
    if found.is_empty() {
        return make(client).await;
    }
    found.sort_by_key(|kubevirt| (kubevirt.creation_timestamp().map(|time| time.0), kubevirt.uid()));
    for (index, kubevirt) in found.iter().enumerate() {
        let wanted = if index == 0 {
            deployed(kubevirt)
        } else {
            second(kubevirt)
        };
        if kubevirt.status.as_ref() == Some(&wanted) {
            continue;
        }
        let mut told = kubevirt.clone();
        told.status = Some(wanted);
        let namespace = kubevirt.namespace().unwrap_or_default();
        let near: Api<KubeVirt> = Api::namespaced(client.clone(), &namespace);
        let written = near
            .replace_status(&kubevirt.name_any(), &PostParams::default(), &told)
            .await;
        match written {
            // Whoever was faster is seen next.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
            written => written.map(drop)?,
        }
    }
    Ok(())
}

/// Makes it, in a namespace that in a cluster is there already: we may make none there.
async fn make(client: &Client) -> kube::Result<()> {
    let near: Api<KubeVirt> = Api::namespaced(client.clone(), PLACE);
    let wanted = KubeVirt::new(PLACE, KubeVirtSpec::default());
    let made = near.create(&PostParams::default(), &wanted).await;
    match made {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            let namespace = Namespace {
                metadata: ObjectMeta {
                    name: Some(PLACE.to_owned()),
                    ..ObjectMeta::default()
                },
                ..Namespace::default()
            };
            let namespaces: Api<Namespace> = Api::all(client.clone());
            namespaces.create(&PostParams::default(), &namespace).await?;
            near.create(&PostParams::default(), &wanted).await.map(drop)
        }
        made => made.map(drop),
    }
}

/// What is said of the one that counts.
fn deployed(kubevirt: &KubeVirt) -> KubeVirtStatus {
    let mut status = kubevirt.status.clone().unwrap_or_default();
    let (created, ready) = ("All resources were created.", "All components are ready.");
    condition::remove(&mut status.conditions, conditions::SYNCHRONIZED);
    let told = [
        (conditions::CREATED, TRUE, reasons::ALL_RESOURCES_CREATED, created),
        (conditions::AVAILABLE, TRUE, reasons::ALL_COMPONENTS_READY, ready),
        (
            conditions::PROGRESSING,
            FALSE,
            reasons::ALL_COMPONENTS_READY,
            ready,
        ),
        (conditions::DEGRADED, FALSE, reasons::ALL_COMPONENTS_READY, ready),
    ];
    for (kind, holds, reason, message) in told {
        condition::upsert(
            &mut status.conditions,
            Condition::new(kind, holds).because(reason, message),
        );
    }
    let version = Some(KUBEVIRT_VERSION.to_owned());
    KubeVirtStatus {
        phase: Some(DEPLOYED.to_owned()),
        observed_generation: kubevirt.metadata.generation,
        observed_kube_virt_version: version.clone(),
        target_kube_virt_version: version.clone(),
        operator_version: version,
        default_architecture: Some(ARCHITECTURE.to_owned()),
        outdated_virtual_machine_instance_workloads: Some(0),
        ..status
    }
}

/// What is said of one that is not the first.
fn second(kubevirt: &KubeVirt) -> KubeVirtStatus {
    let mut status = kubevirt.status.clone().unwrap_or_default();
    let message = "There is an active KubeVirt deployment";
    let told = Condition::new(conditions::SYNCHRONIZED, FALSE).because(reasons::EXISTING_DEPLOYMENT, message);
    condition::upsert(&mut status.conditions, told);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kubevirt() -> KubeVirt {
        let object = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
            "metadata": {"name": "kubevirt", "namespace": "kubevirt", "generation": 3},
            "spec": {"configuration": {"cpuModel": "max"}},
            "status": {"observedDeploymentID": "kept", "conditions": [{"type": "Synchronized", "status": "False"}]},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_first_is_deployed_in_the_words_that_tools_look_for() {
        let status = serde_json::to_value(deployed(&kubevirt())).unwrap();
        assert_eq!(status["phase"], "Deployed");
        assert_eq!(status["observedGeneration"], 3);
        assert_eq!(status["observedKubeVirtVersion"], status["targetKubeVirtVersion"]);
        assert_eq!(status["observedDeploymentID"], "kept");
        let told = |condition: &serde_json::Value| format!("{}={}", condition["type"], condition["status"]);
        let told: Vec<String> = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(told)
            .collect();
        let wanted = ["Created", "Available", "Progressing", "Degraded"];
        let wanted = wanted.into_iter().zip(["True", "True", "False", "False"]);
        let wanted: Vec<String> = wanted
            .map(|(kind, holds)| format!("{kind:?}={holds:?}"))
            .collect();
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        let mut kubevirt = kubevirt();
        kubevirt.status = Some(deployed(&kubevirt));
        assert_eq!(Some(deployed(&kubevirt)), kubevirt.status);
    }

    #[test]
    fn a_second_one_is_told_that_it_is_one() {
        let mut other = kubevirt();
        other.status = None;
        let told = second(&other);
        assert_eq!(told.phase, None);
        assert_eq!(told.conditions[0].reason.as_deref(), Some("ExistingDeployment"));
    }
}
