//! A device that is plugged into a machine that runs, with what a client opened for it.
//!
//! Whoever has one can plug it into any boot of the machine: what was opened is copied, never used up.

use std::fs::File;
use std::io;

use rvmm_spec::{DeviceId, Disk, Net, Network};

/// A device that is plugged in.
#[derive(Debug)]
pub struct Plugged {
    /// Its name.
    pub id: DeviceId,
    /// What it is.
    pub kind: PluggedKind,
}

/// What can be plugged in.
#[derive(Debug)]
pub enum PluggedKind {
    /// A disk that is a device of its own, and its open image.
    Disk(Disk, File),
    /// A disk on the SCSI controller, its open image, and its number there, which it keeps over every boot.
    Lun(Disk, File, u8),
    /// A network interface, and the queues of its tap, if it is on one: to a passt, each boot connects anew.
    Net(Net, Vec<File>),
}

// === impl Plugged ===

impl Plugged {
    /// What stands behind it, for people.
    pub fn backend(&self) -> String {
        match &self.kind {
            PluggedKind::Disk(disk, _) | PluggedKind::Lun(disk, ..) => disk.path.display().to_string(),
            PluggedKind::Net(net, _) => match &net.network {
                Network::Tap(tap) => tap.as_str().to_owned(),
                Network::Passt(path) => path.display().to_string(),
            },
        }
    }

    /// Its number on the SCSI controller, if it is a disk there.
    pub fn lun(&self) -> Option<u8> {
        match self.kind {
            PluggedKind::Lun(_, _, lun) => Some(lun),
            PluggedKind::Disk(..) | PluggedKind::Net(..) => None,
        }
    }

    /// Another one of the same.
    ///
    /// # Errors
    /// The process has no more descriptors.
    pub fn copy(&self) -> io::Result<Self> {
        let kind = match &self.kind {
            PluggedKind::Disk(disk, file) => PluggedKind::Disk(disk.clone(), file.try_clone()?),
            PluggedKind::Lun(disk, file, lun) => PluggedKind::Lun(disk.clone(), file.try_clone()?, *lun),
            PluggedKind::Net(net, queues) => {
                let queues = queues.iter().map(File::try_clone).collect::<Result<_, _>>()?;
                PluggedKind::Net(net.clone(), queues)
            }
        };
        Ok(Self {
            id: self.id.clone(),
            kind,
        })
    }
}
