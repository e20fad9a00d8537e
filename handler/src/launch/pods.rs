//! Machines in pods, which the cluster has put to this node: their processes wait for them.
//!
//! ```text
//!   berth   the VMI's pod is here, its process listens ─► it is claimed and laid out, as any other
//!   start   its process is found by its socket ─► the guest's network in its pod ─► the files are opened
//!           ─► `vm` leads to the pod's volume ─► all of it is handed over
//! ```
//!
//! From the moment that `vm` is there the machine was started, whether anybody saw it or not: it is never handed over twice. It is taken
//! away again only where the process has said that it did not take the machine.
//!
//! The pod's process is not trusted: what lies in its volume is opened as if others had put it there (`rvmm_control::rundir`), and
//! nothing is written there.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use rustix::fs::OFlags;
use rvm_types::names::{events, labels};
use rvm_types::{Phase, VirtualMachineInstance};
use rvmm_control::Client as Control;
use rvmm_control::launch::{self, LaunchError, SOCKET};
use rvmm_spec::wire::{Document, WireError};

use super::files::{self, FileError, Sources, USER};
use super::network::{self, Doors, PodNetworkError};
use super::{Launcher, NoPod};
use crate::events::Happening;
use crate::networks::client;
use crate::networks::door::Door;
use crate::networks::model::{Binding, Plan};
use crate::networks::wish::NetworkWish;
use crate::plan::{Berth, POLL, SETTLE};
use crate::process::{Machines, POD_LINK};
use crate::steps::{Effects, Outcome, StepError, chain};
use crate::translate;
use crate::vm::{VmId, is_uid};
use crate::volumes::brought::PodFolder;

/// The volume in which a pod's process waits.
const VOLUME: &str = "run";

/// Machines in pods.
#[derive(Debug)]
pub struct Pods {
    /// The kubelet's folder.
    kubelet: PathBuf,
    doors: Doors,
}

