//! A second node, of riscv64 and with KVM: a whole machine, emulated, beside the first one.
//!
//! ```text
//!   the first node's network namespace                 │  the machine
//!   198.18.0.1 kube-apiserver, registry ── far0 (tap) ─┼─ eth0 198.18.0.2  kubelet, containerd, kube-proxy; /dev/kvm
//!   198.18.3.0/24 by 198.18.0.2                        │  pods 198.18.3.0/24
//! ```
//!
//! Its disk is the one that the cache keeps (`rvm_guests::kube_node::machine`): what it writes is gone with it. What is this run's
//! own, certificates foremost, comes on top of what it begins with. Commands are run there by the lab's agent, which a [`Lead`] reaches.
//!
//! An emulated processor is some twenty times slower than this machine's: kubelet is Ready after half a minute.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rvm_guests::cpio::Archive;
use rvm_guests::kube_node::{self, Machine};
use rvm_guests::{Cache, cross};
use rvm_outer::emulator::{Emulator, Network, Start};
use rvm_outer::image::write_with;
use rvm_outer::{Output, Profile, Program, Session};
use tempfile::TempDir;

use super::settings::Settings;
use super::{LAST_WORDS, Lead, Node, net_of};
use crate::patience::PATIENCE;
use crate::sweep::Sweeper;

/// Its name in the cluster.
pub const NODE: &str = "n2";

/// Where it is reached.
pub const ADDRESS: &str = "198.18.0.2";

/// Where the files of a run are on it.
pub(crate) const FOLDER: &str = "/node";

/// The addresses of its pods.
const PODS: &str = "198.18.3.0/24";

/// Its images in the registry, whose names without an architecture are the first node's.
const PAUSE: &str = "pause-riscv64:1";
/// A shell and its commands.
pub const BUSYBOX: &str = "busybox-riscv64:1";

/// The near end of its cable, in the first node's network.
const TAP: &str = "far0";

const AGENT: &str = "rvm-lab-agent";
const AGENT_PORT: u16 = 7000;

const RUN: &str = include_str!("riscv64/run.sh");
const CMDLINE: &str = "console=ttyS0 quiet";

/// A running node of riscv64. Dropping it leaves nothing.
#[derive(Debug)]
pub struct Riscv64Node {
    emulator: Emulator,
    agent: Lead,
    /// Its folder is to go with a test that is killed, too.
    _sweeper: Sweeper,
}

impl Riscv64Node {
    /// Starts it beside `first`, with what shows who it is; kubelet joins by itself.
    pub(crate) fn start(first: &Node, credentials: Vec<(String, Vec<u8>)>) -> Result<Self> {
        let cache = Cache::open()?;
        let machine = kube_node::machine(&cache)?;
        first.push(&machine.parts.pause, PAUSE)?;
        first.push(&machine.parts.busybox, BUSYBOX)?;
        connect(first)?;
        let folder = tempfile::Builder::new().prefix("rvm-riscv64-").tempdir()?;
        let sweeper = Sweeper::start(folder.path())?;
        let emulator = boot(&cache, &machine, first, credentials, folder)?;
        let agent = first.lead(&format!("{ADDRESS}:{AGENT_PORT}"))?;
        Ok(Self {
            emulator,
            agent,
            _sweeper: sweeper,
        })
    }

    /// The number of the process that it is here.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.emulator.id()
    }

    /// Where its files lie here.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.emulator.folder()
    }

    /// Runs a command on the node, as its root.
    ///
    /// # Errors
    /// It cannot be run; how it ended is for the caller to judge.
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        let program = Program {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/sbin:/usr/bin:/opt/kube".to_owned())],
            ..Program::default()
        };
        let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.agent.port()))?;
        connection.set_nodelay(true)?;
        let mut session = Session::start(File::from(OwnedFd::from(connection)), program)?;
        // One that has ended already has no use for it.
        let _ = session.end_input();
        session.wait(PATIENCE)
    }

    /// Fails, with last words, if one of its programs has ended.
    ///
    /// # Errors
    /// It has.
    pub fn must_live(&mut self) -> Result<()> {
        let said = self.emulator.serial()?;
        match said.lines().find(|line| is_end(line)) {
            Some(ended) => Err(self.complaint(&anyhow!("{ended}"))),
            None => Ok(()),
        }
    }

    /// An error about it, with the last words of its programs and of itself.
    #[must_use]
    pub fn complaint(&self, error: &anyhow::Error) -> anyhow::Error {
        let logs = ["containerd", "kubelet", "kube-proxy"].map(|name| format!("/var/log/{name}.log"));
        let bytes = LAST_WORDS.to_string();
        let mut tail = vec!["tail", "-c", &bytes];
        tail.extend(logs.iter().map(String::as_str));
        let logs = match self.run(&tail) {
            Ok(said) => said.text() + &said.error_text(),
            Err(error) => format!("its logs are not to be had: {error:#}"),
        };
        anyhow!(
            "the riscv64 node: {error:#}\n{logs}\n{}",
            self.emulator.last_words()
        )
    }
}

/// Whether a line of its serial line says that it has lost one of its programs, or itself.
fn is_end(line: &str) -> bool {
    (line.starts_with("node: ") && line.contains(" ended (")) || line.contains("Kernel panic")
}

/// Lays the cable to it: its address and those of its pods lie behind a tap.
fn connect(first: &Node) -> Result<()> {
    for command in [
        vec!["tuntap", "add", "dev", TAP, "mode", "tap"],
        vec!["link", "set", TAP, "up"],
        vec!["route", "add", ADDRESS, "dev", TAP, "src", super::ADDRESS],
        vec!["route", "add", PODS, "via", ADDRESS, "dev", TAP, "onlink"],
    ] {
        let done = first.run(&[&["ip"], command.as_slice()].concat())?.ok();
        done.with_context(|| format!("ip {}", command.join(" ")))?;
    }
    Ok(())
}

fn boot(
    cache: &Cache,
    machine: &Machine,
    first: &Node,
    credentials: Vec<(String, Vec<u8>)>,
    folder: TempDir,
) -> Result<Emulator> {
    let initrd = folder.path().join("initrd.cpio");
    write_with(&machine.initrd, &files(cache, credentials)?, &initrd)?;
    let start = Start {
        profile: &Profile::AIA,
        kernel: &machine.kernel,
        initrd: &initrd,
        cmdline: CMDLINE,
        disk: Some(&machine.disk),
        network: Network::Tap(&net_of(first.pid()), TAP),
    };
    Emulator::start(cache, &start, folder)
}

/// What is this run's own.
fn files(cache: &Cache, credentials: Vec<(String, Vec<u8>)>) -> Result<Archive> {
    let settings = Settings {
        name: NODE,
        address: ADDRESS,
        pods: PODS,
        pause: PAUSE,
        folder: FOLDER,
    };
    let told = format!("name={NODE}\naddress={ADDRESS}\ngateway={}\n", super::ADDRESS);
    let place = |name: &str| format!("{}/{name}", FOLDER.trim_start_matches('/'));
    let mut archive = Archive::new();
    archive
        .file(&place("run.sh"), 0o644, RUN)
        .file(&place("settings"), 0o644, told)
        .file_from(
            &place(AGENT),
            0o755,
            &cross::program(cache, "rvm-outer-agent", AGENT)?,
        );
    for (name, text) in settings.files() {
        archive.file(&place(&name), 0o644, text);
    }
    for (name, content) in credentials {
        archive.file(&place(&name), 0o600, content);
    }
    Ok(archive)
}
