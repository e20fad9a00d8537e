//! Fetches one blob into the store: goes on where an earlier try ended, and believes nothing before its digest fits.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::time::Duration;

use futures::StreamExt;
use oci_client::client::{BlobResponse, LayerDescriptor};
use oci_client::errors::OciDistributionError;
use sha2::{Digest, Sha256};

use super::fetch::FetchError;
use super::session::{Session, may_pass};
use crate::images::layout::hex;
use crate::images::store::{Partial, Store, StoreError};

/// How often it is gone on with though nothing more came, and the first pause; each further one is twice as long.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// Bytes that are read back at once.
const CHUNK: usize = 1 << 20;

/// What has arrived of a blob.
struct Arrived {
    partial: Partial,
    digest: String,
    size: u64,
    have: u64,
    sha: Sha256,
}

/// Fetches a blob, unless it is here. `arrived` hears how many more bytes are.
///
/// # Errors
/// Any [`FetchError`].
pub async fn fetch(
    session: &Session,
    store: &Store,
    digest: &str,
    size: u64,
    arrived: &dyn Fn(u64),
) -> Result<(), FetchError> {
    if store.has_blob(digest, size) {
        arrived(size);
        return Ok(());
    }
    let Some(partial) = take(store, digest, size).await? else {
        arrived(size);
        return Ok(());
    };
    let mut blob = Arrived::read(partial, digest, size)?;
    arrived(blob.have);
    let (mut pause, mut tries) = (PAUSE, 1);
    while blob.have < blob.size {
        let before = blob.have;
        match blob.go_on(session, arrived).await? {
            Ok(()) => {}
            Err(error) if blob.have == before && tries >= TRIES => return Err(session.said(error)),
            Err(error) if !may_pass(&error) => return Err(session.said(error)),
            Err(error) => tracing::debug!(digest, %error, "will be gone on with"),
        }
        if blob.have > before {
            (pause, tries) = (PAUSE, 1);
        } else {
            tokio::time::sleep(pause).await;
            (pause, tries) = (pause * 2, tries + 1);
        }
    }
    blob.finish()
}

/// Waiting for another process may take long, so it is done where blocking is allowed.
async fn take(store: &Store, digest: &str, size: u64) -> Result<Option<Partial>, StoreError> {
    let (ours, name) = (store.clone(), digest.to_owned());
    let taken = tokio::task::spawn_blocking(move || ours.partial(&name, size));
    match taken.await {
        Ok(taken) => taken,
        // Only when the runtime ends; then nobody listens.
        Err(_) => Ok(None),
    }
}

// === impl Arrived ===

impl Arrived {
    /// Reads what an earlier try left.
    fn read(partial: Partial, digest: &str, size: u64) -> Result<Self, FetchError> {
        let mut blob = Self {
            partial,
            digest: digest.to_owned(),
            size,
            have: 0,
            sha: Sha256::new(),
        };
        let failed = |error| FetchError::Write(digest.to_owned(), error);
        let (have, sha) = hash(&mut blob.partial.file).map_err(failed)?;
        if have > size {
            blob.forget().map_err(failed)?;
        } else {
            (blob.have, blob.sha) = (have, sha);
        }
        Ok(blob)
    }

    /// Asks for the rest and writes what comes. The inner error is the registry's.
    async fn go_on(
        &mut self,
        session: &Session,
        arrived: &dyn Fn(u64),
    ) -> Result<Result<(), OciDistributionError>, FetchError> {
        let digest = format!("sha256:{}", self.digest);
        let layer = LayerDescriptor {
            digest: &digest,
            urls: &None,
        };
        let asked = session
            .client
            .pull_blob_stream_partial(&session.reference, &layer, self.have, None);
        let mut stream = match asked.await {
            Err(error) => return Ok(Err(error)),
            Ok(BlobResponse::Partial(stream)) => stream.stream,
            // It sends all of it, whatever was asked for.
            Ok(BlobResponse::Full(stream)) => {
                self.forget().map_err(|error| self.unwritten(error))?;
                stream.stream
            }
        };
        while let Some(bytes) = stream.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error.into())),
            };
            let more = bytes.len() as u64;
            if more > self.size - self.have {
                return Err(self.mismatch());
            }
            self.partial
                .file
                .write_all(&bytes)
                .map_err(|error| self.unwritten(error))?;
            self.sha.update(&bytes);
            self.have += more;
            arrived(more);
        }
        if self.have < self.size {
            return Ok(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        Ok(Ok(()))
    }

    /// Gives it its name, if it is what it should be.
    fn finish(mut self) -> Result<(), FetchError> {
        if hex(std::mem::take(&mut self.sha)) != self.digest {
            return Err(self.mismatch());
        }
        let digest = self.digest;
        let finished = self.partial.finish();
        finished.map_err(|error| FetchError::Write(digest, error))
    }

    /// What came is of no use, also to a later try.
    fn mismatch(&mut self) -> FetchError {
        if let Err(error) = self.forget() {
            return self.unwritten(error);
        }
        FetchError::Mismatch(self.digest.clone())
    }

    fn forget(&mut self) -> io::Result<()> {
        self.partial.file.set_len(0)?;
        (self.have, self.sha) = (0, Sha256::new());
        Ok(())
    }

    fn unwritten(&self, error: io::Error) -> FetchError {
        FetchError::Write(self.digest.clone(), error)
    }
}

/// Size and hash of a file.
fn hash(file: &mut File) -> io::Result<(u64, Sha256)> {
    let (mut sha, mut size, mut chunk) = (Sha256::new(), 0_u64, vec![0; CHUNK]);
    file.rewind()?;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            return Ok((size, sha));
        }
        sha.update(chunk.get(..count).unwrap_or_default());
        size += count as u64;
    }
}