/// A machine cannot be handed to its pod.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// Its process does not wait.
    #[error("the pod's process does not wait for its machine")]
    Absent(#[source] io::Error),
    /// Another user's process listens.
    #[error("what waits in the pod is user {0}, and not {USER}")]
    Stranger(u32),
    /// What was laid out.
    #[error("'{0}' cannot be used")]
    Io(PathBuf, #[source] io::Error),
    /// What was laid out.
    #[error(transparent)]
    Spec(#[from] WireError),
    /// Its files.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its network.
    #[error(transparent)]
    Network(#[from] PodNetworkError),
    /// Its process does not take it.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// A pod on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Here {
    uid: String,
    addresses: Vec<IpAddr>,
}

// === impl Pods ===

impl Pods {
    /// Of a node whose kubelet keeps its things in this folder.
    pub fn new(kubelet: PathBuf) -> Self {
        Self {
            kubelet,
            doors: Doors::default(),
        }
    }

    /// The pod of a VMI, if it is on this node.
    async fn pod(&self, client: &Client, id: &VmId, node: &str) -> kube::Result<Option<Here>> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &id.namespace);
        let of_it = ListParams::default().labels(&format!("{}={}", labels::CREATED_BY, id.uid));
        let found = pods.list(&of_it).await?.items;
        Ok(found.iter().find_map(|pod| here(pod, id, node)))
    }

    fn folder_of(&self, pod: &Here) -> PodFolder {
        PodFolder::new(&self.kubelet, &pod.uid)
    }
}

#[tonic::async_trait]
impl Launcher for Pods {
    async fn berth(
        &self,
        effects: &Effects,
        id: &VmId,
        vmi: &VirtualMachineInstance,
    ) -> Result<Berth, StepError> {
        let node = effects.me.borrow().node.clone();
        let status = vmi.status.as_ref();
        let told = status.is_some_and(|status| status.active_pods.values().any(|on| *on == node));
        let is_open = matches!(vmi.phase(), None | Some(Phase::Pending | Phase::Scheduling));
        if !told || !is_open {
            return Ok(Berth::Elsewhere);
        }
        let Some(pod) = self.pod(&effects.client, id, &node).await? else {
            // It was put here, and nothing tells us when it runs.
            return Ok(Berth::Soon);
        };
        let waits = self.folder_of(&pod).empty_dir(VOLUME).join(SOCKET);
        let waits = fs::symlink_metadata(waits).is_ok();
        Ok(if waits { Berth::Here } else { Berth::Soon })
    }

    async fn folder(
        &self,
        effects: &Effects,
        id: &VmId,
    ) -> Result<Result<Option<PodFolder>, NoPod>, StepError> {
        let node = effects.me.borrow().node.clone();
        let pod = self.pod(&effects.client, id, &node).await?;
        Ok(pod.map(|pod| Some(self.folder_of(&pod))).ok_or(NoPod))
    }

    async fn start(
        &self,
        effects: &Effects,
        id: &VmId,
        vmi: &VirtualMachineInstance,
    ) -> Result<Outcome, StepError> {
        let node = effects.me.borrow().node.clone();
        let Some(pod) = self.pod(&effects.client, id, &node).await? else {
            // Whoever made it says so.
            return Ok(Outcome::Wait(SETTLE));
        };
        let wish = translate::wants(id, vmi, true)
            .ok()
            .and_then(|wants| wants.network);
        let giving = Giving {
            machines: Arc::clone(&effects.machines),
            id: id.clone(),
            folder: self.folder_of(&pod),
            addresses: pod.addresses,
            wish,
        };
        let door = tokio::task::spawn_blocking(move || giving.give()).await??;
        tracing::info!(vm = %id, uid = id.uid, pod = pod.uid, "handed to its pod");
        if let Some(door) = door
            && let Err(error) = self.doors.open(&id.uid, door)
        {
            tracing::warn!(vm = %id, uid = id.uid, %error, "nobody answers its guest's DHCP");
        }
        let told = Happening::normal(events::CREATED, "VirtualMachineInstance defined.");
        effects.events.record(vmi, &told);
        Ok(Outcome::Wait(POLL))
    }

    /// Answers DHCP where a former handler did.
    fn tend(&self, effects: &Effects, id: &VmId) {
        if self.doors.has(&id.uid) {
            return;
        }
        let plan = match effects.networks.of(id) {
            Ok(Some(plan)) => plan,
            // It has none.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(vm = %id, uid = id.uid, error = chain(&error), "nobody answers its guest's DHCP");
                return;
            }
        };
        let socket = effects.machines.run_dir(id).control_socket();
        let (doors, id) = (self.doors.clone(), id.clone());
        tokio::spawn(async move {
            let reopened = tokio::task::spawn_blocking(move || {
                let process = Control::connect(&socket).and_then(|control| control.peer_pid());
                let process = process.map_err(|error| PodNetworkError::Namespace(io::Error::other(error)))?;
                network::reopen(&plan, process)
            });
            let opened = match reopened.await {
                Ok(Ok(door)) => doors.open(&id.uid, door).map_err(|error| chain(&error)),
                Ok(Err(error)) => Err(chain(&error)),
                // We end.
                Err(_) => return,
            };
            if let Err(error) = opened {
                tracing::warn!(vm = %id, uid = id.uid, error, "nobody answers its guest's DHCP for now");
                // It is tried again when the machine is seen again.
                doors.close(&id.uid);
            }
        });
    }

    fn forget(&self, id: &VmId) {
        self.doors.close(&id.uid);
    }
}

/// A pod as far as it matters here, if it is the VMI's, on this node, and may still run.
fn here(pod: &Pod, id: &VmId, node: &str) -> Option<Here> {
    let owners = pod.owner_references().iter();
    let is_its = owners
        .filter(|owner| owner.controller == Some(true))
        .any(|owner| owner.uid == id.uid);
    let is_here = pod.spec.as_ref()?.node_name.as_deref() == Some(node);
    let status = pod.status.as_ref()?;
    let runs = status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    // It names a folder.
    let uid = pod.uid().filter(|uid| is_uid(uid))?;
    let addresses = status.pod_ips.iter().flatten();
    let addresses = addresses.filter_map(|address| address.ip.parse().ok()).collect();
    (is_its && is_here && runs).then_some(Here { uid, addresses })
}

/// A machine that is about to be handed over.
struct Giving {
    machines: Arc<Machines>,
    id: VmId,
    /// The pod's folder.
    folder: PodFolder,
    addresses: Vec<IpAddr>,
    wish: Option<NetworkWish>,
}

