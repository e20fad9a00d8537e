//! The store: every object in memory, every change in one file first.
//!
//! ```text
//!   write ──► Batch: read what is there, decide, stage ──► one redb transaction (objects and revision, synced to disk)
//!                                                               │ only then
//!                                                               ▼
//!                                      memory: objects, history ──► watchers wake up
//! ```
//!
//! - A write that was answered is on the disk: it survives `kill -9` and a power cut.
//! - Writers queue up; each sees the state that the one before left. All that one batch stages becomes true at once.
//! - Every change takes the next revision, one counter for all objects. It is the `resourceVersion` of Kubernetes.
//! - Reads never touch the file. Writes do, for as long as the disk takes: they run on tokio's blocking threads.
//! - The file is locked while it is open; a second process gets a clear error.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;
use tokio::sync::watch;

use crate::batch::Batch;
use crate::history::{Change, History, TooOld};
use crate::object::{Key, Object, Prefix};
use crate::status::{Answer, Failure};

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Raised when the meaning of the file's content changes.
const FORMAT_NOW: u64 = 1;
/// redb's page cache: small, since all objects are in memory anyway.
const CACHE_BYTES: usize = 4 << 20;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("{0} is in use: another handler runs in local mode with this state folder")]
    InUse(PathBuf),
    /// Written by a version we do not know.
    #[error("{path} has format {found}, this program knows format {FORMAT_NOW}")]
    Format {
        /// The store's file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// An object in it is not what was once written.
    #[error("object {key} in the store is damaged")]
    Damaged {
        /// Which one.
        key: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The file itself cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The store's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The data base says no.
    #[error("the store failed")]
    Database(#[from] Box<redb::Error>),
}

impl StoreError {
    fn database(error: impl Into<redb::Error>) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// What is in memory.
pub(crate) struct State {
    pub(crate) objects: BTreeMap<Key, Arc<Object>>,
    pub(crate) history: History,
    pub(crate) revision: u64,
    pub(crate) bytes: usize,
}

/// The objects, and the file they are kept in.
pub(crate) struct Store {
    database: Database,
    /// Held from reading until the change is in memory: one writer at a time.
    writer: Mutex<()>,
    state: RwLock<State>,
    /// The newest revision, for those who wait for one.
    newest: watch::Sender<u64>,
}

/// One page of a list.
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// The state that the page shows.
    pub(crate) revision: u64,
    /// More objects follow after the last one of the page.
    pub(crate) remaining: usize,
}

impl Store {
    /// Opens the store's file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = open_file(path)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_file(file)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
                other => StoreError::database(other),
            })?;
        check_format(&database, path)?;
        let state = load(&database)?;
        let newest = watch::Sender::new(state.revision);
        Ok(Self {
            database,
            writer: Mutex::new(()),
            state: RwLock::new(state),
            newest,
        })
    }

    /// A look at the state; short, since writers wait for it.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        // A panic while the lock was held cannot leave the state half changed: it changes in `apply` only.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when the newest revision moves on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Runs `decide` on the current state and makes what it staged true. A `dry` run stops before that.
    pub(crate) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        dry: bool,
        decide: impl FnOnce(&mut Batch<'_>) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let store = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || store.write_blocking(dry, decide));
        task.await
            .map_err(|_| Failure::internal("the write was interrupted"))?
    }

    /// `write`, on a thread that may block.
    pub(crate) fn write_blocking<T>(
        &self,
        dry: bool,
        decide: impl FnOnce(&mut Batch<'_>) -> Answer<T>,
    ) -> Answer<T> {
        let _writing: MutexGuard<'_, ()> = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, changes) = {
            let state = self.state();
            let mut batch = Batch::new(&state);
            let result = decide(&mut batch)?;
            (result, batch.into_changes())
        };
        if !dry && !changes.is_empty() {
            self.commit(&changes).map_err(|error| {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a change could not be stored"
                );
                Failure::internal("the change could not be stored")
            })?;
            self.apply(changes);
        }
        Ok(result)
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(StoreError::database)?;
        {
            let mut objects = transaction.open_table(OBJECTS).map_err(StoreError::database)?;
            let mut counters = transaction.open_table(COUNTERS).map_err(StoreError::database)?;
            for change in changes {
                let key = change.key.as_str();
                match &change.after {
                    Some(object) => {
                        objects
                            .insert(key, object.value.to_string().as_bytes())
                            .map_err(StoreError::database)?;
                    }
                    None => {
                        objects.remove(key).map_err(StoreError::database)?;
                    }
                }
                counters
                    .insert(REVISION, change.revision)
                    .map_err(StoreError::database)?;
            }
        }
        transaction.commit().map_err(StoreError::database)
    }

    fn apply(&self, changes: Vec<Change>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            state.apply(change);
        }
        let revision = state.revision;
        drop(state);
        self.newest.send_replace(revision);
    }
}

