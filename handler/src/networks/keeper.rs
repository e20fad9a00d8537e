//! The inner process of `rvm-handler keep-network`: it is in the node's network, holds the namespaces of all machines, and does
//! what handlers ask for.
//!
//! One thread, which goes from namespace to namespace; a socket stays in the one that it was made in. All that it holds is in
//! namespaces, and goes with it. It ends when the outer process has gone, or when no machine and no handler is left.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rvmm_control::{Liveness, RunDir};

use super::namespace::Namespace;
use super::node::{BuildError, Node};
use super::pod::Pod;
use super::protocol::{self, Answer, Request, SOCKET};
use super::range::Range;
use crate::steps::chain;
use crate::vm::is_uid;

/// How often it is looked whether machines still live, while no handler is here to say so.
const LOOK: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Handlers that may be connected at once: the one that serves, and one that is about to follow.
const MAX_HANDLERS: usize = 8;

/// Which descriptors have something to tell.
struct Ready {
    outer_gone: bool,
    knocks: bool,
    handlers: Vec<usize>,
    guests: Vec<usize>,
    nothing: bool,
}

/// The holder of all networks of a node.
pub struct Keeper {
    run: PathBuf,
    node: Node,
    listener: OwnedFd,
    handlers: Vec<OwnedFd>,
    pods: BTreeMap<String, Pod>,
}

