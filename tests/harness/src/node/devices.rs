//! Devices that nodes' handlers open to all: a node's are this machine's, so their modes are put back by whichever node ends last.
//!
//! Each node holds a lock on a file as one of several; whoever can have it alone is the first, and notes the modes there, or the last.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Those that are.
const DEVICES: [&str; 3] = ["/dev/kvm", "/dev/net/tun", "/dev/vhost-net"];

/// A node's share of them.
#[derive(Debug)]
pub(super) struct Devices(File);

// === impl Devices ===

impl Devices {
    /// Notes how they are, or that another node lives that has.
    pub(super) fn of_this_machine(place: &Path) -> Result<Self> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(place)
            .with_context(|| place.display().to_string())?;
        if file.try_lock().is_ok() {
            file.set_len(0)?;
            file.write_all(modes().as_bytes())?;
        }
        // From alone to one of several, where it was alone.
        file.lock_shared()?;
        Ok(Self(file))
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        if self.0.try_lock().is_err() {
            return;
        }
        let mut noted = String::new();
        // What is gone by now needs no mode.
        std::io::Seek::rewind(&mut self.0).ok();
        self.0.read_to_string(&mut noted).ok();
        for (path, mode) in noted.lines().filter_map(|line| line.split_once(' ')) {
            if let Ok(mode) = u32::from_str_radix(mode, 8) {
                fs::set_permissions(path, Permissions::from_mode(mode)).ok();
            }
        }
    }
}

/// A line for each that is there: its path and its mode.
fn modes() -> String {
    let line = |path: &str| {
        let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
        Some(format!("{path} {mode:o}\n"))
    };
    DEVICES.iter().filter_map(|path| line(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_of_several_puts_modes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (place, device) = (folder.path().join("devices"), folder.path().join("device"));
        fs::write(&device, "").unwrap();
        let set = |mode| fs::set_permissions(&device, Permissions::from_mode(mode)).unwrap();
        let mode = || fs::metadata(&device).unwrap().permissions().mode() & 0o777;
        set(0o666);
        let first = Devices::of_this_machine(&place).unwrap();
        // As if it were one of them, and had been closed to others.
        fs::write(&place, format!("{} 600\n", device.display())).unwrap();
        let second = Devices::of_this_machine(&place).unwrap();
        drop(first);
        assert_eq!(mode(), 0o666);
        drop(second);
        assert_eq!(mode(), 0o600);
    }
}
