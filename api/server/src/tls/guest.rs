//! Someone whom the door has let in, and for how long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Someone who was let in, and the place that goes with it.
pub(crate) struct Guest {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// When this connection is over, if nobody has said by then who they are.
    until: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// Their certificate, whose signature was checked.
    certificate: Option<Arc<CertificateDer<'static>>>,
    /// Whether a request of this connection has come from somebody who is known.
    known: Arc<AtomicBool>,
}

// === impl Peer ===

impl Peer {
    /// Whoever has shown this certificate, if any.
    pub(super) fn new(shown: Option<&CertificateDer<'_>>) -> Self {
        Self {
            certificate: shown.map(|certificate| Arc::new(certificate.clone().into_owned())),
            known: Arc::default(),
        }
    }

    /// The certificate that was shown, if one was.
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_deref()
    }

    /// Somebody has said who they are, and it was true.
    pub(crate) fn is_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

// === impl Guest ===

impl Connected for Guest {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Guest {
    /// Who has this place; for so long only, where that is said, unless it becomes known who they are.
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        peer: Peer,
        time: Option<Duration>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            stream,
            peer,
            until: time.map(|time| Box::pin(tokio::time::sleep(time))),
            _place: place,
        }
    }

    /// Whether its time is over, and nobody knows who it is.
    fn overstays(&mut self, context: &mut Context<'_>) -> bool {
        if self.peer.known.load(Ordering::Relaxed) {
            self.until = None;
        }
        let until = self.until.as_mut();
        until.is_some_and(|until| until.as_mut().poll(context).is_ready())
            && !self.peer.known.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.overstays(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
