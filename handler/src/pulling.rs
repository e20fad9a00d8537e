//! Has the images pulled that a VMI needs, beside the loop: a pull may take minutes, and its VMI may be deleted meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use rvm_server::observe::traces;
use rvm_types::names::{events, reasons};
use rvm_types::{VirtualMachineInstance, admission};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::events::Happening;
use crate::images::pull::login::Logins;
use crate::images::pull::{Policy, Told, Wish};
use crate::images::store::InUse;
use crate::plan::Step;
use crate::status::Report;
use crate::steps::{Effects, StepError, chain};
use crate::vm::VmId;

/// The kind of Secret that opens a registry, and its one key.
const SECRET_TYPE: &str = "kubernetes.io/dockerconfigjson";
const SECRET_KEY: &str = ".dockerconfigjson";

/// What came of the pulls for one VMI: all of its images, kept here until they were used, or one word and a sentence on why not.
pub type Pulled = Result<Vec<InUse>, (&'static str, String)>;

/// The pulls for VMIs, by UID. Lost with us, and their processes with them; what has arrived stays.
#[derive(Debug, Default)]
pub struct Pulls(Mutex<HashMap<String, Pull>>);

/// The pulls for one VMI.
#[derive(Debug)]
struct Pull {
    task: JoinHandle<Pulled>,
    /// How far it is, in words.
    progress: Arc<Mutex<Option<String>>>,
}

/// An image that a VMI names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    image: String,
    policy: Option<String>,
    secret: Option<String>,
}

// === impl Pulls ===

impl Pulls {
    /// Has nothing more pulled for a VMI.
    pub fn forget(&self, id: &VmId) {
        if let Some(pull) = self.map().remove(&id.uid) {
            pull.task.abort();
        }
    }

    /// As [`Pulls::forget`], for all VMIs but these.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.map().retain(|uid, pull| {
            let kept = keep(uid);
            if !kept {
                pull.task.abort();
            }
            kept
        });
    }

    /// The pull for a VMI, if it is over.
    fn over(&self, id: &VmId) -> Option<JoinHandle<Pulled>> {
        let mut map = self.map();
        let over = map.get(&id.uid)?.task.is_finished();
        over.then(|| map.remove(&id.uid).map(|pull| pull.task))?
    }

    fn progress(&self, id: &VmId) -> Option<String> {
        let map = self.map();
        let progress = map.get(&id.uid)?.progress.lock();
        progress.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Pull>> {
        // Every entry is whole, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Effects ===

impl Effects {
    /// What came of the pulls for a VMI. Nothing where they still go on: its status says how far they are, and it is woken when they
    /// are over.
    ///
    /// # Errors
    /// The API's.
    pub async fn pulled(&self, id: &VmId, vmi: &VirtualMachineInstance) -> Result<Option<Pulled>, StepError> {
        if let Some(over) = self.pulls.over(id) {
            let because = |error| Err((reasons::ERR_IMAGE_PULL, chain(&error)));
            return Ok(Some(over.await.unwrap_or_else(because)));
        }
        if let Some(progress) = self.pulls.progress(id) {
            self.write(id, vmi, &Step::Report(Report::Pulling(progress)))
                .await?;
        }
        let named = named(vmi).into_iter();
        let named: Vec<Named> = named
            .filter(|named| !self.images.is_mirrored(&named.image))
            .collect();
        if named.is_empty() {
            return Ok(Some(Ok(Vec::new())));
        }
        let mut pulls = self.pulls.map();
        if !pulls.contains_key(&id.uid) {
            pulls.insert(id.uid.clone(), self.start_pulls(id, vmi, named));
        }
        Ok(None)
    }

    fn start_pulls(&self, id: &VmId, vmi: &VirtualMachineInstance, named: Vec<Named>) -> Pull {
        let (client, images) = (self.client.clone(), Arc::clone(&self.images));
        let (events, watch) = (self.events.clone(), self.watch.clone());
        let (id, vmi) = (id.clone(), vmi.clone());
        let progress: Arc<Mutex<Option<String>>> = Arc::default();
        let told_last = Arc::clone(&progress);
        let task = tokio::spawn(async move {
            let pull = async {
                let mut held = Vec::new();
                for named in named {
                    let image = named.image.clone();
                    let wish = wish(&client, &id.namespace, named).await?;
                    let tell = |told: Told| match happening(&image, &told) {
                        Ok(happening) => events.record(&vmi, &happening),
                        Err(words) => {
                            *told_last.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
                            watch.wake(&id);
                        }
                    };
                    let pulled = images.pull(&wish, &tell).await;
                    held.extend(pulled.map_err(|error| (reasons::ERR_IMAGE_PULL, chain(&error)))?);
                }
                Ok(held)
            };
            let span = tracing::info_span!("pull images", vm = %id);
            traces::of_machine(&span, &id.uid);
            let pulled = pull.instrument(span).await;
            // It is looked at as soon as this task is over.
            tokio::spawn(async move { watch.wake(&id) });
            pulled
        });
        Pull { task, progress }
    }
}

/// The names of all images of a VMI, as it writes them.
pub fn images_of(vmi: &VirtualMachineInstance) -> Vec<String> {
    named(vmi).into_iter().map(|named| named.image).collect()
}

/// All images of a VMI, each once.
fn named(vmi: &VirtualMachineInstance) -> Vec<Named> {
    let mut vmi = vmi.clone();
    admission::default(&mut vmi);
    let firmware = vmi.spec.domain.firmware.as_ref();
    let kernel = firmware
        .and_then(|firmware| firmware.kernel_boot.as_ref())
        .and_then(|boot| boot.container.as_ref());
    let kernel = kernel.map(|kernel| Named {
        image: kernel.image.clone(),
        policy: kernel.image_pull_policy.clone(),
        secret: kernel.image_pull_secret.clone(),
    });
    let disks = vmi.spec.volumes.iter();
    let disks = disks.filter_map(|volume| volume.container_disk.as_ref());
    let disks = disks.map(|disk| Named {
        image: disk.image.clone(),
        policy: disk.image_pull_policy.clone(),
        secret: disk.image_pull_secret.clone(),
    });
    let mut all: Vec<Named> = Vec::new();
    for named in kernel.into_iter().chain(disks) {
        if !all.contains(&named) {
            all.push(named);
        }
    }
    all
}

async fn wish(client: &kube::Client, namespace: &str, named: Named) -> Result<Wish, (&'static str, String)> {
    let secret = match named.secret.filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let read = secret(client, namespace, &name).await;
            let because = |why| {
                let text = format!(
                    "Failed to pull image \"{}\": pull secret '{name}' {why}",
                    named.image
                );
                (reasons::ERR_IMAGE_PULL, text)
            };
            Some(read.map_err(because)?)
        }
    };
    Ok(Wish {
        image: named.image,
        policy: Policy::of(named.policy.as_deref()),
        secret,
    })
}