/// There is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The node's network.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its socket.
    #[error("'{0}' cannot be served")]
    Socket(PathBuf, #[source] io::Error),
    /// What it waits on.
    #[error("the keeper of networks cannot wait")]
    Wait(#[source] io::Error),
}

// === impl Keeper ===

impl Keeper {
    /// Makes the node's network, and listens.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn open(run: &Path, range: Range) -> Result<Self, KeeperError> {
        let path = run.join(SOCKET);
        let failed = |error| KeeperError::Socket(path.clone(), error);
        let node = Node::build(range)?;
        // Nobody else listens: the outer process holds the lock.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        Ok(Self {
            run: run.to_owned(),
            node,
            listener: listen(&path).map_err(failed)?,
            handlers: Vec::new(),
            pods: BTreeMap::new(),
        })
    }

    /// The node's own.
    pub fn namespace(&self) -> &Namespace {
        self.node.namespace()
    }

    /// Serves to its end. What is read of `outer` is nothing; its end is ours.
    ///
    /// # Errors
    /// [`KeeperError::Wait`].
    pub fn serve(mut self, outer: BorrowedFd<'_>) -> Result<(), KeeperError> {
        let mut was_idle = false;
        loop {
            let ready = self.wait(outer).map_err(KeeperError::Wait)?;
            if ready.outer_gone {
                return Ok(());
            }
            if ready.knocks {
                self.welcome();
            }
            for pod in ready
                .guests
                .iter()
                .filter_map(|index| self.pods.values().nth(*index))
            {
                pod.door().answer();
            }
            for index in ready.handlers.into_iter().rev() {
                self.hear(index);
            }
            if ready.nothing {
                self.forget_the_dead();
            }
            let idle = ready.nothing && self.pods.is_empty() && self.handlers.is_empty();
            if idle && was_idle {
                return Ok(());
            }
            was_idle = idle;
        }
    }

    fn wait(&self, outer: BorrowedFd<'_>) -> io::Result<Ready> {
        let mut watched: Vec<PollFd<'_>> = [outer, self.listener.as_fd()]
            .into_iter()
            .chain(self.handlers.iter().map(AsFd::as_fd))
            .chain(self.pods.values().map(|pod| pod.door().as_fd()))
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        let patience = self.handlers.is_empty().then_some(&LOOK);
        let told = match poll(&mut watched, patience) {
            Err(rustix::io::Errno::INTR) => 0,
            told => told?,
        };
        let tells: Vec<bool> = watched
            .iter()
            .map(|descriptor| !descriptor.revents().is_empty())
            .collect();
        let (own, others) = tells.split_at_checked(2).unwrap_or_default();
        let (handlers, guests) = others.split_at_checked(self.handlers.len()).unwrap_or_default();
        Ok(Ready {
            outer_gone: own.first().is_some_and(|gone| *gone),
            knocks: own.last().is_some_and(|knocks| *knocks),
            handlers: which(handlers),
            guests: which(guests),
            nothing: told == 0,
        })
    }

    fn welcome(&mut self) {
        // Only this user comes as far as our socket.
        if let Ok(handler) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC)
            && self.handlers.len() < MAX_HANDLERS
        {
            self.handlers.push(handler);
        }
    }

    /// Does what a handler asks for, or notes that it is gone.
    fn hear(&mut self, index: usize) {
        let Some(handler) = self.handlers.get(index) else {
            return;
        };
        let Ok(Some((request, _))) = protocol::receive::<Request>(handler.as_fd()) else {
            self.handlers.remove(index);
            return;
        };
        let (answer, beside) = match self.obey(request) {
            Ok(beside) => (Answer::Done, beside),
            Err(error) => (Answer::Failed(error), Vec::new()),
        };
        let beside: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
        let Some(handler) = self.handlers.get(index) else {
            return;
        };
        if protocol::send(handler.as_fd(), &answer, &beside).is_err() {
            self.handlers.remove(index);
        }
    }

    fn obey(&mut self, request: Request) -> Result<Vec<OwnedFd>, String> {
        match request {
            Request::Attach { uid, .. } if !is_uid(&uid) => Err(format!("'{uid}' is no machine")),
            Request::Attach { uid, plan } => {
                if self.pods.get(&uid).is_none_or(|pod| *pod.plan() != *plan) {
                    self.detach(&uid)?;
                    let pod = Pod::build(&plan, &mut self.node).map_err(|error| chain(&error))?;
                    self.pods.insert(uid.clone(), pod);
                }
                self.namespaces_of(&uid)
            }
            Request::Detach { uid } => self.detach(&uid).map(|()| Vec::new()),
            Request::Isolate { uid, rules } => {
                // One that has no network here hears and says nothing at all.
                let pod = self.pods.get_mut(&uid);
                let isolated = pod.map_or(Ok(()), |pod| pod.isolate(&mut self.node, rules));
                isolated.map(|()| Vec::new()).map_err(|error| chain(&error))
            }
            Request::Keep { uids } => {
                let others = self.pods.keys().filter(|uid| !uids.contains(uid));
                let others: Vec<String> = others.cloned().collect();
                others.iter().try_for_each(|uid| self.detach(uid))?;
                Ok(Vec::new())
            }
            Request::Dial { uid, protocol, port } => {
                let pod = self.pods.get(&uid).ok_or("the machine has no network here")?;
                let socket = pod.dial(&mut self.node, protocol, port);
                Ok(vec![socket.map_err(|error| chain(&error))?])
            }
        }
    }

    fn namespaces_of(&self, uid: &str) -> Result<Vec<OwnedFd>, String> {
        let pod = self.pods.get(uid).ok_or("the machine has no network here")?;
        let network = Some(pod.namespace().as_fd());
        let user = self.node.user().map(AsFd::as_fd);
        let copies = network.into_iter().chain(user);
        let copies = copies.map(|descriptor| descriptor.try_clone_to_owned());
        copies
            .collect::<io::Result<_>>()
            .map_err(|error| format!("no descriptors are left: {error}"))
    }

    fn detach(&mut self, uid: &str) -> Result<(), String> {
        match self.pods.remove(uid) {
            Some(pod) => pod.remove(&mut self.node).map_err(|error| chain(&error)),
            None => Ok(()),
        }
    }

    /// Without a handler nobody says which machines have ended.
    fn forget_the_dead(&mut self) {
        let dead = self.pods.keys().filter(|uid| {
            let liveness = RunDir::new(self.run.join(uid)).liveness();
            !matches!(liveness, Ok(Liveness::Alive(_)))
        });
        let dead: Vec<String> = dead.cloned().collect();
        for uid in dead {
            if let Err(error) = self.detach(&uid) {
                writeln!(io::stderr(), "keep-network: {uid}: {error}").ok();
            }
        }
    }
}

/// The places of those that have something to tell.
fn which(tells: &[bool]) -> Vec<usize> {
    let telling = tells.iter().enumerate().filter(|(_, tells)| **tells);
    telling.map(|(index, _)| index).collect()
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The run directory is this user's alone; the socket is, too, whatever the umask.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(path)?);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, 8)?;
    Ok(socket)
}
