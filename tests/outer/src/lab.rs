//! A running lab.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rvm_guests::cpio::Archive;
use rvm_guests::{Cache, cross};

use crate::emulator::{Emulator, Network, Start};
use crate::host::{Assets, Host};
use crate::image::{self, Image};
use crate::profile::Profile;

/// Where the agent listens in the lab.
const AGENT_PORT: u16 = 7000;

/// What the agent prints when it does.
const READY: &str = "rvm-lab: ready";

/// A start takes 4 to 10 s on an idle machine.
const START: Duration = Duration::from_secs(240);

const CMDLINE: &str = "console=ttyS0 quiet";

/// A lab that is about to be started.
#[derive(Debug, Clone)]
pub struct Setup {
    profile: Profile,
    programs: Vec<PathBuf>,
    files: Vec<(String, u32, Vec<u8>)>,
    ports: Vec<(u16, u16)>,
}

impl Setup {
    /// A lab of this kind with nothing but its agent.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            programs: Vec::new(),
            files: Vec::new(),
            ports: vec![(0, AGENT_PORT)],
        }
    }

    /// Puts a program that is at hand into the lab's `PATH`.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.programs.push(path.into());
        self
    }

    /// Builds one of our programs for riscv64, or takes it from `RVM_RISCV64_BIN_DIR`, and puts it into the lab's `PATH`.
    pub fn built(self, package: &str, binary: &str) -> Result<Self> {
        let path = cross::program(&Cache::open()?, package, binary)?;
        Ok(self.program(path))
    }

    /// Puts a file into the lab.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), mode, bytes.into()));
        self
    }

    /// Gives a TCP port of the lab one on this machine's loopback; [`Lab::forwarded`] says which.
    #[must_use]
    pub fn forward(mut self, port: u16) -> Self {
        self.ports.push((0, port));
        self
    }

    /// Has a port of this machine's loopback, which must be free, lead to the lab's port of that number.
    #[must_use]
    pub fn forward_same(mut self, port: u16) -> Self {
        self.ports.push((port, port));
        self
    }

    /// Starts the lab and waits until commands can be run in it.
    pub fn start(self) -> Result<Lab> {
        ensure!(
            self.profile.counting.is_none(),
            "nothing can be connected to a {} host; give it a job",
            self.profile.name
        );
        let (mut emulator, initrd) = self.boot(&self.ports)?;
        emulator
            .wait_for(READY, START)
            .context("the lab does not start")?;
        // QEMU has read it; so a killed test leaves little behind.
        fs::remove_file(initrd)?;
        let agent = emulator.forwarded(AGENT_PORT)?;
        Ok(Lab {
            profile: self.profile,
            emulator,
            agent,
            assets: assets(),
        })
    }

    /// Starts the lab with `script` as its job, and returns what came over its serial line until it powered off.
    pub fn job(mut self, script: &str, patience: Duration) -> Result<String> {
        self.files
            .push(("lab/job".to_owned(), 0o755, script.as_bytes().to_vec()));
        let (emulator, _) = self.boot(&[])?;
        emulator
            .wait_for_end(patience)
            .context("the lab's job was not done")
    }

    /// Starts QEMU; also says where the initramfs of this run lies.
    fn boot(&self, ports: &[(u16, u16)]) -> Result<(Emulator, PathBuf)> {
        let cache = Cache::open()?;
        let image = Image::open(&cache, self.profile.emulator)?;
        let folder = tempfile::Builder::new().prefix("rvm-lab-").tempdir()?;
        let initrd = folder.path().join("host.cpio");
        image.write_with(&self.overlay(&cache)?, &initrd)?;
        let start = Start {
            profile: &self.profile,
            kernel: &image.kernel,
            initrd: &initrd,
            cmdline: CMDLINE,
            disk: None,
            network: Network::Ports(ports),
        };
        Ok((Emulator::start(&cache, &start, folder)?, initrd))
    }

    fn overlay(&self, cache: &Cache) -> Result<Archive> {
        let mut archive = Archive::new();
        let agent = cross::program(cache, "rvm-outer-agent", "rvm-lab-agent")?;
        for program in self.programs.iter().chain([&agent]) {
            let name = program
                .file_name()
                .with_context(|| format!("{} names no file", program.display()))?;
            archive.file_from(
                &format!("usr/local/bin/{}", name.to_string_lossy()),
                0o755,
                program,
            );
        }
        for (path, mode, bytes) in &self.files {
            archive.file(path, *mode, bytes.as_slice());
        }
        Ok(archive)
    }
}

/// A running lab. Dropping it ends it.
#[derive(Debug)]
pub struct Lab {
    profile: Profile,
    emulator: Emulator,
    agent: SocketAddr,
    assets: Assets,
}

impl Lab {
    /// Starts a lab of this kind with nothing but its agent.
    pub fn start(profile: Profile) -> Result<Self> {
        Setup::new(profile).start()
    }

    /// What kind it is.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Where on this machine a port of the lab is reached that [`Setup::forward`] was asked for.
    pub fn forwarded(&self, port: u16) -> Result<SocketAddr> {
        self.emulator.forwarded(port)
    }

    /// Everything that came over the lab's serial line.
    pub fn serial(&self) -> Result<String> {
        self.emulator.serial()
    }
}

impl Host for Lab {
    fn name(&self) -> &'static str {
        self.profile.name
    }

    fn folder(&self) -> &Path {
        Path::new("/root")
    }

    fn assets(&self) -> &Assets {
        &self.assets
    }

    fn has_kvm(&self) -> bool {
        self.profile.kvm_says.is_some()
    }

    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn connect(&self) -> Result<File> {
        let connection = TcpStream::connect(self.agent)
            .with_context(|| format!("the lab is gone; {}", self.emulator.last_words()))?;
        connection.set_nodelay(true)?;
        Ok(File::from(OwnedFd::from(connection)))
    }
}

fn assets() -> Assets {
    Assets {
        kernel: image::KERNEL.to_owned(),
        tiny: image::TINY.to_owned(),
        bench: image::BENCH.to_owned(),
    }
}
