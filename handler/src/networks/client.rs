//! The handler's side: plans a machine's network, and has the keeper make it, starting one where none is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::addresses::Addresses;
use super::model::{Binding, MASQUERADE, MTU, Plan, Protocol};
use super::outside::{DNS, READY, WORD};
pub use super::place::Place;
use super::pod::connect as connect_to;
use super::policy::{self, Isolation};
use super::protocol::{self, Answer, Request, SOCKET};
use super::range::{OverlapError, Range};
use super::wish::NetworkWish;
use crate::vm::VmId;
use crate::volumes::Seed;

/// The plan's name in a machine's run directory.
pub const PLAN: &str = "net.json";

/// Longest plan that is read.
const MAX_PLAN: u64 = 64 << 10;

/// Longest rules of policies: what fits into one request.
const MAX_RULES: usize = 100 << 10;

/// How long the keeper may take for one answer: it has nothing to wait for but the kernel and nft.
const PATIENCE: Duration = Duration::from_secs(60);

/// The networks of this node.
#[derive(Debug)]
pub struct Networks {
    run: PathBuf,
    program: PathBuf,
    range: Option<Range>,
    /// Machines are in pods, whose network is the cluster's.
    in_pods: bool,
    /// The conversation with the keeper. While it lasts, the keeper does.
    keeper: Mutex<Option<OwnedFd>>,
    /// Held from the choice of an address until it is on the disk.
    choice: Mutex<Addresses>,
}

