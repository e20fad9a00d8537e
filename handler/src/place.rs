//! The two directories of a handler, held for as long as it lives, and the id by which it is known.
//!
//! ```text
//!   <run>/handler.lock     keeps a second handler away from these machines
//!   <state>/handler.lock   keeps a second handler from being this one; holds the id
//! ```
//!
//! The id is random and made once, with the state directory. A node's name is only a word that two hosts may both
//! have; claims bear the id too, so that no handler takes another's VMIs for its own (`claim.rs`, `node.rs`).

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rvmm_control::RunDir;
use uuid::Uuid;

/// Longest path of a Unix socket on Linux, without its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Longest content of the id's file that is looked at: an id and a new line, and what cannot be one.
const MAX_ID: u64 = 64;

/// Permissions of anybody but the owner.
const OTHERS: u32 = 0o077;

/// How often a lock is tried, and the pause in between.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Another handler is there.
    #[error("another rvm-handler works in '{0}'")]
    Taken(PathBuf),
    /// Other users could reach the machines in it.
    #[error("'{path}' has mode {mode:04o} and may be opened by other users: chmod 700 it, or name another")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is another user's.
    #[error("'{0}' belongs to another user")]
    NotOurs(PathBuf),
    /// Unix sockets in it could not be named.
    #[error(
        "the run directory's path '{0}' is too long: a socket in it would have more than {MAX_SOCKET_PATH} bytes"
    )]
    TooLong(PathBuf),
    /// What should be an id is none. A new one would be another handler, without this one's machines.
    #[error("'{0}' does not hold a handler's id; remove it if this node runs no machines")]
    NoId(PathBuf),
    /// It cannot be made or read.
    #[error("'{0}' cannot be used")]
    Io(PathBuf, #[source] io::Error),
}

/// A run and a state directory that are ours.
#[derive(Debug)]
pub struct Place {
    run: PathBuf,
    state: PathBuf,
    id: Uuid,
    _locks: [File; 2],
}

// === impl Place ===

impl Place {
    /// Takes both directories, made where they are not there. Nothing is made before all that is there is fit.
    ///
    /// # Errors
    /// Any [`PlaceError`].
    pub fn take(run: &Path, state: &Path) -> Result<Self, PlaceError> {
        let longest = RunDir::new(run.join(Uuid::nil().to_string())).console_socket();
        if longest.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(PlaceError::TooLong(run.to_owned()));
        }
        // What is private in the state directory lies in closed folders of its own.
        require_private(run)?;
        let of_run = lock(run)?;
        let of_state = lock(state)?;
        Ok(Self {
            id: id(&of_state, &lock_path(state))?,
            run: run.to_owned(),
            state: state.to_owned(),
            _locks: [of_run, of_state],
        })
    }

    /// Where running machines are kept.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Where everything else is kept.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The handler's id.
    pub fn id(&self) -> String {
        self.id.to_string()
    }
}

/// One that is there already must be ours alone: whoever gets into it gets at the machines' consoles.
fn require_private(path: &Path) -> Result<(), PlaceError> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(|error| PlaceError::Io(path.to_owned(), error))?,
    };
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(PlaceError::NotOurs(path.to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(PlaceError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.join("handler.lock")
}

/// Takes a folder's lock. A handler that was killed while it started a program has left a copy of itself that holds the lock until it
/// is that program, hence the retries: whoever restarts it at once is not to be turned away.
fn lock(folder: &Path) -> Result<File, PlaceError> {
    let failed = |error| PlaceError::Io(folder.to_owned(), error);
    let make = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    make.map_err(failed)?;
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let file = options.open(lock_path(folder)).map_err(failed)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Err(PlaceError::Taken(folder.to_owned()))
}

/// The id in the state directory's lock, made if there is none.
fn id(mut file: &File, path: &Path) -> Result<Uuid, PlaceError> {
    let failed = |error| PlaceError::Io(path.to_owned(), error);
    let mut text = String::new();
    file.take(MAX_ID).read_to_string(&mut text).map_err(failed)?;
    if !text.is_empty() {
        return Uuid::try_parse(text.trim()).map_err(|_| PlaceError::NoId(path.to_owned()));
    }
    let fresh = Uuid::new_v4();
    file.rewind().map_err(failed)?;
    writeln!(file, "{fresh}").map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Folders(tempfile::TempDir);

    impl Folders {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn take(&self, run: &str, state: &str) -> Result<Place, PlaceError> {
            Place::take(&self.path(run), &self.path(state))
        }
    }

    #[test]
    fn an_id_is_made_once_and_stays_with_the_state_directory() {
        let folders = Folders::new();
        let first = folders.take("run", "state").unwrap().id();
        assert_eq!(folders.take("run", "state").unwrap().id(), first);
        assert_eq!(folders.take("other", "state").unwrap().id(), first);
        assert_ne!(folders.take("run", "another").unwrap().id(), first);
    }

    #[test]
    fn a_second_handler_is_kept_out_of_both_directories() {
        let folders = Folders::new();
        let _place = folders.take("run", "state").unwrap();
        let same_run = folders.take("run", "another").unwrap_err();
        assert!(matches!(same_run, PlaceError::Taken(path) if path == folders.path("run")));
        let same_state = folders.take("other", "state").unwrap_err();
        assert!(matches!(same_state, PlaceError::Taken(path) if path == folders.path("state")));
    }

    #[test]
    fn what_a_killed_handler_leaves_for_a_moment_keeps_nobody_out() {
        let folders = Folders::new();
        let left = folders.take("run", "state").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(LOCK_PAUSE * 5);
                drop(left);
            });
            folders.take("run", "state").unwrap();
        });
    }

    #[test]
    fn what_is_no_id_is_refused_and_not_replaced() {
        let folders = Folders::new();
        drop(folders.take("run", "state").unwrap());
        fs::write(folders.path("state/handler.lock"), "half an").unwrap();
        assert!(matches!(folders.take("run", "state"), Err(PlaceError::NoId(_))));
    }

    #[test]
    fn a_directory_that_others_can_open_is_refused_and_nothing_is_left() {
        let folders = Folders::new();
        let run = folders.path("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = folders.take("run", "state").unwrap_err().to_string();
        assert!(
            refused
                .ends_with("has mode 0755 and may be opened by other users: chmod 700 it, or name another"),
            "{refused}"
        );
        assert!(!folders.path("state").exists() && fs::read_dir(run).unwrap().next().is_none());
    }

    #[test]
    fn new_directories_are_our_own_alone() {
        let folders = Folders::new();
        let _place = folders.take("run", "state").unwrap();
        let mode = |name| fs::metadata(folders.path(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("run"), mode("state")), (0o700, 0o700));
    }

    #[test]
    fn a_run_directory_too_deep_for_sockets_is_refused() {
        let folders = Folders::new();
        let refused = folders.take(&"d".repeat(100), "state");
        assert!(matches!(refused, Err(PlaceError::TooLong(_))));
    }
}
