//! Has images pulled from registries, each by a process of its own, and each only once at a time.
//!
//! ```text
//!   Wish ──policy: is it here?──► Puller ── Job ──► rvm-handler pull-image   (child.rs, fetch.rs, blob.rs)
//!              login.rs: who asks ──┘  └◄── Said ──┘        └──► the store
//! ```

pub mod authorities;
pub mod blob;
pub mod child;
pub mod fetch;
pub mod job;
pub mod login;
pub mod session;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::mirror::{Mirrors, NameError};
use super::store::{InUse, Record, Store, StoreError};
use job::{Asked, Job, Said, Source};
use login::Logins;

/// Pulls at once; each fetches several blobs.
const PULLS: usize = 4;

/// Most that a process that pulls may say.
const MAX_SAID: u64 = 16 << 20;

/// When a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Each time, though what is here is not fetched again.
    Always,
    /// Where the image is not here.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// An image that a machine needs.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Its name, as it was written.
    pub image: String,
    /// When the registry is asked.
    pub policy: Policy,
    /// What the VMI's pull secret holds.
    pub secret: Option<Logins>,
}

/// What happens on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A registry is asked.
    Pulling,
    /// So many bytes are here, of so many.
    Progress(u64, u64),
    /// The image is here: how long it took, and the size of its layers.
    Pulled(Duration, u64),
    /// It was here.
    Present,
}

/// The image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// What was written is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It is not here, and nobody may be asked.
    #[error("it is not present with pull policy of Never")]
    Never,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry's answer, or what became of it.
    #[error("{0}")]
    Failed(String),
    /// The process that pulls.
    #[error("the process that pulls it cannot be run")]
    Process(#[source] io::Error),
    /// It ended without a word.
    #[error(
        "the process that pulls it ended without a word ({0}): what the registry sent was too much for it"
    )]
    Ended(std::process::ExitStatus),
}

/// Pulls images into a store.
#[derive(Debug)]
pub struct Puller {
    program: PathBuf,
    /// A folder for each registry, with the certificates of those who sign for it.
    certificates: Option<PathBuf>,
    slots: Semaphore,
    /// By image: who pulls it now.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

// === impl Policy ===

impl Policy {
    /// As a manifest says it, once it is defaulted.
    pub fn of(policy: Option<&str>) -> Self {
        match policy {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            _ => Self::IfNotPresent,
        }
    }
}

// === impl Puller ===

impl Puller {
    /// Pulls by this program, which is `rvm-handler`.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            certificates: None,
            slots: Semaphore::new(PULLS),
            busy: Mutex::default(),
        }
    }

    /// Registries are believed, too, for whom somebody signs whose certificate lies in the folder `HOST:PORT` of this one.
    #[must_use]
    pub fn believing(self, certificates: Option<PathBuf>) -> Self {
        Self { certificates, ..self }
    }

    /// Gets an image into the store, and keeps the store as it is until what is returned is dropped. `tell` hears how it goes.
    ///
    /// # Errors
    /// Any [`PullError`].
    pub async fn pull(
        &self,
        store: &Store,
        mirrors: &Mirrors,
        wish: &Wish,
        tell: &(dyn Fn(Told) + Sync),
    ) -> Result<InUse, PullError> {
        let (name, sources) = mirrors.sources(&wish.image)?;
        let started = Instant::now();
        let turn = self.turn(&name);
        let _our_turn = turn.lock().await;
        let held = in_use(store).await?;
        let here = store.find(&name).is_some();
        match wish.policy {
            Policy::Always => {}
            Policy::IfNotPresent | Policy::Never if here => {
                tell(Told::Present);
                return Ok(held);
            }
            Policy::Never => return Err(PullError::Never),
            Policy::IfNotPresent => {}
        }
        tell(Told::Pulling);
        let _slot = self.slots.acquire().await;
        let job = Job {
            store: store.dir().to_owned(),
            image: name,
            asked: sources
                .into_iter()
                .map(|source| self.asked(source, wish))
                .collect(),
        };
        let record = self.run(&job, tell).await?;
        tell(Told::Pulled(started.elapsed(), record.bytes));
        Ok(held)
    }

    /// Who is asked, by whom: the pull secret's login, or one of this user's.
    fn asked(&self, source: Source, wish: &Wish) -> Asked {
        let secret = wish.secret.as_ref();
        let login = secret
            .and_then(|secret| secret.find(&source.registry, &source.repository).cloned())
            .or_else(|| login::from_files(&source.registry, &source.repository));
        let folder = self.certificates.as_ref();
        Asked {
            authorities: folder.map(|folder| folder.join(&source.registry)),
            source,
            login,
        }
    }

    /// Those who want the same image wait for each other here.
    fn turn(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(busy.entry(image.to_owned()).or_default())
    }

    async fn run(&self, job: &Job, tell: &(dyn Fn(Told) + Sync)) -> Result<Record, PullError> {
        let mut child = Command::new(&self.program)
            .arg(child::WORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(PullError::Process)?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(PullError::Process(io::ErrorKind::BrokenPipe.into()));
        };
        let mut line = serde_json::to_vec(job).map_err(|error| PullError::Process(error.into()))?;
        line.push(b'\n');
        input.write_all(&line).await.map_err(PullError::Process)?;
        let mut lines = BufReader::new(output.take(MAX_SAID)).lines();
        let mut last = None;
        while let Some(line) = lines.next_line().await.map_err(PullError::Process)? {
            match serde_json::from_str(&line) {
                Ok(Said::Progress(have, total)) => tell(Told::Progress(have, total)),
                Ok(said) => last = Some(said),
                Err(error) => return Err(PullError::Process(error.into())),
            }
        }
        let status = child.wait().await.map_err(PullError::Process)?;
        // Only now: it ends when its input does.
        drop(input);
        match last {
            Some(Said::Done(record)) => Ok(record),
            Some(Said::Failed(why)) => Err(PullError::Failed(why)),
            _ => Err(PullError::Ended(status)),
        }
    }
}

/// Waits, where blocking is allowed, for who makes room.
async fn in_use(store: &Store) -> Result<InUse, PullError> {
    let store = store.clone();
    let taken = tokio::task::spawn_blocking(move || store.in_use()).await;
    Ok(taken.map_err(|error| PullError::Process(error.into()))??)
}
