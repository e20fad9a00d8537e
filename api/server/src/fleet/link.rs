//! A console that is carried from another node: the near end of a pipe, which tells the end of the console from the end of the link.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::console::LINK_LOST;

/// Bytes of a console on their way to whoever views it.
const PIPE: usize = 64 << 10;

/// What a viewer has of it.
pub(super) struct Near {
    pipe: DuplexStream,
    is_lost: Arc<AtomicBool>,
}

/// What whoever carries it has of it.
pub(super) struct Far {
    pub pipe: DuplexStream,
    pub link: Link,
}

/// Says that the link was lost. To be said before the pipe is dropped.
pub(super) struct Link(Arc<AtomicBool>);

/// A pipe.
pub(super) fn pipe() -> (Near, Far) {
    let (near, far) = tokio::io::duplex(PIPE);
    let is_lost = Arc::new(AtomicBool::new(false));
    let link = Link(Arc::clone(&is_lost));
    (Near { pipe: near, is_lost }, Far { pipe: far, link })
}

// === impl Link ===

impl Link {
    pub(super) fn is_lost(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl AsyncRead for Near {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(context, buffer);
        let is_end = matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if is_end && buffer.remaining() > 0 && self.is_lost.load(Ordering::Acquire) {
            return Poll::Ready(Err(LINK_LOST.into()));
        }
        read
    }
}

impl AsyncWrite for Near {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_carried_comes_before_the_news_that_the_link_is_lost() {
        let (mut near, Far { mut pipe, link }) = pipe();
        pipe.write_all(b"last").await.unwrap();
        link.is_lost();
        drop(pipe);
        let mut heard = [0; 8];
        assert_eq!(near.read(&mut heard).await.unwrap(), 4);
        assert_eq!(near.read(&mut heard).await.unwrap_err().kind(), LINK_LOST);
    }

    #[tokio::test]
    async fn a_console_that_has_come_to_its_end_just_ends() {
        let (mut near, far) = pipe();
        drop(far);
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
