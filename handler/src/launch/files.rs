//! A machine's files, opened for the user that a pod's process is: each by what that user may do with it, and no more.
//!
//! | file | who may |
//! | --- | --- |
//! | written by the machine: disks, firmware variables | the user owns it |
//! | the machine's own, only read: disks of a few files | the user owns it, and it is read-only |
//! | shared: images, kernels, firmware | everybody may read it; it stays root's, so that nobody else can write it |
//!
//! | in the pod's own volumes | as above; where its group may do it, it stays as it is |
//! | a block device of the pod's | the user owns its node in the container; the descriptor only names it |
//!
//! The descriptors are opened anew by whoever receives them, which is held against these modes; the folders that they lie in stay
//! closed. Block devices of the node are refused: a container may open none that its pod did not ask for.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown};
use rvmm_control::launch;
use rvmm_spec::{Payload, Spec};

use crate::volumes::brought::{self, PodFolder};
use crate::volumes::host_disk::HostDiskError;

/// Who a pod's process is: KubeVirt's user.
pub const USER: u32 = 107;

/// That others may read.
const OTHERS_READ: u32 = 0o004;

/// A machine's file cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system.
    #[error("'{0}' cannot be handed to a pod")]
    Io(PathBuf, #[source] io::Error),
    /// A block device.
    #[error(
        "'{0}' is a block device, which machines in pods cannot have: use a volume with volumeMode Filesystem"
    )]
    Device(PathBuf),
    /// A pipe, a folder, a socket.
    #[error("'{0}' is no file")]
    Kind(PathBuf),
    /// What the kubelet has brought.
    #[error("what the pod was given cannot be handed to it")]
    Brought(#[from] HostDiskError),
}

/// Where a machine's files come from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Folders of what is the machine's alone.
    pub own: [&'a Path; 2],
    /// What the kubelet has brought to its pod.
    pub pod: &'a PodFolder,
    /// A process of the pod's container.
    pub process: u32,
}

/// Opens all files of a machine, in the order in which they are handed over.
///
/// # Errors
/// [`FileError`], for the first that cannot be had.
pub fn open(spec: &Spec, from: &Sources<'_>) -> Result<Vec<OwnedFd>, FileError> {
    make_variables(spec)?;
    let files = launch::files(spec).into_iter();
    let opened = files.map(|(path, written)| {
        if let Some(device) = from.pod.in_container(path) {
            return Ok(brought::device(from.process, &device, USER)?);
        }
        if from.pod.holds(path) {
            let file = brought::open(path, written)?;
            return fit(file, path, written, false);
        }
        let is_own = from.own.iter().any(|folder| path.starts_with(folder));
        open_one(path, written, is_own)
    });
    opened.collect()
}

/// Opens one file of a machine, which writes it or only reads it; it is in a folder of the machine's alone, or not.
///
/// # Errors
/// [`FileError`].
pub fn open_one(path: &Path, written: bool, is_own: bool) -> Result<OwnedFd, FileError> {
    let failed = |error: io::Error| FileError::Io(path.to_owned(), error);
    let mut options = OpenOptions::new();
    // One that is no file must not make us wait.
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    options
        .read(true)
        .write(written)
        .custom_flags(flags.bits().cast_signed());
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.file_type().is_block_device() {
        return Err(FileError::Device(path.to_owned()));
    }
    if !metadata.is_file() {
        return Err(FileError::Kind(path.to_owned()));
    }
    fit(file, path, written, is_own)
}

/// Makes a file one that the user may do with what the machine does.
fn fit(file: File, path: &Path, written: bool, is_own: bool) -> Result<OwnedFd, FileError> {
    let failed = |error: io::Error| FileError::Io(path.to_owned(), error);
    let metadata = file.metadata().map_err(failed)?;
    let needed = if written { 0o6 } else { 0o4 };
    let of_group =
        metadata.gid() == USER && metadata.uid() != USER && metadata.mode() >> 3 & needed == needed;
    let give = |mode: Option<u32>| {
        fchown(&file, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER)))?;
        mode.map_or(Ok(()), |mode| fchmod(&file, Mode::from_raw_mode(mode)))
    };
    let fit = match (written, is_own) {
        _ if of_group && !is_own => Ok(()),
        (true, _) if metadata.uid() == USER && metadata.mode() & 0o600 == 0o600 => Ok(()),
        (true, true) => give(Some(0o600)),
        // What others of its owner's could do with it they still can.
        (true, false) => give(None),
        (false, true) => give(Some(0o400)),
        (false, false) if metadata.uid() == USER && metadata.mode() & 0o400 != 0 => Ok(()),
        (false, false) if metadata.mode() & OTHERS_READ != 0 => Ok(()),
        (false, false) => fchmod(&file, Mode::from_raw_mode(metadata.mode() & 0o777 | 0o444)),
    };
    fit.map_err(|errno| failed(errno.into()))?;
    Ok(file.into())
}

