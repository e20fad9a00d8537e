//! When to look again, for what is read as a whole and decided anew each time: as objects change, soon after a failure, and now and
//! then besides.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, ReadyChunks, SelectAll, select_all};
use kube::Api;
use kube::core::Resource;
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;

/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How often it is time though nothing has changed.
const RECHECK: Duration = Duration::from_secs(60);

/// Changes that are taken as one.
const AT_ONCE: usize = 256;

/// Changes of objects, of several kinds perhaps.
pub struct Changes(ReadyChunks<SelectAll<BoxStream<'static, ()>>>);

// === impl Changes ===

impl Changes {
    /// Any of these, as [`of`] makes them.
    pub fn any(kinds: impl IntoIterator<Item = BoxStream<'static, ()>>) -> Self {
        Self(select_all(kinds).ready_chunks(AT_ONCE))
    }

    /// Waits until it is time to look again; `settled` tells whether all went well the last time. False where nothing can change
    /// any more.
    pub async fn next(&mut self, settled: bool) -> bool {
        let pause = if settled { RECHECK } else { RETRY };
        !matches!(tokio::time::timeout(pause, self.0.next()).await, Ok(None))
    }
}

/// Something for each change of an object of a kind, and at first for what is there.
pub fn of<K>(api: Api<K>) -> BoxStream<'static, ()>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let changes = watcher(api, watcher::Config::default()).default_backoff();
    changes.map(drop).boxed()
}
