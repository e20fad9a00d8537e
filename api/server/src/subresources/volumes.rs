//! Volumes that come and go while a machine runs, as KubeVirt takes and refuses them.
//!
//! ```text
//!   PUT virtualmachineinstances/N/addvolume ─► judged by its volumes ─► the instance's spec ─► its handler plugs the disk in
//!   PUT virtualmachines/N/addvolume         ─► judged by its template ─► status.volumeRequests ─► the VM's controller: the
//!                                              template, and the instance that runs
//! ```
//!
//! Where somebody changed the object meanwhile, it is read and judged again.

use axum::body::Bytes;
use axum::extract::{Path, State};
use http::StatusCode;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rvm_types::hotplug::{AddVolumeOptions, RemoveVolumeOptions, VolumeRequest};
use rvm_types::{Phase, VirtualMachine, VirtualMachineInstance, admission};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::answer::{Kind, Refused};
use super::{Machine, NOT_RUNNING, Subresources};
use crate::vm::with_volumes;

/// How often an object that others change at the same time is judged again.
const ATTEMPTS: usize = 5;

/// Most requests of one VM that wait.
const MAX_REQUESTS: usize = 64;

/// `PUT virtualmachineinstances/…/addvolume`
pub(super) async fn add_to_instance(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    server.rearrange(Kind::Instance, machine, add(&body)?).await
}

/// `PUT virtualmachineinstances/…/removevolume`
pub(super) async fn remove_from_instance(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    server.rearrange(Kind::Instance, machine, remove(&body)?).await
}

/// `PUT virtualmachines/…/addvolume`
pub(super) async fn add_to_machine(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    server.rearrange(Kind::Machine, machine, add(&body)?).await
}

/// `PUT virtualmachines/…/removevolume`
pub(super) async fn remove_from_machine(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    server.rearrange(Kind::Machine, machine, remove(&body)?).await
}

// === reading ===

/// What is asked for, and whether it is a rehearsal.
type Asked = Result<(VolumeRequest, bool), Refused>;

fn add(body: &[u8]) -> Asked {
    let mut options: AddVolumeOptions = read(body)?;
    let dry_run = rehearsed(&std::mem::take(&mut options.dry_run))?;
    let request = VolumeRequest::add(options).map_err(Refused::bad_request)?;
    Ok((request, dry_run))
}

fn remove(body: &[u8]) -> Asked {
    let mut options: RemoveVolumeOptions = read(body)?;
    let dry_run = rehearsed(&std::mem::take(&mut options.dry_run))?;
    if options.name.is_empty() {
        return Err(Refused::bad_request(
            "RemoveVolumeOptions requires name to be set",
        ));
    }
    Ok((VolumeRequest::remove(options), dry_run))
}

fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refused> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        Refused::bad_request(format!(
            "Can not unmarshal Request body to struct, error: {error}"
        ))
    })
}

fn rehearsed(dry_run: &[String]) -> Result<bool, Refused> {
    match dry_run {
        [] => Ok(false),
        [all] if all == "All" => Ok(true),
        _ => Err(Refused::bad_request("dryRun is All, or not there")),
    }
}

// === impl Subresources ===

impl Subresources {
    /// Does it until nobody comes between, or too often.
    async fn rearrange(
        &self,
        kind: Kind,
        machine: Machine,
        (request, dry_run): (VolumeRequest, bool),
    ) -> Result<StatusCode, Refused> {
        let params = PatchParams {
            dry_run,
            ..PatchParams::default()
        };
        let mut last = Refused::internal("nothing was tried");
        for _ in 0..ATTEMPTS {
            let done = match kind {
                Kind::Instance => self.change(&machine, &request, &params).await,
                Kind::Machine => self.note(&machine, &request, &params).await,
            };
            match done {
                Ok(()) => return Ok(StatusCode::ACCEPTED),
                // Ours say because of what; that of a write that came too late does not.
                Err(late) if late.code == StatusCode::CONFLICT && late.because.is_none() => last = late,
                Err(refused) => return Err(refused),
            }
        }
        Err(last)
    }

    /// Writes it into an instance that runs.
    async fn change(
        &self,
        (namespace, name): &Machine,
        request: &VolumeRequest,
        params: &PatchParams,
    ) -> Result<(), Refused> {
        let vmis: Api<VirtualMachineInstance> = self.objects(namespace, name, Kind::Instance)?;
        let conflict = |why: String| Refused::conflict(Kind::Instance, name, why);
        let vmi = vmis.get(name).await?;
        if vmi.phase() != Some(&Phase::Running) {
            return Err(conflict(NOT_RUNNING.to_owned()));
        }
        request.judge(&vmi.spec.volumes).map_err(conflict)?;
        let mut wanted = vmi.clone();
        request.apply(&mut wanted.spec);
        admitted(request, &vmi, &wanted)?;
        let patch = Patch::Merge(with_volumes(&vmi.metadata, &wanted.spec));
        vmis.patch(name, params, &patch).await?;
        Ok(())
    }