impl State {
    fn apply(&mut self, change: Change) {
        self.bytes -= change.before.as_ref().map_or(0, |object| object.size);
        self.bytes += change.after.as_ref().map_or(0, |object| object.size);
        self.revision = change.revision;
        match &change.after {
            Some(object) => self.objects.insert(change.key.clone(), Arc::clone(object)),
            None => self.objects.remove(&change.key),
        };
        self.history.append(Arc::new(change));
    }

    /// The objects under `prefix`, after `start` where one is given.
    pub(crate) fn under<'a>(
        &'a self,
        prefix: &'a Prefix,
        start: Option<&Key>,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        let from = match start {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Included(Key::from_text(prefix.as_str())),
        };
        self.objects
            .range((from, Bound::Unbounded))
            .map(|(_, object)| object)
            .take_while(|o| prefix.covers(&o.key))
    }

    /// A page of those objects under `prefix` that `wanted` says yes to, as they were at revision `at` (now, where none is given).
    pub(crate) fn page(
        &self,
        prefix: &Prefix,
        start: Option<&Key>,
        most: usize,
        at: Option<u64>,
        wanted: impl Fn(&Object) -> bool,
    ) -> Result<Page, TooOld> {
        let revision = at.unwrap_or(self.revision);
        let mut objects = Vec::new();
        let mut remaining = 0;
        let mut take = |object: &Arc<Object>| {
            if !wanted(object) {
            } else if objects.len() < most {
                objects.push(Arc::clone(object));
            } else {
                remaining += 1;
            }
        };
        if revision == self.revision {
            self.under(prefix, start).for_each(&mut take);
        } else {
            let now = self
                .under(prefix, start)
                .map(|object| (object.key.clone(), Some(Arc::clone(object))));
            let mut then: BTreeMap<Key, Option<Arc<Object>>> = now.collect();
            let undone = self.history.undo_to(revision)?.into_iter();
            then.extend(
                undone.filter(|(key, _)| prefix.covers(key) && start.is_none_or(|start| key > start)),
            );
            then.values().flatten().for_each(&mut take);
        }
        Ok(Page {
            objects,
            revision,
            remaining,
        })
    }
}

fn open_file(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options.open(path).map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })
}

fn check_format(database: &Database, path: &Path) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(StoreError::database)?;
    let found = {
        transaction.open_table(OBJECTS).map_err(StoreError::database)?;
        let mut counters = transaction.open_table(COUNTERS).map_err(StoreError::database)?;
        let found = counters
            .get(FORMAT)
            .map_err(StoreError::database)?
            .map(|value| value.value());
        if found.is_none() {
            counters
                .insert(FORMAT, FORMAT_NOW)
                .map_err(StoreError::database)?;
        }
        found
    };
    transaction.commit().map_err(StoreError::database)?;
    match found {
        Some(found) if found != FORMAT_NOW => Err(StoreError::Format {
            path: path.to_owned(),
            found,
        }),
        _ => Ok(()),
    }
}

fn load(database: &Database) -> Result<State, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::database)?;
    let counters = transaction.open_table(COUNTERS).map_err(StoreError::database)?;
    let revision = counters
        .get(REVISION)
        .map_err(StoreError::database)?
        .map_or(0, |value| value.value());
    let table = transaction.open_table(OBJECTS).map_err(StoreError::database)?;
    let mut state = State {
        objects: BTreeMap::new(),
        history: History::after(revision),
        revision,
        bytes: 0,
    };
    for row in table.iter().map_err(StoreError::database)? {
        let (key, bytes) = row.map_err(StoreError::database)?;
        let key = Key::from_text(key.value());
        let value: Value = serde_json::from_slice(bytes.value()).map_err(|source| StoreError::Damaged {
            key: key.to_string(),
            source,
        })?;
        let written = crate::object::metadata_text(&value, "resourceVersion")
            .parse()
            .unwrap_or(revision);
        let object = Arc::new(Object::new(key.clone(), value, written));
        state.bytes += object.size;
        state.objects.insert(key, object);
    }
    Ok(state)
}

#[cfg(test)]
mod tests;
