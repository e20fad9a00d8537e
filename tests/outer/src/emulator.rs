//! One running QEMU: started so that it cannot outlive us, its serial line in a file.
//!
//! `setpriv --pdeathsig` has the kernel kill QEMU when the thread that started it ends, however that happens. So the
//! thread is one of our own that lives as long as the [`Emulator`] does, and not a test's.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rvm_guests::{Cache, Toolbox};
use tempfile::TempDir;

use crate::profile::Profile;
use crate::qmp::Qmp;

/// How much of the serial line is shown when something goes wrong.
const SHOWN: usize = 4000;

/// How often the serial line is looked at.
const TICK: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The machine.
    pub profile: &'a Profile,
    /// The kernel.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initrd: &'a Path,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// What it starts with as its first disk, a raw file that is never written: what it writes is gone with it.
    pub disk: Option<&'a Path>,
    /// Its network.
    pub network: Network<'a>,
}

/// What an emulated machine is connected to.
#[derive(Debug, Clone, Copy)]
pub enum Network<'a> {
    /// This machine's loopback: ports of it, 0 for any, that lead to one of the machine's. No network at all where there is none.
    Ports(&'a [(u16, u16)]),
    /// A tap of this name in another network namespace, in which QEMU runs then.
    Tap(&'a Path, &'a str),
}

impl Network<'_> {
    /// What QEMU is run by.
    fn by(self) -> Vec<String> {
        match self {
            Self::Ports(_) => Vec::new(),
            Self::Tap(namespace, _) => vec![
                "nsenter".to_owned(),
                format!("--net={}", namespace.display()),
                "--".to_owned(),
            ],
        }
    }

    fn arguments(self) -> Vec<String> {
        let backend = match self {
            Self::Ports([]) => return vec!["-nic".to_owned(), "none".to_owned()],
            Self::Ports(ports) => {
                // Port 0 has the system choose one that is free.
                let forwards = ports
                    .iter()
                    .map(|(here, there)| format!(",hostfwd=tcp:127.0.0.1:{here}-10.0.2.15:{there}"));
                format!("user,id=net{}", forwards.collect::<String>())
            }
            Self::Tap(_, name) => format!("tap,id=net,ifname={name},script=no,downscript=no"),
        };
        [
            "-netdev",
            &backend,
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    child: Child,
    folder: TempDir,
    /// Ends the thread that QEMU must not outlive.
    _keeper: Sender<()>,
}

impl Emulator {
    /// Starts QEMU; its files lie in `folder`, which goes with it.
    pub fn start(cache: &Cache, start: &Start<'_>, folder: TempDir) -> Result<Self> {
        let toolbox = Toolbox::open(cache)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(start.network.by())
            .arg(toolbox.qemu())
            .args(start.profile.arguments())
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-bios"])
            .arg(toolbox.opensbi())
            .arg("-kernel")
            .arg(start.kernel)
            .arg("-initrd")
            .arg(start.initrd)
            .args(["-append", start.cmdline])
            .args(["-serial", &format!("file:{}", serial(folder.path()).display())])
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", socket(folder.path()).display()),
            ])
            .args(start.disk.map(disk).unwrap_or_default())
            .args(start.network.arguments())
            // What a disk does not take lies there.
            .env("TMPDIR", folder.path());
        let log = File::create(own_log(folder.path()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let (child, keeper) = spawn_kept(command)?;
        Ok(Self {
            child,
            folder,
            _keeper: keeper,
        })
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its files lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything that came over the serial line so far.
    pub fn serial(&self) -> Result<String> {
        match fs::read(serial(self.folder.path())) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).context("cannot read the serial line"),
        }
    }

    /// Waits until `needle` has come over the serial line.
    pub fn wait_for(&mut self, needle: &str, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        while !self.serial()?.contains(needle) {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "QEMU ended ({status}) before it said {needle:?}; {}",
                    self.last_words()
                );
            }
            if Instant::now() > until {
                bail!(
                    "no {needle:?} within {} s; {}",
                    patience.as_secs(),
                    self.last_words()
                );
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Waits until the machine has powered off, and returns all that came over the serial line.
    pub fn wait_for_end(mut self, patience: Duration) -> Result<String> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait()? {
                Some(status) => return self.ended(status),
                None if Instant::now() > until => {
                    bail!(
                        "still running after {} s; {}",
                        patience.as_secs(),
                        self.last_words()
                    )
                }
                None => thread::sleep(TICK),
            }
        }
    }

    fn ended(&self, status: ExitStatus) -> Result<String> {
        if status.success() {
            return self.serial();
        }
        bail!("QEMU failed ({status}); {}", self.last_words());
    }

    /// Where on this machine a port of the emulated one is reached.
    pub fn forwarded(&self, port: u16) -> Result<SocketAddr> {
        let table = Qmp::connect(&socket(self.folder.path()))?.monitor("info usernet")?;
        let here =
            forwarded_port(&table, port).with_context(|| format!("port {port} is not forwarded: {table}"))?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, here)))
    }

    /// The end of the serial line and of QEMU's own words, for an error.
    #[must_use]
    pub fn last_words(&self) -> String {
        let tail = |path: PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            let from = bytes.len().saturating_sub(SHOWN);
            String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
        };
        let (own, line) = (
            tail(own_log(self.folder.path())),
            tail(serial(self.folder.path())),
        );
        format!("QEMU said: {own}\nits serial line ends with:\n{line}")
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `command` from a thread that lives until the returned sender is dropped.
fn spawn_kept(mut command: Command) -> Result<(Child, Sender<()>)> {
    let (keeper, kept) = channel::<()>();
    let (started, child) = channel();
    thread::Builder::new().name("keeper".to_owned()).spawn(move || {
        if started.send(command.spawn()).is_ok() {
            let _ = kept.recv();
        }
    })?;
    let child = child.recv().context("the thread that starts QEMU is gone")?;
    Ok((child.context("cannot run setpriv (package util-linux)")?, keeper))
}

fn disk(file: &Path) -> Vec<String> {
    let file = format!("file={},format=raw,if=none,id=disk,snapshot=on", file.display());
    ["-drive", &file, "-device", "virtio-blk-pci,drive=disk"]
        .map(str::to_owned)
        .to_vec()
}

/// Reads `info usernet`: protocol, descriptor, source address and port, destination address and port.
fn forwarded_port(table: &str, port: u16) -> Option<u16> {
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let ["TCP[HOST_FORWARD]", _, _, here, _, there, ..] = fields.as_slice() else {
            return None;
        };
        (there.parse() == Ok(port)).then(|| here.parse().ok()).flatten()
    })
}

fn serial(folder: &Path) -> PathBuf {
    folder.join("serial.log")
}

fn own_log(folder: &Path) -> PathBuf {
    folder.join("qemu.log")
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("qmp.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_port_is_found_in_the_emulators_table() {
        let table = "Hub -1 (net):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
                     TCP[HOST_FORWARD]  14       127.0.0.1 40123      10.0.2.15  7000     0     0\n  \
                     TCP[HOST_FORWARD]  15       127.0.0.1 40999      10.0.2.15  9000     0     0\n";
        assert_eq!(forwarded_port(table, 9000), Some(40999));
        assert_eq!(forwarded_port(table, 40123), None);
    }
}
