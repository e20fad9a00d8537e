//! Where the server is reached: a Unix socket that only its owner can open, or TLS (`tls.rs`).

use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, fs::File};

use rustix::fs::FlockOperation;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_reflection::server as reflection;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::MachinesService;
use crate::tls::TlsDoor;
use crate::users::Doorkeeper;

/// Most streams of one connection: a person has a few consoles open, a program maybe dozens.
const MAX_STREAMS: u32 = 256;

/// How often a silent peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long open streams may go on when the server stops. A console may be open for ever, so they are not waited for.
const DRAIN: Duration = Duration::from_secs(1);

/// Why the server cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket's folder is open to other users.
    #[error("'{0}' may be opened by other users; give the socket a folder of its own, of mode 0700")]
    Open(PathBuf),
    /// Somebody else serves there.
    #[error("{0} is served by another process")]
    InUse(PathBuf),
    /// The folder of the socket belongs to somebody else.
    #[error("{0} belongs to another user")]
    NotOurs(PathBuf),
    /// The folder, the lock or the socket cannot be made.
    #[error("cannot listen on {path}")]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A certificate or key cannot be read.
    #[error("cannot read {path}")]
    Identity {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificates and the key do not fit together, or are none.
    #[error("certificates cannot be used: {0}")]
    Certificates(String),
    /// The server broke.
    #[error("the gRPC server failed")]
    Serve(#[source] tonic::transport::Error),
}

/// A Unix socket that only its owner can open, bound and not served yet.
#[derive(Debug)]
pub struct UnixDoor {
    listener: UnixListener,
    name: SocketName,
}

/// The socket's name in its folder, which goes away with its server, also when that is ended in the middle of something.
#[derive(Debug)]
struct SocketName {
    path: PathBuf,
    /// Held until the name is gone, so that nobody else can have put another socket there.
    _lock: File,
}

// === impl UnixDoor ===

impl UnixDoor {
    /// Binds a socket of mode 0600 in a folder of mode 0700. One that a dead server left is replaced; a living
    /// server's is not.
    ///
    /// # Errors
    /// Any but those of TLS.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let (listener, name) = bind_private(path)?;
        Ok(Self { listener, name })
    }

    /// Serves until `shutdown` is done, then takes the socket away.
    ///
    /// # Errors
    /// [`ListenError::Serve`].
    pub async fn serve(
        self,
        service: MachinesService,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ListenError> {
        let Self { listener, name } = self;
        let incoming = UnixListenerStream::new(listener);
        let served = serve(incoming, service, Doorkeeper::nobody(), shutdown).await;
        drop(name);
        served
    }
}

// === impl SocketName ===

impl Drop for SocketName {
    fn drop(&mut self) {
        // A name that is left is replaced by the next server.
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves at a door until `shutdown` is done, those whom it lets in.
///
/// # Errors
/// [`ListenError::Serve`].
pub async fn serve_tls(
    door: TlsDoor,
    service: MachinesService,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ListenError> {
    serve(door.guests(), service, Doorkeeper::nobody(), shutdown).await
}

/// Serves at a door those whom its keeper knows.
pub(crate) async fn serve<IO>(
    incoming: impl Stream<Item = io::Result<IO>>,
    service: MachinesService,
    keeper: Doorkeeper,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ListenError>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (stop, stopped) = oneshot::channel::<()>();
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .max_concurrent_streams(MAX_STREAMS)
        .layer(keeper)
        .add_service(reflection())
        .add_optional_service(service.images_server())
        .add_service(service.virtual_machines())
        .add_service(service.into_server());
    let drained = async {
        shutdown.await;
        drop(stop);
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = router.serve_with_incoming_shutdown(incoming, async { drop(stopped.await) }) => {
            served.map_err(ListenError::Serve)
        }
        () = drained => Ok(()),
    }
}

/// What tells programs which calls there are, and what each of them means.
fn reflection() -> ServerReflectionServer<impl ServerReflection> {
    let described =
        reflection::Builder::configure().register_encoded_file_descriptor_set(rvm_proto::DESCRIPTORS);
    described
        .build_v1()
        .expect("our own file was compiled with this program")
}

/// Binds the socket; the lock beside it says for as long as it is held that its server lives.
fn bind_private(path: &Path) -> Result<(UnixListener, SocketName), ListenError> {
    let failed = |source| ListenError::Socket {
        path: path.to_owned(),
        source,
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_private(folder)?;
    let lock = lock(&path.with_extension("lock")).map_err(failed)?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(ListenError::InUse(path.to_owned()));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => return Err(ListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let name = SocketName {
        path: path.to_owned(),
        _lock: lock,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok((listener, name))
}

fn lock(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Makes the folder, for its owner alone. One that is there already stays as it is, since others may live in it; it
/// must be closed to everybody else. It comes before the socket, so that there is no moment at which others could open
/// that.
fn make_private(folder: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Socket {
        path: folder.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    let metadata = fs::metadata(folder).map_err(failed)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(ListenError::NotOurs(folder.to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(ListenError::Open(folder.to_owned()));
    }
    Ok(())
}
