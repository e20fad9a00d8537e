//! `rvm-handler keep-network`: the process that outlives handlers, in two.
//!
//! ```text
//!   rvm-handler ──starts──► outer   in the host's network: has pasta carry what the node's network sends outside, again
//!                             │      whenever it ends
//!                             ├──► inner   keeper.rs, in the node's network
//!                             └──► pasta   in both; ends with the outer
//! ```
//!
//! The outer ends when the inner does, and the inner when the outer is gone, so that neither is ever left, whichever is killed.
//! Nothing is changed in the host's network: no link, no address, no rule, no setting.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

use super::keeper::Keeper;
use super::node::OUTSIDE;
use super::range::Range;
use crate::steps::chain;

/// The word on the command line.
pub const WORD: &str = "keep-network";

/// The word after it for the inner process.
const INNER: &str = "inner";

/// What is said once all is there; anything else is what went wrong.
pub const READY: &str = "ready";

/// Held by the outer process.
const LOCK: &str = "network.lock";

/// Where pasta of a privileged user finds the node's namespace. Only the outer and pasta see that something is mounted there.
const NAMESPACE: &str = "network.ns";

/// How long pasta is left alone before it is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// Addresses of pasta's link. They mean nothing elsewhere: pasta knows connections, and no packets, outside.
const ADDRESS: &str = "169.254.71.2";
const GATEWAY: &str = "169.254.71.1";
const ADDRESS_V6: &str = "fd72:766d::2";
const GATEWAY_V6: &str = "fe80::1";

/// Where pasta takes DNS queries, to ask the first server of the host's `resolv.conf`, even one on loopback.
pub const DNS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 71, 53);

/// What the words on the command line ask for.
struct Job {
    run: PathBuf,
    range: Range,
    inner: bool,
}

