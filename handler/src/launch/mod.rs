//! How a machine that is laid out gets its process. Two ways, by one trait:
//!
//! | | [`Processes`] | [`Pods`] |
//! | --- | --- | --- |
//! | rvmm is | a process of ours, which outlives us | the process of a pod, which waits for its machine (`rvmm --await`) |
//! | who chooses the node | handlers, each for itself | the cluster's scheduler; a handler claims what was put to its node |
//! | files | are where they are | are opened here and handed over as descriptors |
//! | network | a namespace of ours (`networks/keeper.rs`) | the pod's, in which we make the guest's tap and rules |
//! | rvmm's own files (`pid`, sockets, `console.log`) | in the machine's run directory | in a volume of the pod, which `vm` in the run directory leads to |
//!
//! What is decided, written and found again is the same for both: the run directory says what there is.

pub mod files;
mod network;
mod pods;
mod process;

use rvm_types::VirtualMachineInstance;

pub use files::FileError;
pub use pods::{PodError, Pods};
pub use process::Processes;

use crate::plan::Berth;
use crate::steps::{Effects, Outcome, StepError};
use crate::vm::VmId;
use crate::volumes::brought::PodFolder;

/// A machine that should have a pod has none.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("its pod is not here")]
pub struct NoPod;

/// A way in which machines get their processes.
#[tonic::async_trait]
pub trait Launcher: std::fmt::Debug + Send + Sync {
    /// Whether there is a place for the machine of a VMI that nobody has taken.
    async fn berth(
        &self,
        effects: &Effects,
        id: &VmId,
        vmi: &VirtualMachineInstance,
    ) -> Result<Berth, StepError>;

    /// What the kubelet has brought for a machine that is to be laid out, if that has a pod.
    async fn folder(
        &self,
        effects: &Effects,
        id: &VmId,
    ) -> Result<Result<Option<PodFolder>, NoPod>, StepError>;

    /// Starts a machine that is laid out.
    async fn start(
        &self,
        effects: &Effects,
        id: &VmId,
        vmi: &VirtualMachineInstance,
    ) -> Result<Outcome, StepError>;

    /// Sees to what a machine that lives needs of this process, each time that it is seen.
    fn tend(&self, effects: &Effects, id: &VmId);

    /// The machine is over.
    fn forget(&self, id: &VmId);
}
