//! Behind the walls: puts up the sandbox around what will run the machine, and so yields the means to run it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rvmm_backends::console::raw;
use rvmm_control::Accelerator;
use rvmm_hypervisor::requests;
use rvmm_qemu::{Launcher, SCRATCH, find};
use rvmm_sandbox::{Emulator, KvmRequests, Plan, Sandbox, Walls};
use rvmm_spec::Spec;
use tempfile::TempDir;

use crate::supervise::Place;

/// What can run the machine from here on. Only to be had with the walls up, or known to be off.
pub enum Backend {
    /// KVM, in this process.
    Kvm(Sandbox),
    /// QEMU.
    Tcg {
        /// What starts it.
        launcher: Launcher,
        /// Where the files of a start lie: in the run directory, or in a folder of our own.
        work_dir: PathBuf,
        /// That folder, removed at the end.
        _own: Option<TempDir>,
        /// This process is confined, too.
        _sandbox: Sandbox,
    },
}

// === impl Backend ===

impl Backend {
    /// Confines the process and this thread. To be called when everything is open that is no file of the Spec, and
    /// before a second thread is started.
    ///
    /// # Errors
    /// A wall that could not be put up.
    pub fn confine(spec: &Spec, accelerator: Accelerator, place: Option<&Place>) -> anyhow::Result<Self> {
        rvmm_sandbox::on_violation(|| {
            raw::restore_all();
        });
        let kvm = KvmRequests {
            build: requests::BUILD,
            run: requests::RUN,
        };
        let plan = Plan {
            spec,
            run_dir: place.map(|place| place.run().path()),
            emulator: None,
            kvm,
        };
        match accelerator {
            Accelerator::Kvm => Ok(Self::Kvm(Walls::raise(&plan)?.confine_main()?)),
            Accelerator::Tcg => Self::with_emulator(&plan),
        }
    }

    fn with_emulator(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let own = match plan.run_dir {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix(SCRATCH)
                    .tempdir()
                    .context("no temporary folder")?,
            ),
        };
        let work_dir = own.as_ref().map(TempDir::path).or(plan.run_dir);
        let work_dir = work_dir.map_or_else(std::env::temp_dir, Path::to_owned);
        // One that is missing is told of when it is started.
        let program = find::program().unwrap_or_default();
        let firmware = std::env::var_os(find::FIRMWARE_VARIABLE).map(PathBuf::from);
        let emulator = Emulator {
            program: &program,
            firmware: firmware.as_deref(),
            work_dir: &work_dir,
        };
        let walls = Walls::raise(&Plan {
            emulator: Some(emulator),
            ..*plan
        })?;
        let launcher = Launcher::start(&walls)?;
        Ok(Self::Tcg {
            launcher,
            work_dir,
            _own: own,
            _sandbox: walls.confine_main()?,
        })
    }
}