/// Keeps networks: `keep-network RUN-DIR POD-NETWORK`.
pub fn main() -> ExitCode {
    let done = job().and_then(|job| if job.inner { inside(&job) } else { outside(&job) });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To whoever waits for us to be ready, and to the log.
            writeln!(io::stdout(), "{error}").ok();
            writeln!(io::stderr(), "keep-network: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn job() -> Result<Job, String> {
    // Behind the program's name and the word that says which of its parts this is.
    let mut words = std::env::args_os().skip(2);
    let (run, range) = (words.next(), words.next());
    let range = range.unwrap_or_default().to_string_lossy().into_owned();
    Ok(Job {
        run: run.ok_or("needs a run directory")?.into(),
        range: range.parse().map_err(|error| chain(&error))?,
        inner: words.next().is_some_and(|word| word == INNER),
    })
}

fn inside(job: &Job) -> Result<(), String> {
    let keeper = Keeper::open(&job.run, job.range).map_err(|error| chain(&error))?;
    // What this thread is in changes with each machine; the node's namespace is what this descriptor is of.
    ready(&format!("{READY} {}", keeper.namespace().as_fd().as_raw_fd()))?;
    keeper.serve(io::stdin().as_fd()).map_err(|error| chain(&error))
}

fn outside(job: &Job) -> Result<(), String> {
    let root = rustix::process::geteuid().is_root();
    let _lock = lock(&job.run.join(LOCK))
        .map_err(|error| format!("the node's network is kept by another process: {error}"))?;
    let program =
        std::env::current_exe().map_err(|error| format!("our own program is not known: {error}"))?;
    let inner = Command::new(program)
        .args([WORD.as_ref(), job.run.as_os_str()])
        .args([&job.range.to_string(), INNER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut inner = inner.map_err(|error| format!("the keeper of networks cannot be started: {error}"))?;
    let mut said = String::new();
    if let Some(output) = inner.stdout.take() {
        BufReader::new(output).read_line(&mut said).ok();
    }
    let namespace = said.trim().strip_prefix(READY).map(str::trim);
    let Some(namespace) = namespace.and_then(|number| number.parse().ok()) else {
        inner.wait().ok();
        return Err(said.trim().to_owned());
    };
    let pasta = Pasta::to(&inner, namespace, &job.run, root);
    let done = pasta.and_then(|pasta| supervise(&mut inner, &pasta));
    inner.kill().ok();
    inner.wait().ok();
    done
}

/// Has pasta run for as long as the inner process does.
fn supervise(inner: &mut Child, pasta: &Pasta) -> Result<(), String> {
    let mut carrier = pasta.start()?;
    ready(READY)?;
    loop {
        // Whichever of the two it was.
        let ended = rustix::process::wait(WaitOptions::empty());
        if ended.is_err() || inner.try_wait().is_ok_and(|status| status.is_some()) || !lives(inner) {
            carrier.kill().ok();
            carrier.wait().ok();
            return Ok(());
        }
        writeln!(io::stderr(), "keep-network: pasta has ended and is started again").ok();
        std::thread::sleep(PAUSE);
        carrier = pasta.start()?;
    }
}

/// Whether a child is there, whoever has waited for it.
fn lives(child: &Child) -> bool {
    Path::new(&format!("/proc/{}", child.id())).exists()
}

/// How pasta is started.
struct Pasta(Vec<String>);

// === impl Pasta ===

impl Pasta {
    /// For the network that the inner process has by this descriptor.
    fn to(inner: &Child, namespace: RawFd, run: &Path, root: bool) -> Result<Self, String> {
        let of_inner = |what: &str| format!("/proc/{}/{what}", inner.id());
        let namespace = of_inner(&format!("fd/{namespace}"));
        let mut words: Vec<String> = ["--foreground", "--quiet", "--config-net", "--no-map-gw"]
            .map(str::to_owned)
            .to_vec();
        let options = [
            ("-I", OUTSIDE),
            ("-a", ADDRESS),
            ("-n", "24"),
            ("-g", GATEWAY),
            ("-a", ADDRESS_V6),
            ("-g", GATEWAY_V6),
            // Nothing of the host's comes in by itself, and nothing of the guests' goes to the host's loopback.
            ("-t", "none"),
            ("-u", "none"),
            ("-T", "none"),
            ("-U", "none"),
            ("--dns-forward", &DNS.to_string()),
        ];
        words.extend(
            options
                .iter()
                .flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]),
        );
        if root {
            // It gives up the rights that opening another process's namespace takes before it opens it.
            let place = run.join(NAMESPACE);
            let mounted = mount_privately(Path::new(&namespace), &place);
            mounted.map_err(|error| format!("'{}' cannot be mounted: {error}", place.display()))?;
            words.extend(["--runas".to_owned(), "0".to_owned()]);
            words.extend(["--netns".to_owned(), place.display().to_string()]);
        } else {
            words.extend(["--userns".to_owned(), of_inner("ns/user")]);
            words.extend(["--netns".to_owned(), namespace]);
        }
        Ok(Self(words))
    }

    #[expect(unsafe_code, reason = "std has no other way to have a child end with us")]
    fn start(&self) -> Result<Child, String> {
        let mut command = Command::new("pasta");
        command.args(&self.0).stdin(Stdio::null()).stdout(Stdio::null());
        let end_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl(2) is one, and nothing is allocated
        // or locked.
        unsafe { command.pre_exec(end_with_us) };
        let started = command.spawn();
        started.map_err(|error| {
            format!("'pasta' cannot be run, which networks need: install the package passt: {error}")
        })
    }
}

/// Mounts a namespace where nobody but this process and its children see it.
fn mount_privately(namespace: &Path, place: &Path) -> io::Result<()> {
    own_mounts()?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    fs::write(place, "")?;
    Ok(mount_bind(namespace, place)?)
}

#[expect(
    unsafe_code,
    reason = "which is unsafe where it is about descriptors, as it is not here"
)]
fn own_mounts() -> io::Result<()> {
    // SAFETY: the table of descriptors is not among what is no longer shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(io::Error::from)
}

fn lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.try_lock()?;
    Ok(file)
}

fn ready(word: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{word}").map_err(|error| format!("nobody waits for the network: {error}"))
}