/// A machine's network cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// By this node's settings.
    #[error("this node has no networks: rvm-handler was started with --pod-network none")]
    None,
    /// They would hide a part of the host's.
    #[error(transparent)]
    Overlap(#[from] OverlapError),
    /// All are in use.
    #[error("all {0} addresses of the pods' network are in use; choose a larger one with --pod-network")]
    Full(u32),
    /// The keeper did not come up.
    #[error("there is no network: {0}")]
    NoKeeper(String),
    /// It does not do it.
    #[error("there is no network: {0}")]
    Refused(String),
    /// Policies of so many peers that they cannot be handed over.
    #[error(
        "its NetworkPolicies allow more than can be kept to here, so nothing is let through: name fewer peers and ports"
    )]
    TooManyRules,
    /// It does not answer.
    #[error("the keeper of networks does not answer")]
    Talk(#[source] io::Error),
    /// A plan on the disk.
    #[error("'{0}' cannot be read")]
    Plan(PathBuf, #[source] io::Error),
}

// === impl Networks ===

impl Networks {
    /// Of the machines in this run directory, with addresses of this range, kept by a process of this program.
    pub fn new(run: &Path, program: PathBuf, range: Option<Range>) -> Self {
        Self {
            run: run.to_owned(),
            program,
            range,
            in_pods: false,
            keeper: Mutex::new(None),
            choice: Mutex::default(),
        }
    }

    /// The same, of machines that may be in pods: where the cluster's network plugin has put them.
    #[must_use]
    pub fn of_pods(self, in_pods: bool) -> Self {
        Self { in_pods, ..self }
    }

    /// Whether machines can have networks here.
    pub fn are_here(&self) -> bool {
        self.range.is_some()
    }

    /// Decides a machine's network and has `keep` write it down; meanwhile nobody else gets the same address.
    ///
    /// # Errors
    /// [`NetworkError`], or what `keep` says.
    pub fn plan<E: From<NetworkError>>(
        &self,
        id: &VmId,
        wish: &NetworkWish,
        keep: impl FnOnce(&Plan) -> Result<(), E>,
    ) -> Result<(), E> {
        let range = self.range.ok_or(NetworkError::None)?;
        let mut addresses = locked(&self.choice);
        let read_plan = |path: &Path| Some(read(path).ok()??.pod.v4);
        addresses
            .look(&self.run, read_plan)
            .map_err(|error| NetworkError::Plan(self.run.clone(), error))?;
        let had = self.of(id)?.map(|plan| plan.pod.v4);
        let index = addresses.free(&id.uid, had, range);
        let pod = range.pod(index.ok_or_else(|| NetworkError::Full(range.pods()))?);
        addresses.forget(&id.uid);
        let kept = keep(&Plan {
            network: wish.network.clone(),
            binding: wish.binding,
            mac: wish.mac,
            queues: wish.queues,
            mtu: MTU,
            pod,
            guest: match wish.binding {
                Binding::Masquerade => MASQUERADE,
                Binding::Bridge => pod,
            },
            dns: vec![DNS.into()],
            search: Vec::new(),
            hostname: wish.hostname.clone(),
            ports: wish.ports.clone(),
        });
        if kept.is_ok() {
            addresses.note(&id.uid, pod.v4);
        }
        kept
    }

    /// A machine's network, as it was decided; nothing where it has none.
    ///
    /// # Errors
    /// [`NetworkError::Plan`].
    pub fn of(&self, id: &VmId) -> Result<Option<Plan>, NetworkError> {
        let path = self.run.join(&id.uid).join(PLAN);
        read(&path).map_err(|error| NetworkError::Plan(path, error))
    }

    /// Has a machine's network be there, as it was decided. Blocks.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn attach(&self, id: &VmId) -> Result<Option<Place>, NetworkError> {
        let Some(plan) = self.of(id)? else {
            return Ok(None);
        };
        let request = Request::Attach {
            uid: id.uid.clone(),
            plan: Box::new(plan),
        };
        let mut beside = self.ask(&request)?.into_iter();
        let network = beside.next();
        let network = network.ok_or_else(|| NetworkError::Refused("no namespace came".to_owned()))?;
        Ok(Some(Place {
            network,
            user: beside.next(),
        }))
    }

    /// The networks of all machines here, as they were decided, by their UIDs. Blocks.
    ///
    /// # Errors
    /// [`NetworkError::Plan`].
    pub fn all(&self) -> Result<BTreeMap<String, Plan>, NetworkError> {
        let failed = |error| NetworkError::Plan(self.run.clone(), error);
        let mut plans = BTreeMap::new();
        for entry in fs::read_dir(&self.run).map_err(failed)?.flatten() {
            // What is no plan of ours is nobody's network.
            if let (Ok(uid), Ok(Some(plan))) =
                (entry.file_name().into_string(), read(&entry.path().join(PLAN)))
            {
                plans.insert(uid, plan);
            }
        }
        Ok(plans)
    }

    /// Keeps a machine to these rules of `policy.rs`, if it has a network. Blocks.
    ///
    /// # Errors
    /// [`NetworkError`]; nothing passes then where there are more rules than can be had.
    pub fn isolate(&self, uid: &str, plan: &Plan, rules: String) -> Result<(), NetworkError> {
        let too_many = rules.len() > MAX_RULES;
        let rules = match too_many {
            true => policy::ruleset(plan, &Isolation::complete()),
            false => rules,
        };
        let uid = uid.to_owned();
        self.tell(&Request::Isolate { uid, rules })?;
        match too_many {
            true => Err(NetworkError::TooManyRules),
            false => Ok(()),
        }
    }

    /// Has a machine's network go, if it has one. Blocks.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn detach(&self, id: &VmId) -> Result<(), NetworkError> {
        let uid = id.uid.clone();
        self.tell(&Request::Detach { uid })
    }

    /// Has the networks of all other machines go. Blocks.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn keep(&self, uids: Vec<String>) -> Result<(), NetworkError> {
        self.tell(&Request::Keep { uids })
    }

    /// A socket that is being connected to a port of a guest: whether that listens is known once it can be written to. Blocks.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn dial(&self, id: &VmId, protocol: Protocol, port: u16) -> Result<OwnedFd, NetworkError> {
        if self.in_pods {
            let plan = self.of(id)?.ok_or(NetworkError::None)?;
            let socket = connect_to(protocol, (plan.pod.v4, port).into());
            return socket.map_err(NetworkError::Talk);
        }
        let uid = id.uid.clone();
        let socket = self.ask(&Request::Dial { uid, protocol, port })?.pop();
        socket.ok_or_else(|| NetworkError::Refused("no socket came".to_owned()))
    }

    /// Says something to a keeper that is there; where none is, there is nothing to be changed.
    fn tell(&self, request: &Request) -> Result<(), NetworkError> {
        let mut keeper = locked(&self.keeper);
        if keeper.is_none() {
            *keeper = connect(&self.run).ok();
        }
        if keeper.is_some() {
            exchange(&mut keeper, request)?;
        }
        Ok(())
    }

    fn ask(&self, request: &Request) -> Result<Vec<OwnedFd>, NetworkError> {
        let mut keeper = locked(&self.keeper);
        if keeper.is_some()
            && let done @ (Ok(_) | Err(NetworkError::Refused(_))) = exchange(&mut keeper, request)
        {
            return done;
        }
        // None yet, or it was killed.
        *keeper = Some(self.keeper_of_now()?);
        exchange(&mut keeper, request)
    }

    fn keeper_of_now(&self) -> Result<OwnedFd, NetworkError> {
        if let Ok(keeper) = connect(&self.run) {
            return Ok(keeper);
        }
        let range = self.range.ok_or(NetworkError::None)?;
        range.check_host()?;
        let log = self.run.join("network.log");
        let started = File::options().create(true).append(true).mode(0o600).open(log);
        let started = started.and_then(|log| self.command(range).stderr(log).spawn());
        let mut child = started.map_err(|error| NetworkError::NoKeeper(error.to_string()))?;
        let mut said = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output)
                .read_line(&mut said)
                .map_err(NetworkError::Talk)?;
        }
        let mut wait = move || child.wait();
        if said.trim() == READY {
            // While we live we are its parent, and take its status.
            std::thread::spawn(wait);
            return connect(&self.run).map_err(NetworkError::Talk);
        }
        wait().map_err(NetworkError::Talk)?;
        Err(NetworkError::NoKeeper(said.trim().to_owned()))
    }

    #[expect(
        unsafe_code,
        reason = "std has no stable way to start a process in a session of its own"
    )]
    fn command(&self, range: Range) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(WORD).arg(&self.run).arg(range.to_string());
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let enter = || rustix::process::setsid().map(drop).map_err(io::Error::from);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; setsid(2) is one, and nothing is allocated
        // or locked.
        unsafe { command.pre_exec(enter) };
        command
    }
}

