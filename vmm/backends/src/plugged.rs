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
    /// A disk, and its open image.
    Disk(Disk, File),
    /// A network interface, and the queues of its tap, if it is on one: to a passt, each boot connects anew.
    Net(Net, Vec<File>),
}

// === impl Plugged ===

impl Plugged {
    /// What stands behind it, for people.
    pub fn backend(&self) -> String {
        match &self.kind {
            PluggedKind::Disk(disk, _) => disk.path.display().to_string(),
            PluggedKind::Net(net, _) => match &net.network {
                Network::Tap(tap) => tap.as_str().to_owned(),
                Network::Passt(path) => path.display().to_string(),
            },
        }
    }

    /// Another one of the same.
    ///
    /// # Errors
    /// The process has no more descriptors.
    pub fn copy(&self) -> io::Result<Self> {
        let kind = match &self.kind {
            PluggedKind::Disk(disk, file) => PluggedKind::Disk(disk.clone(), file.try_clone()?),
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
