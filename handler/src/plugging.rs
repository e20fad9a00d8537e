//! Plugs disks into machines that run, and pulls them out: prepares a volume as at a start, opens its disk, and hands it to rvmm.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{OFlags, SeekFrom};
use rvm_types::names::reasons;
use rvm_types::{VirtualMachineInstance, admission};
use rvmm_control::{Client, ClientError, Request};
use rvmm_spec::Disk;
use rvmm_spec::wire::DiskDocument;

use crate::hotplug::{self, Attempt, Attempts, Failed};
use crate::launch::files;
use crate::process::Machines;
use crate::steps::{Effects, StepError, chain};
use crate::translate::disks::{self, DiskWish};
use crate::vm::VmId;
use crate::volumes::{self, Maker, VolumeError};

/// Pause before what failed is tried again: claims come, and guests let go.
const RETRY: Duration = Duration::from_secs(10);

/// What became of the devices of this node's machines. Lost with us, which only means that they are tried at once.
#[derive(Debug, Default)]
pub struct Plugs(Mutex<HashMap<String, Attempts>>);

/// A disk did not come, or go.
#[derive(Debug, thiserror::Error)]
enum PlugError {
    /// It cannot be a disk.
    #[error("{0}")]
    Invalid(String),
    /// It cannot be made.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// It cannot be opened.
    #[error("its disk cannot be opened")]
    Open(#[from] files::FileError),
    /// rvmm did not do it.
    #[error(transparent)]
    Machine(#[from] ClientError),
}

// === impl Plugs ===

impl Plugs {
    /// What became of a machine's devices.
    pub fn of(&self, id: &VmId) -> Attempts {
        self.map().get(&id.uid).cloned().unwrap_or_default()
    }

    /// Forgets all VMIs but these.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.map().retain(|uid, _| keep(uid));
    }

    fn note(&self, id: &VmId, device: String, attempt: Attempt) {
        self.map()
            .entry(id.uid.clone())
            .or_default()
            .insert(device, attempt);
    }

    fn forget(&self, id: &VmId, device: &str) {
        if let Some(attempts) = self.map().get_mut(&id.uid) {
            attempts.remove(device);
        }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Attempts>> {
        // Every entry is whole, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl PlugError ===

impl PlugError {
    /// In one word.
    fn reason(&self) -> &'static str {
        match self {
            Self::Volume(error) => error.reason(),
            Self::Invalid(_) | Self::Open(_) | Self::Machine(_) => reasons::FAILED_HOTPLUG_SYNC,
        }
    }
}

// === impl Effects ===

impl Effects {
    /// Has the disk of a volume come. That it does not is noted, and no error: the machine runs on.
    ///
    /// # Errors
    /// Only when we end.
    pub(crate) async fn plug(
        &self,
        id: &VmId,
        vmi: &VirtualMachineInstance,
        volume: &str,
    ) -> Result<(), StepError> {
        let device = hotplug::device(volume);
        let attempt = match self.bring(id, vmi, volume).await? {
            Ok(size) => {
                tracing::info!(vm = %id, uid = id.uid, volume, "plugged in");
                Attempt {
                    size: Some(size),
                    failed: None,
                }
            }
            Err(error) => {
                tracing::warn!(vm = %id, uid = id.uid, volume, error = chain(&error), "cannot be plugged in");
                failed(&error)
            }
        };
        self.plugs.note(id, device, attempt);
        Ok(())
    }

    /// Has a device go. That it does not is noted, and no error.
    ///
    /// # Errors
    /// Only when we end.
    pub(crate) async fn unplug(&self, id: &VmId, device: &str) -> Result<(), StepError> {
        let (machines, vm, name) = (Arc::clone(&self.machines), id.clone(), device.to_owned());
        let remove = move || {
            let mut client = Client::connect(&machines.run_dir(&vm).control_socket())?;
            client.perform(Request::RemoveDevice { id: name })
        };
        match tokio::task::spawn_blocking(remove).await? {
            Ok(()) => {
                tracing::info!(vm = %id, uid = id.uid, device, "pulled out");
                self.plugs.forget(id, device);
            }
            Err(error) => {
                tracing::warn!(vm = %id, uid = id.uid, device, error = chain(&error), "cannot be pulled out");
                self.plugs.note(id, device.to_owned(), failed(&error.into()));
            }
        }
        Ok(())
    }

    /// Asks for what stands elsewhere in the cluster, then makes the disk and hands it over, in a thread that may block. Gives its size.
    async fn bring(
        &self,
        id: &VmId,
        vmi: &VirtualMachineInstance,
        volume: &str,
    ) -> Result<Result<u64, PlugError>, StepError> {
        let wish = match checked(vmi, volume) {
            Ok(wish) => wish,
            Err(error) => return Ok(Err(error)),
        };
        let me = self.me.borrow().clone();
        let by = (&self.client, self.claims.as_ref(), &me);
        let wishes = [wish];
        // A pod that runs is given nothing more.
        let material = match volumes::gather(by, id, vmi, &wishes, None).await {
            Ok(material) => material,
            Err(error) => return Ok(Err(error.into())),
        };
        let (machines, images, host_disks, claims) = (
            Arc::clone(&self.machines),
            Arc::clone(&self.images),
            Arc::clone(&self.host_disks),
            Arc::clone(&self.claims),
        );
        let (vm, device) = (id.clone(), hotplug::device(volume));
        let hand_over = move || {
            let maker = Maker {
                machines: &machines,
                images: &images,
                host_disks: &host_disks,
                claims: &claims,
            };
            let (made, _) = maker.make(&vm, &wishes, material)?;
            let disks = wishes.iter().zip(made).map(|(wish, file)| wish.at(file));
            let mut size = 0;
            for disk in disks {
                let file = opened(&machines, &disk)?;
                size = rustix::fs::seek(&file, SeekFrom::End(0)).unwrap_or_default();
                let mut client = Client::connect(&machines.run_dir(&vm).control_socket())?;
                let request = Request::AddDisk {
                    id: Some(device.clone()),
                    disk: DiskDocument::from(&disk),
                };
                client.plug(request, &[file.as_fd()])?;
            }
            Ok(size)
        };
        Ok(tokio::task::spawn_blocking(hand_over).await?)
    }
}

/// The disk of a volume that comes and goes, of a VMI that was changed since it was claimed.
fn checked(vmi: &VirtualMachineInstance, volume: &str) -> Result<DiskWish, PlugError> {
    let mut vmi = vmi.clone();
    admission::default(&mut vmi);
    let causes = admission::validate(&vmi);
    if !causes.is_empty() {
        return Err(PlugError::Invalid(admission::summary(&causes)));
    }
    let wish = disks::plugged(&vmi, volume);
    wish.map_err(|cause| PlugError::Invalid(cause.to_string()))
}

fn failed(error: &PlugError) -> Attempt {
    Attempt {
        size: None,
        failed: Some(Failed {
            reason: error.reason(),
            message: chain(error),
            retry_at: Timestamp::now() + RETRY,
        }),
    }
}

/// Opens a disk's image, for whoever rvmm is.
fn opened(machines: &Machines, disk: &Disk) -> Result<OwnedFd, files::FileError> {
    if machines.are_in_pods() {
        return files::open_one(&disk.path, !disk.read_only, false);
    }
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK;
    flags.set(OFlags::DIRECT, disk.direct);
    let mut options = File::options();
    options
        .read(true)
        .write(!disk.read_only)
        .custom_flags(flags.bits().cast_signed());
    let file = options.open(&disk.path);
    let file = file.map_err(|error| files::FileError::Io(disk.path.clone(), error))?;
    Ok(file.into())
}
