//! The machine whose console is wanted, by whichever API leads to it.

use anyhow::Result;
use rvm_types::Phase;

use super::Attempt;
use super::kubernetes::Kubernetes;
use super::rvm::Rvm;
use crate::args::Global;
use crate::connect::Door;
use crate::screen::progress;

/// A machine.
pub(super) enum Machine {
    Rvm(Rvm),
    Kubernetes(Kubernetes),
}

// === impl Machine ===

impl Machine {
    pub(super) async fn find(global: &Global, name: &str, read_only: bool) -> Result<Self> {
        Ok(match Door::find(global).await? {
            Door::Rvm(client) => {
                let namespace = global.namespace.clone().unwrap_or_default();
                Self::Rvm(Rvm::new(client, namespace, name, read_only))
            }
            Door::Kubernetes(cluster) => Self::Kubernetes(Kubernetes::new(cluster, name, read_only)),
        })
    }

    /// Tries to attach.
    pub(super) async fn attach(&mut self) -> Result<Attempt> {
        match self {
            Self::Rvm(machine) => machine.attach().await,
            Self::Kubernetes(machine) => machine.attach().await,
        }
    }

    /// Waits until attaching is worth another try, with a line for each phase on the way.
    pub(super) async fn until_it_should_run(&mut self, said: &mut Option<Phase>) -> Result<()> {
        match self {
            Self::Rvm(machine) => machine.until_it_should_run(said).await,
            Self::Kubernetes(machine) => machine.until_it_should_run(said).await,
        }
    }

    /// Where it is now.
    pub(super) async fn phase(&mut self) -> Result<Option<Phase>> {
        match self {
            Self::Rvm(machine) => machine.phase().await,
            Self::Kubernetes(machine) => machine.phase().await,
        }
    }
}

/// A line for a phase that was not said last.
pub(super) fn tell(name: &str, phase: Phase, said: &mut Option<Phase>) {
    if said.as_ref() != Some(&phase) {
        progress(&format!("Waiting for {name}: {phase}"));
        *said = Some(phase);
    }
}