/// A firmware's variables are there before they are handed over: whoever receives them could not make them.
fn make_variables(spec: &Spec) -> Result<(), FileError> {
    let Payload::Firmware(firmware) = &spec.boot().payload else {
        return Ok(());
    };
    let Some(vars) = &firmware.vars else {
        return Ok(());
    };
    let Some(template) = vars.template.as_ref().filter(|_| !vars.file.exists()) else {
        return Ok(());
    };
    let fresh = vars.file.with_extension("new");
    let made = fs::copy(template, &fresh).and_then(|_| File::open(&fresh)?.sync_all());
    made.and_then(|()| fs::rename(&fresh, &vars.file))
        .map_err(|error| FileError::Io(vars.file.clone(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvmm_spec::{Boot, Disk, Firmware, Vars};
    use std::os::unix::fs::PermissionsExt;

    fn opened(spec: &Spec, own: &Path) -> Result<Vec<OwnedFd>, FileError> {
        let pod = PodFolder::new(Path::new("/kubelet"), "1-a");
        let from = Sources {
            own: [own, own],
            pod: &pod,
            process: std::process::id(),
        };
        open(spec, &from)
    }

    #[test]
    fn each_file_is_as_open_as_its_machine_needs_it() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: only root can give files away");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let make = |name: &str, mode| {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), name).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        for (name, mode) in [
            ("images/kernel", 0o600),
            ("own/seed.iso", 0o600),
            ("own/disk", 0o600),
            ("claims/disk", 0o660),
        ] {
            make(name, mode);
        }
        let read_only = |name: &str| Disk {
            read_only: true,
            ..Disk::new(path(name))
        };
        let wish = Spec::builder(Boot::new(path("images/kernel"))).disk(read_only("own/seed.iso"));
        let spec = wish
            .disk(Disk::new(path("own/disk")))
            .disk(Disk::new(path("claims/disk")))
            .build()
            .unwrap();
        let opened = opened(&spec, &path("own")).unwrap();
        assert_eq!(opened.len(), 4);
        let seen = |name: &str| {
            let metadata = fs::metadata(path(name)).unwrap();
            (metadata.uid(), metadata.mode() & 0o777)
        };
        assert_eq!(seen("images/kernel"), (0, 0o644));
        assert_eq!(seen("own/seed.iso"), (USER, 0o400));
        assert_eq!(seen("own/disk"), (USER, 0o600));
        assert_eq!(seen("claims/disk"), (USER, 0o660));
    }

    #[test]
    fn what_is_no_file_is_refused_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let spec = |path: &Path| Spec::builder(Boot::new(path)).build().unwrap();
        let refused = opened(&spec(folder.path()), folder.path()).unwrap_err();
        assert!(matches!(refused, FileError::Kind(_)), "{refused}");
        let refused = opened(&spec(&folder.path().join("missing")), folder.path()).unwrap_err();
        assert!(matches!(refused, FileError::Io(..)), "{refused}");
    }

    #[test]
    fn variables_are_made_from_their_template_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("template"), "blank").unwrap();
        let firmware = Firmware {
            image: path("code"),
            vars: Some(Vars {
                file: path("vars.fd"),
                template: Some(path("template")),
            }),
        };
        let spec = Spec::builder(Boot::firmware(firmware)).build().unwrap();
        make_variables(&spec).unwrap();
        assert_eq!(fs::read(path("vars.fd")).unwrap(), b"blank");
        fs::write(path("vars.fd"), "kept").unwrap();
        make_variables(&spec).unwrap();
        assert_eq!(fs::read(path("vars.fd")).unwrap(), b"kept");
    }
}
