//! Makes everything that a machine needs and does not start it: what other objects of the cluster hold, images, disks, the
//! run directory.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rvm_types::names::{events, reasons};
use rvm_types::{VirtualMachineInstance, admission};
use rvmm_spec::{AcceleratorChoice, SpecError, Vars};
use tracing::Span;

use crate::events::Happening;
use crate::images::store::InUse;
use crate::images::{BootFiles, Images, labels};
use crate::launch::NoPod;
use crate::networks::client::{self, NetworkError, Networks};
use crate::networks::wish::NetworkWish;
use crate::plan::Step;
use crate::process::{LayOutError, Machines};
use crate::status::Report;
use crate::steps::{Effects, Outcome, StepError, chain};
use crate::translate::{self, Artefacts, BootSource, Efi, Wants};
use crate::vm::VmId;
use crate::volumes::{self, Maker, Material, Seed};

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
        let (reason, message) = match prepared {
            Ok(without) => {
                self.retries.forget(id);
                self.tell_of_no_network(id, vmi, without.as_ref());
                return Ok(Outcome::Done);
            }
            Err(NotPrepared { reason, message }) => (reason, message),
        };
        let pause = self.retries.note(id, Timestamp::now());
        tracing::warn!(vm = %id, uid = id.uid, reason, retry_in = ?pause, "cannot be prepared: {message}");
        let report = Report::not_prepared(reason, message, self.retries.failures(id));
        self.write(id, vmi, &Step::Report(report)).await?;
        Ok(Outcome::Wait(pause))
    }

    /// Where a machine starts without the network that nobody asked for, its owner hears why.
    fn tell_of_no_network(&self, id: &VmId, vmi: &VirtualMachineInstance, why: Option<&NetworkError>) {
        let Some(error) = why else {
            return;
        };
        // What this node's administrator wanted so is nothing to warn of.
        let tell = match error {
            NetworkError::None => Happening::normal,
            _ => Happening::warning,
        };
        let why = chain(error);
        tracing::warn!(vm = %id, uid = id.uid, "starts without a network: {why}");
        let message = format!(
            "It starts without the pod's network, which it has not asked for: {why}. With \
             spec.domain.devices.autoattachPodInterface: false it gets none."
        );
        self.events
            .record(vmi, &tell(events::NETWORK_UNAVAILABLE, message));
    }

    /// Asks for what stands elsewhere in the cluster, then makes all files, in a thread that may block. The images are held until
    /// then. Says why there is no network, where that keeps nobody from starting.
    async fn make(
        &self,
        id: &VmId,
        vmi: &VirtualMachineInstance,
        held: Vec<InUse>,
    ) -> Result<Result<Option<NetworkError>, NotPrepared>, StepError> {
        let wants = match translate::wants(id, vmi, self.me.borrow().in_pods) {
            Ok(wants) => wants,
            Err(causes) => {
                let (reason, message) = (reasons::FAILED_CREATE, admission::summary(&causes));
                return Ok(Err(NotPrepared { reason, message }));
            }
        };
        let me = self.me.borrow().clone();
        let by = (&self.client, self.claims.as_ref(), &me);
        let pod = match self.launcher.folder(self, id).await? {
            Ok(pod) => pod,
            Err(NoPod) => return Ok(Err(NotPrepared::because(reasons::FAILED_CREATE, &NoPod))),
        };
        let material = match volumes::gather(by, id, vmi, &wants.disks, pod.as_ref()).await {
            Ok(material) => material,
            Err(error) => return Ok(Err(NotPrepared::because(error.reason(), &error))),
        };
        let (machines, images, host_disks, claims) = (
            Arc::clone(&self.machines),
            Arc::clone(&self.images),
            Arc::clone(&self.host_disks),
            Arc::clone(&self.claims),
        );
        let networks = Arc::clone(&self.networks);
        let (vm, accelerator) = (id.clone(), self.accelerator);
        let span = Span::current();
        let make = move || {
            let _within = span.entered();
            let maker = Maker {
                machines: &machines,
                images: &images,
                host_disks: &host_disks,
                claims: &claims,
            };
            let done = lay_out(&maker, &networks, &vm, &wants, material, accelerator);
            drop(held);
            done
        };
        Ok(tokio::task::spawn_blocking(make).await?)
    }
}

/// Gets all that a machine needs and writes its run directory. Says why there is no network, where there need not be one. Blocks.
fn lay_out(
    maker: &Maker<'_>,
    networks: &Networks,
    id: &VmId,
    wants: &Wants,
    material: Material,
    accelerator: AcceleratorChoice,
) -> Result<Option<NetworkError>, NotPrepared> {
    let making = tracing::info_span!("make disks").entered();
    let boot = boot_files(maker.images, &wants.boot)?;
    let wants = &with_image_s_cpu(maker.images, wants)?;
    let vars = variables(maker, id, &wants.boot)?;
    let made = maker.make(id, &wants.disks, material);
    drop(making);
    let (disks, seeds) = made.map_err(|error| NotPrepared::because(error.reason(), &error))?;
    let files = Artefacts {
        payload: boot.kernel,
        initrd: boot.initrd,
        vars,
        disks,
    };
    tracing::info!(vm = %id, uid = id.uid, "its files are made");
    let laying = Laying {
        machines: maker.machines,
        networks,
        id,
        files,
        seeds,
        accelerator,
    };
    let Some(wish) = wants.network.as_ref().filter(|_| !maker.machines.are_in_pods()) else {
        // In a pod it has its network when it is handed over.
        laying.alone(wants)?;
        return Ok(None);
    };
    match laying.attached(wants, wish) {
        Ok(()) => Ok(None),
        Err(LayingError::Network(error)) if wish.optional => {
            laying.alone(&wants.clone().without_network())?;
            Ok(Some(error))
        }
        Err(error) => Err(error.into()),
    }
}