/// A plan as a file of a machine's run directory.
///
/// # Errors
/// [`NetworkError::Plan`].
pub fn seed(plan: &Plan) -> Result<Seed, NetworkError> {
    let content = serde_json::to_vec(plan);
    Ok(Seed {
        name: PLAN.to_owned(),
        content: content.map_err(|error| NetworkError::Plan(PLAN.into(), error.into()))?,
    })
}

fn connect(run: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(run.join(SOCKET))?)?;
    for direction in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&socket, direction, Some(PATIENCE))?;
    }
    Ok(socket)
}

/// Asks and hears. A conversation that breaks is over.
fn exchange(keeper: &mut Option<OwnedFd>, request: &Request) -> Result<Vec<OwnedFd>, NetworkError> {
    let gone = || io::Error::from(io::ErrorKind::ConnectionReset);
    let talk = |socket: &OwnedFd| {
        protocol::send(socket.as_fd(), request, &[])?;
        protocol::receive::<Answer>(socket.as_fd())?.ok_or_else(gone)
    };
    let heard = keeper.as_ref().ok_or_else(gone).and_then(talk);
    match heard {
        Ok((Answer::Done, beside)) => Ok(beside),
        Ok((Answer::Failed(why), _)) => Err(NetworkError::Refused(why)),
        Err(error) => {
            *keeper = None;
            Err(NetworkError::Talk(error))
        }
    }
}

fn read(path: &Path) -> io::Result<Option<Plan>> {
    let file = match File::open(path) {
        // Other things than machines lie there, too.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        file => file?,
    };
    // At once: a reader that is asked byte by byte would ask the kernel so.
    let mut content = Vec::new();
    file.take(MAX_PLAN).read_to_end(&mut content)?;
    Ok(Some(serde_json::from_slice(&content)?))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is half done where a holder panicked: the conversation is begun anew when it fails.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
