//! Makes everything that a machine needs and does not start it: what other objects of the cluster hold, images, disks, the
//! run directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rvm_types::names::reasons;
use rvm_types::{VirtualMachineInstance, admission};
use rvmm_spec::{AcceleratorChoice, Vars};

use crate::images::BootFiles;
use crate::images::store::InUse;
use crate::networks::client::{self, NetworkError, Networks};
use crate::plan::Step;
use crate::process::LayOutError;
use crate::status::Report;
use crate::steps::{Effects, Outcome, StepError, chain};
use crate::translate::{self, Artefacts, BootSource, Efi, Wants};
use crate::vm::VmId;
use crate::volumes::{self, Maker, Material};

/// How often a VMI is looked at whose images are being pulled; it is woken when they are here.
const PULLING: Duration = Duration::from_secs(60);

/// Why a VMI could not be prepared, in words for its status.
struct NotPrepared {
    reason: &'static str,
    message: String,
}

// === impl NotPrepared ===

impl NotPrepared {
    fn because(reason: &'static str, error: &dyn std::error::Error) -> Self {
        Self {
            reason,
            message: chain(error),
        }
    }
}

// === impl Effects ===

impl Effects {
    /// Prepares a VMI, or tells in its status why that cannot be done, and when it is tried again.
    ///
    /// # Errors
    /// Any [`StepError`].
    pub(crate) async fn prepare(
        &self,
        id: &VmId,
        vmi: &VirtualMachineInstance,
    ) -> Result<Outcome, StepError> {
        let Some(pulled) = self.pulled(id, vmi).await? else {
            return Ok(Outcome::Wait(PULLING));
        };
        tracing::info!(vm = %id, uid = id.uid, "preparing");
        let prepared = match pulled {
            Err((reason, message)) => Err(NotPrepared { reason, message }),
            Ok(held) => self.make(id, vmi, held).await?,
        };
        let Err(NotPrepared { reason, message }) = prepared else {
            self.retries.forget(id);
            return Ok(Outcome::Done);
        };
        let pause = self.retries.note(id, Timestamp::now());
        tracing::warn!(vm = %id, uid = id.uid, reason, retry_in = ?pause, "cannot be prepared: {message}");
        let report = Report::not_prepared(reason, message, self.retries.failures(id));
        self.write(id, vmi, &Step::Report(report)).await?;
        Ok(Outcome::Wait(pause))
    }

    /// Asks for what stands elsewhere in the cluster, then makes all files, in a thread that may block. The images are held until
    /// then.
    async fn make(
        &self,
        id: &VmId,
        vmi: &VirtualMachineInstance,
        held: Vec<InUse>,
    ) -> Result<Result<(), NotPrepared>, StepError> {
        let wants = match translate::wants(id, vmi) {
            Ok(wants) => wants,
            Err(causes) => {
                let (reason, message) = (reasons::FAILED_CREATE, admission::summary(&causes));
                return Ok(Err(NotPrepared { reason, message }));
            }
        };
        let material = match volumes::gather(&self.client, id, vmi, &wants.disks).await {
            Ok(material) => material,
            Err(error) => return Ok(Err(NotPrepared::because(error.reason(), &error))),
        };
        let (machines, images, host_disks, claims) = (
            Arc::clone(&self.machines),
            Arc::clone(&self.images),
            Arc::clone(&self.host_disks),
            self.claims.clone(),
        );
        let networks = Arc::clone(&self.networks);
        let (vm, accelerator) = (id.clone(), self.accelerator);
        let make = move || {
            let maker = Maker {
                machines: &machines,
                images: &images,
                host_disks: &host_disks,
                claims: claims.as_deref(),
            };
            let done = lay_out(&maker, &networks, &vm, &wants, material, accelerator);
            drop(held);
            done
        };
        Ok(tokio::task::spawn_blocking(make).await?)
    }
}

/// Gets all that a machine needs and writes its run directory. Blocks.
fn lay_out(
    maker: &Maker<'_>,
    networks: &Networks,
    id: &VmId,
    wants: &Wants,
    material: Material,
    accelerator: AcceleratorChoice,
) -> Result<(), NotPrepared> {
    let images = maker.images;
    let boot = match &wants.boot {
        BootSource::RootFilesystem { image, .. } => images.root_boot(image),
        BootSource::Kernel {
            image,
            kernel,
            initrd,
            ..
        } => images.kernel_boot(image, kernel, initrd.as_deref()),
        BootSource::Firmware(efi) => Ok(BootFiles {
            kernel: firmware(match efi {
                Efi::UBoot => "uboot",
                Efi::Edk2 { .. } => "edk2-code",
            })?,
            initrd: None,
        }),
    };
    let boot = boot.map_err(|error| NotPrepared::because(reasons::ERR_IMAGE_PULL, &error))?;
    let vars = variables(maker, id, &wants.boot)?;
    let made = maker.make(id, &wants.disks, material);
    let (disks, mut seeds) = made.map_err(|error| NotPrepared::because(error.reason(), &error))?;
    let files = Artefacts {
        payload: boot.kernel,
        initrd: boot.initrd,
        vars,
        disks,
    };
    let spec = translate::spec(id, wants, files, accelerator)
        .map_err(|error| NotPrepared::because(reasons::FAILED_CREATE, &error))?;
    let Some(wish) = &wants.network else {
        return Ok(maker.machines.lay_out(id, &spec, &seeds)?);
    };
    networks.plan(id, wish, |plan| {
        seeds.push(client::seed(plan)?);
        Ok::<_, NotPrepared>(maker.machines.lay_out(id, &spec, &seeds)?)
    })?;
    // Whatever keeps it from its network is told now, and not when it starts.
    networks.attach(id)?;
    Ok(())
}

impl From<NetworkError> for NotPrepared {
    fn from(error: NetworkError) -> Self {
        Self::because(reasons::FAILED_CREATE, &error)
    }
}

impl From<LayOutError> for NotPrepared {
    fn from(error: LayOutError) -> Self {
        Self::because(reasons::FAILED_CREATE, &error)
    }
}

/// An image of the catalog, checked.
fn firmware(name: &str) -> Result<PathBuf, NotPrepared> {
    rvm_firmware::locate(name).map_err(|error| NotPrepared::because(reasons::FAILED_CREATE, &error))
}

/// Where the firmware's variables are kept, beside the machine's disks, and what they are made from at its first boot.
fn variables(maker: &Maker<'_>, id: &VmId, boot: &BootSource) -> Result<Option<Vars>, NotPrepared> {
    if !matches!(boot, BootSource::Firmware(Efi::Edk2 { keeps: true })) {
        return Ok(None);
    }
    let file = maker.machines.efi_variables(id);
    let file = file.map_err(|error| NotPrepared::because(reasons::FAILED_CREATE, &error))?;
    let template = Some(firmware("edk2-vars")?);
    Ok(Some(Vars { file, template }))
}