/// The same, with the processors that its root file system's image asks for, where the VMI asks for none.
fn with_image_s_cpu(images: &Images, wants: &Wants) -> Result<Wants, NotPrepared> {
    let mut wants = wants.clone();
    if let BootSource::RootFilesystem { image, .. } = &wants.boot
        && wants.cpu.switches().is_empty()
    {
        let asked = images.cpu_features(image);
        let asked = asked.map_err(|error| NotPrepared::because(reasons::ERR_IMAGE_PULL, &error))?;
        let model = translate::cpu::with_switches(&asked.unwrap_or_default());
        wants.cpu = model.map_err(|error| NotPrepared {
            reason: reasons::FAILED_CREATE,
            message: format!("the label {} of '{image}': {error}", labels::CPU),
        })?;
    }
    Ok(wants)
}

/// What it boots.
fn boot_files(images: &Images, boot: &BootSource) -> Result<BootFiles, NotPrepared> {
    let files = match boot {
        BootSource::RootFilesystem {
            image,
            kernel: Some((from, path)),
            ..
        } => images.root_boot(image).and_then(|files| {
            let kernel = images.kernel_boot(from, path, None)?.kernel;
            Ok(BootFiles { kernel, ..files })
        }),
        BootSource::RootFilesystem { image, .. } => images.root_boot(image),
        BootSource::Kernel {
            image,
            kernel,
            initrd,
            ..
        } => images.kernel_boot(image, kernel, initrd.as_deref()),
        BootSource::OwnFirmware { image, path } => return own_firmware(images, image, path),
        BootSource::Firmware(efi) => Ok(BootFiles {
            kernel: firmware(match efi {
                Efi::UBoot => "uboot",
                Efi::Edk2 { .. } => "edk2-code",
            })?,
            initrd: None,
        }),
    };
    files.map_err(|error| NotPrepared::because(reasons::ERR_IMAGE_PULL, &error))
}

/// A machine whose files are all there, but for its run directory.
struct Laying<'a> {
    machines: &'a Machines,
    networks: &'a Networks,
    id: &'a VmId,
    files: Artefacts,
    seeds: Vec<Seed>,
    accelerator: AcceleratorChoice,
}

/// A run directory, or the network that belongs to it, is not there.
#[derive(Debug, thiserror::Error)]
enum LayingError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    LayOut(#[from] LayOutError),
    #[error(transparent)]
    Spec(#[from] SpecError),
}

// === impl Laying ===

impl Laying<'_> {
    /// Writes the run directory of a machine without a network.
    fn alone(&self, wants: &Wants) -> Result<(), LayingError> {
        self.write(wants, &self.seeds)
    }

    /// Decides the network, writes the run directory, and has the network be there: whatever keeps the machine from it is told now, and
    /// not when it starts.
    fn attached(&self, wants: &Wants, wish: &NetworkWish) -> Result<(), LayingError> {
        let _span = tracing::info_span!("make network").entered();
        self.networks.plan(self.id, wish, |plan| {
            let seeds = self.seeds.iter().cloned().chain([client::seed(plan)?]);
            self.write(wants, &seeds.collect::<Vec<_>>())
        })?;
        self.networks.attach(self.id)?;
        tracing::info!(vm = %self.id, uid = self.id.uid, "its network is there");
        Ok(())
    }

    fn write(&self, wants: &Wants, seeds: &[Seed]) -> Result<(), LayingError> {
        let spec = translate::spec(self.id, wants, self.files.clone(), self.accelerator)?;
        Ok(self.machines.lay_out(self.id, &spec, seeds)?)
    }
}

impl From<LayingError> for NotPrepared {
    fn from(error: LayingError) -> Self {
        Self::because(reasons::FAILED_CREATE, &error)
    }
}

/// An image of the catalog, checked.
fn firmware(name: &str) -> Result<PathBuf, NotPrepared> {
    rvm_firmware::locate(name).map_err(|error| NotPrepared::because(reasons::FAILED_CREATE, &error))
}

/// A bank of flash, which no firmware is larger than.
const MAX_FIRMWARE: u64 = 32 << 20;

/// A firmware that its author brings. Only its size is looked at here: what it is, rvmm reads behind its walls.
fn own_firmware(images: &Images, image: &str, path: &str) -> Result<BootFiles, NotPrepared> {
    let because = |error: &dyn std::error::Error| NotPrepared::because(reasons::ERR_IMAGE_PULL, error);
    let files = images
        .kernel_boot(image, path, None)
        .map_err(|error| because(&error))?;
    let size = fs::metadata(&files.kernel)
        .map_err(|error| because(&error))?
        .len();
    if size > MAX_FIRMWARE {
        return Err(NotPrepared {
            reason: reasons::FAILED_CREATE,
            message: format!(
                "the firmware '{path}' of '{image}' has {size} bytes; a bank of flash has {MAX_FIRMWARE}"
            ),
        });
    }
    Ok(files)
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
