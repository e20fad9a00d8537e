//! Connections that come in at a listener, as many at once as there are places.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The next connection, once there is a place for it: who comes later waits in the system's queue and costs nothing. Its place is
/// free again when the permit is dropped.
///
/// # Errors
/// The system has no more connections to give.
pub(crate) async fn arrive(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