// === impl Giving ===

impl Giving {
    /// Hands it over; then the guest's DHCP is to be answered, where it has a network. Blocks.
    fn give(&self) -> Result<Option<Door>, PodError> {
        let stream = self.connect().map_err(PodError::Absent)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream);
        let peer = peer.map_err(|errno| PodError::Absent(errno.into()))?;
        if peer.uid.as_raw() != USER {
            return Err(PodError::Stranger(peer.uid.as_raw()));
        }
        let process = peer.pid.as_raw_nonzero().get().unsigned_abs();
        let own = self.machines.folder(&self.id);
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |error| PodError::Io(path, error)
        };
        let path = own.join("spec.json");
        let mut spec = Document::parse(&fs::read(&path).map_err(failed(&path))?)?;
        let mut door = None;
        if let Some(wish) = self.wish.as_ref().filter(|_| !spec.nets().is_empty()) {
            let path = own.join(client::PLAN);
            let (plan, opened) = self.network(wish, process, &path)?;
            spec = spec.with_mac(plan.mac);
            door = Some(opened);
        }
        let from = Sources {
            own: [&own, &self.machines.disks_of(&self.id)],
            pod: &self.folder,
            process,
        };
        let files = files::open(&spec, &from)?;
        let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let link = own.join(POD_LINK);
        symlink(self.folder.empty_dir(VOLUME), &link).map_err(failed(&link))?;
        match launch::hand_over(&stream, &spec, &files) {
            Ok(()) => Ok(door),
            Err(LaunchError::Refused(why)) => {
                fs::remove_file(&link).map_err(failed(&link))?;
                Err(LaunchError::Refused(why).into())
            }
            // It may have been taken; that is seen.
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the guest's network, as it is written down there.
    fn network(&self, wish: &NetworkWish, process: u32, path: &Path) -> Result<(Plan, Door), PodError> {
        let write = |plan: &Plan| {
            let told = serde_json::to_vec(plan).map_err(io::Error::from);
            let fresh = path.with_extension("new");
            let written = told
                .and_then(|plan| fs::write(&fresh, plan))
                .and_then(|()| fs::rename(&fresh, path));
            written.map_err(|error| PodError::Io(path.to_owned(), error))
        };
        let before = match wish.binding {
            // An earlier try may have taken from the pod's link what it was planned with.
            Binding::Bridge => fs::read(path)
                .ok()
                .and_then(|told| serde_json::from_slice(&told).ok()),
            Binding::Masquerade => None,
        };
        let mut plan = match before {
            Some(plan) => plan,
            None => network::plan(wish, &self.addresses, process)?,
        };
        write(&plan)?;
        let door = network::furnish(&mut plan, process)?;
        write(&plan)?;
        Ok((plan, door))
    }

    /// By the folder's descriptor: a socket's address has no room for long paths.
    fn connect(&self) -> io::Result<UnixStream> {
        let mut options = fs::File::options();
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let folder = options
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.folder.empty_dir(VOLUME))?;
        UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use serde_json::json;

    #[test]
    fn a_pod_is_looked_for_by_its_owner_and_its_node() {
        let id = sample::id();
        let pod = |over: serde_json::Value| -> Pod {
            let mut pod = json!({
                "metadata": {"name": "p", "uid": "6f9619ff-8b86-4d01-b42d-00cf4fc964aa", "ownerReferences": [
                    {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": id.uid, "controller": true},
                ]},
                "spec": {"nodeName": "n1", "containers": []},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]},
            });
            json_patch::merge(&mut pod, &over);
            serde_json::from_value(pod).unwrap()
        };
        let found = here(&pod(json!({})), &id, "n1").unwrap();
        assert_eq!(
            found.addresses,
            ["10.0.0.7", "fd00::7"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        for over in [
            json!({"metadata": {"ownerReferences": null}}),
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "x", "name": "vm", "uid": "other", "controller": true}]}}),
            json!({"metadata": {"uid": "../../../etc"}}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            json!({"spec": {"nodeName": "n2"}}),
            json!({"status": {"phase": "Succeeded"}}),
        ] {
            assert_eq!(here(&pod(over.clone()), &id, "n1"), None, "{over}");
        }
    }
}