/// What a pull secret of the VMI's own namespace holds, or why it cannot be used.
async fn secret(client: &kube::Client, namespace: &str, name: &str) -> Result<Logins, String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = api.get_opt(name).await;
    let secret = secret.map_err(|error| format!("cannot be read: {error}"))?;
    let secret = secret.ok_or("does not exist")?;
    if secret.type_.as_deref() != Some(SECRET_TYPE) {
        return Err(format!("is not of type {SECRET_TYPE}"));
    }
    let data = secret.data.unwrap_or_default();
    let json = data.get(SECRET_KEY).ok_or(format!("has no {SECRET_KEY}"))?;
    Logins::parse(&json.0).map_err(|error| format!("cannot be used: {error}"))
}

/// What is recorded, as the kubelet says it; or how far the pull is, in words, of which there are too many to record.
fn happening(image: &str, told: &Told) -> Result<Happening, String> {
    Ok(match told {
        Told::Pulling => Happening::normal(events::PULLING, format!("Pulling image \"{image}\"")),
        Told::Progress(have, total) => {
            let mib = |bytes: &u64| bytes >> 20;
            return Err(format!(
                "Pulling image \"{image}\": {} of {} MiB",
                mib(have),
                mib(total)
            ));
        }
        Told::Pulled(took, bytes) => Happening::normal(
            events::PULLED,
            format!(
                "Successfully pulled image \"{image}\" in {:.3}s. Image size: {bytes} bytes.",
                took.as_secs_f64()
            ),
        ),
        Told::Present => Happening::normal(
            events::PULLED,
            format!("Container image \"{image}\" already present on machine"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn every_image_of_a_vmi_is_named_once_with_its_policy_and_secret() {
        let vmi: VirtualMachineInstance = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "v"},
            "spec": {
                "domain": {"devices": {}, "firmware": {"kernelBoot": {"container": {
                    "image": "r.example/k:1", "imagePullSecret": "s", "kernelPath": "/k"}}}},
                "volumes": [
                    {"name": "a", "containerDisk": {"image": "r.example/a"}},
                    {"name": "b", "containerDisk": {"image": "r.example/a"}},
                    {"name": "c", "containerDisk": {"image": "r.example/c:1", "imagePullPolicy": "Never"}},
                ],
            },
        }))
        .unwrap();
        let is = |image: &str, policy: &str, secret: Option<&str>| Named {
            image: image.to_owned(),
            policy: Some(policy.to_owned()),
            secret: secret.map(str::to_owned),
        };
        let expected = [
            is("r.example/k:1", "IfNotPresent", Some("s")),
            is("r.example/a", "Always", None),
            is("r.example/c:1", "Never", None),
        ];
        assert_eq!(named(&vmi), expected);
    }

    #[test]
    fn pulls_are_told_as_the_kubelet_tells_them() {
        let told = |told| happening("a:1", &told).map_or_else(|words| words, |recorded| recorded.message);
        assert_eq!(told(Told::Pulling), "Pulling image \"a:1\"");
        assert_eq!(
            told(Told::Pulled(Duration::from_millis(1500), 42)),
            "Successfully pulled image \"a:1\" in 1.500s. Image size: 42 bytes."
        );
        assert_eq!(
            told(Told::Progress(12 << 20, 50 << 20)),
            "Pulling image \"a:1\": 12 of 50 MiB"
        );
        assert_eq!(
            told(Told::Present),
            "Container image \"a:1\" already present on machine"
        );
    }
}