    /// Notes it in a VM's status, for the VM's controller.
    async fn note(
        &self,
        (namespace, name): &Machine,
        request: &VolumeRequest,
        params: &PatchParams,
    ) -> Result<(), Refused> {
        let vms: Api<VirtualMachine> = self.objects(namespace, name, Kind::Machine)?;
        let conflict = |why: String| Refused::conflict(Kind::Machine, name, why);
        let vm = vms.get(name).await?;
        request.judge(&vm.spec.template.spec.volumes).map_err(conflict)?;
        let (before, mut wanted) = (vm.instance(), vm.instance());
        request.apply(&mut wanted.spec);
        admitted(request, &before, &wanted)?;
        let waiting = vm.status.map(|status| status.volume_requests);
        let requests = queued(waiting.unwrap_or_default(), request).map_err(conflict)?;
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": vm.metadata.resource_version},
            "status": {"volumeRequests": requests},
        }));
        vms.patch_status(name, params, &patch).await?;
        Ok(())
    }
}

/// What is wrong with it now and was not before: a cluster without our admission would let that through.
fn admitted(
    request: &VolumeRequest,
    before: &VirtualMachineInstance,
    wanted: &VirtualMachineInstance,
) -> Result<(), Refused> {
    // What came can go.
    if !request.adds() {
        return Ok(());
    }
    let causes = |vmi: &VirtualMachineInstance| {
        let mut vmi = vmi.clone();
        admission::default(&mut vmi);
        admission::validate(&vmi)
    };
    let former = causes(before);
    let mut causes = causes(wanted);
    causes.retain(|cause| !former.contains(cause));
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refused::invalid(admission::summary(&causes)))
}

/// The requests with this one, in KubeVirt's order.
fn queued(mut waiting: Vec<VolumeRequest>, request: &VolumeRequest) -> Result<Vec<VolumeRequest>, String> {
    let name = request.name();
    let asked = |adds| {
        let mut of_it = waiting.iter().filter(|waiting| waiting.name() == name);
        of_it.any(|waiting| waiting.adds() == adds)
    };
    if request.adds() && asked(true) {
        return Err(format!("add volume request for volume [{name}] already exists"));
    }
    if request.adds() && asked(false) {
        return Err(format!(
            "unable to add volume since a remove volume request for volume [{name}] already exists and is still being processed"
        ));
    }
    if asked(false) {
        return Err(format!(
            "a remove volume request for volume [{name}] already exists and is still being processed"
        ));
    }
    waiting.retain(|waiting| waiting.name() != name);
    if waiting.len() >= MAX_REQUESTS {
        return Err(format!(
            "{MAX_REQUESTS} volume requests are still being processed"
        ));
    }
    waiting.push(request.clone());
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(adds: bool, name: &str) -> VolumeRequest {
        let body = json!({
            "name": name, "disk": {}, "volumeSource": {"persistentVolumeClaim": {"claimName": name}},
        });
        let body = body.to_string();
        let read = if adds { add } else { remove };
        read(body.as_bytes())
            .map(|(request, _)| request)
            .expect("a request")
    }

    #[test]
    fn one_request_for_a_volume_waits_at_a_time() {
        let one = queued(vec![], &request(true, "a")).expect("the first");
        let two = queued(one, &request(true, "b")).expect("another's");
        let refused = |waiting: &[VolumeRequest], adds| {
            queued(waiting.to_vec(), &request(adds, "a")).expect_err("it waits already")
        };
        assert_eq!(
            refused(&two, true),
            "add volume request for volume [a] already exists"
        );
        // A volume that is to go need not come.
        let gone = queued(two, &request(false, "a")).expect("it takes the other's place");
        assert_eq!(gone, [request(true, "b"), request(false, "a")]);
        let still = "already exists and is still being processed";
        assert_eq!(
            refused(&gone, false),
            format!("a remove volume request for volume [a] {still}")
        );
        assert_eq!(
            refused(&gone, true),
            format!("unable to add volume since a remove volume request for volume [a] {still}")
        );
    }

    #[test]
    fn what_is_no_request_is_a_bad_one() {
        let refused = |read: fn(&[u8]) -> Asked, body: &str| {
            let refused = read(body.as_bytes()).expect_err("it is none");
            assert_eq!(refused.code, StatusCode::BAD_REQUEST);
            refused.message
        };
        assert_eq!(refused(add, ""), "AddVolumeOptions requires name to be set");
        assert_eq!(
            refused(remove, "{}"),
            "RemoveVolumeOptions requires name to be set"
        );
        assert!(refused(remove, "[").starts_with("Can not unmarshal Request body to struct, error: "));
        assert_eq!(
            refused(remove, r#"{"name":"a","dryRun":["Some"]}"#),
            "dryRun is All, or not there"
        );
        let rehearsal = remove(br#"{"name":"a","dryRun":["All"]}"#).expect("a rehearsal");
        assert!(rehearsal.1 && rehearsal.0 == request(false, "a"));
    }
}
