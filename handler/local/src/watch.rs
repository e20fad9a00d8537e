//! A watch: the state there is (where asked for), then every change, until its time is up or it has fallen too far behind.
//!
//! ```text
//!   Initial: pages of the state at revision R ──► Following: changes after R, in order ──► Over
//!                 │ R no longer covered                │ no longer covered                  ▲
//!                 └──────────► ERROR 410 Expired ◄─────┘           time is up ──────────────┘
//! ```
//!
//! A watcher has no queue. It is a position in the shared `History`; a piece of the answer is made when the connection
//! can take it. A client that does not read costs one stuck piece, and is told 410 when it wakes up too late.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use crate::history::{Change, TooOld};
use crate::limits;
use crate::object::{Key, Object, Prefix};
use crate::resource::Resource;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::Failure;
use crate::store::Store;
use crate::table::{self, Include};

/// The form that objects are wanted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Metadata,
    Table(Include),
}

/// Which objects a list or a watch is about.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) resource: Arc<Resource>,
    pub(crate) prefix: Prefix,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// With everything there is; then, where asked for, a bookmark that says that this was all.
    State { marked: bool },
    /// With what changed after this revision.
    After(u64),
}

/// What a client wants to watch.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) selection: Selection,
    pub(crate) form: Form,
    pub(crate) beginning: Beginning,
    pub(crate) bookmarks: bool,
    pub(crate) lasts: Duration,
}

enum Phase {
    Initial { at: u64, after: Option<Key> },
    Following { seen: u64 },
    Over,
}

struct Watcher {
    store: Arc<Store>,
    newest: Receiver<u64>,
    wish: Wish,
    phase: Phase,
    /// A Table's columns are named once.
    headed: bool,
    ends: Instant,
    bookmark: Instant,
}

impl Selection {
    pub(crate) fn wants(&self, object: &Object) -> bool {
        self.labels.matches(&object.value)
            && (self.fields.is_empty() || self.fields.matches(&self.resource.show(&object.value)))
    }
}

/// The answer to a watch, piece by piece.
pub(crate) fn watch(store: Arc<Store>, wish: Wish) -> impl Stream<Item = Bytes> + Send {
    let newest = store.subscribe();
    let phase = match wish.beginning {
        Beginning::State { .. } => Phase::Initial {
            at: store.state().revision,
            after: None,
        },
        Beginning::After(seen) => Phase::Following { seen },
    };
    let ends = Instant::now() + wish.lasts;
    let bookmark = Instant::now() + limits::BOOKMARK_EVERY;
    let watcher = Watcher {
        store,
        newest,
        wish,
        phase,
        headed: false,
        ends,
        bookmark,
    };
    futures::stream::unfold(watcher, |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((piece, watcher))
    })
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let mut piece = String::new();
            match &self.phase {
                Phase::Over => return None,
                Phase::Initial { at, after } => {
                    let (at, after) = (*at, after.clone());
                    self.initial(at, after.as_ref(), &mut piece);
                }
                Phase::Following { seen } => {
                    let seen = *seen;
                    // Marked as seen before looking, so that a change in between wakes us up again.
                    self.newest.borrow_and_update();
                    let changes = self.store.state().history.since(seen, limits::WATCH_BATCH);
                    match changes {
                        Ok(changes) if changes.is_empty() => self.wait(seen, &mut piece).await,
                        Ok(changes) => self.follow(&changes, &mut piece),
                        Err(old) => self.expire(seen, &old, &mut piece),
                    }
                }
            }
            if !piece.is_empty() {
                return Some(Bytes::from(piece));
            }
        }
    }

    fn initial(&mut self, at: u64, after: Option<&Key>, piece: &mut String) {
        let selection = &self.wish.selection;
        let wants = |object: &Object| selection.wants(object);
        let page = self
            .store
            .state()
            .page(&selection.prefix, after, limits::WATCH_BATCH, Some(at), wants);
        let page = match page {
            Ok(page) => page,
            Err(old) => return self.expire(at, &old, piece),
        };
        for object in &page.objects {
            self.event("ADDED", &object.value, piece);
        }
        self.phase = match page.objects.last().filter(|_| page.remaining > 0) {
            Some(last) => Phase::Initial {
                at,
                after: Some(last.key.clone()),
            },
            None => {
                if self.wish.beginning == (Beginning::State { marked: true }) {
                    self.bookmark(at, true, piece);
                }
                Phase::Following { seen: at }
            }
        };
    }

    fn follow(&mut self, changes: &[Arc<Change>], piece: &mut String) {
        for change in changes {
            if let Some(what) = self.wish.selection.sees(change) {
                self.event(what, &change.shown.value, piece);
            }
            self.phase = Phase::Following {
                seen: change.revision,
            };
        }
    }

    /// Until something changes, a bookmark is due, or the time is up.
    async fn wait(&mut self, seen: u64, piece: &mut String) {
        tokio::select! {
            changed = self.newest.changed() => {
                if changed.is_err() {
                    self.phase = Phase::Over;
                }
            }
            () = tokio::time::sleep_until(self.bookmark), if self.wish.bookmarks => {
                self.bookmark = Instant::now() + limits::BOOKMARK_EVERY;
                self.bookmark(seen, false, piece);
            }
            () = tokio::time::sleep_until(self.ends) => self.phase = Phase::Over,
        }
    }

    fn expire(&mut self, seen: u64, old: &TooOld, piece: &mut String) {
        let failure = Failure::expired(format!("too old resource version: {seen} ({})", old.floor));
        line("ERROR", &failure.to_value(), piece);
        self.phase = Phase::Over;
    }

    fn event(&mut self, what: &str, stored: &Value, piece: &mut String) {
        let resource = &self.wish.selection.resource;
        match self.wish.form {
            Form::Whole => line(what, &resource.show(stored), piece),
            Form::Metadata => line(what, &table::metadata_only(stored), piece),
            Form::Table(include) => {
                let version = stored
                    .pointer("/metadata/resourceVersion")
                    .cloned()
                    .unwrap_or_default();
                let metadata = json!({ "resourceVersion": version });
                let table = table::table(
                    resource,
                    std::iter::once(stored),
                    &metadata,
                    include,
                    !self.headed,
                );
                self.headed = true;
                line(what, &table, piece);
            }
        }
    }

    fn bookmark(&mut self, revision: u64, end_of_state: bool, piece: &mut String) {
        let resource = &self.wish.selection.resource;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end_of_state {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.wish.form {
            Form::Whole => {
                json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata})
            }
            Form::Metadata => table::metadata_only(&json!({ "metadata": metadata })),
            Form::Table(include) => table::table(resource, std::iter::empty(), &metadata, include, false),
        };
        line("BOOKMARK", &object, piece);
    }
}

impl Selection {
    /// What a change means to one who sees only the selected objects: an object may come into sight, or out of it.
    fn sees(&self, change: &Change) -> Option<&'static str> {
        if !self.prefix.covers(&change.key) {
            return None;
        }
        let was = change.before.as_ref().is_some_and(|object| self.wants(object));
        let is = change.after.as_ref().is_some_and(|object| self.wants(object));
        match (was, is) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }
}

fn line(what: &str, object: &Value, piece: &mut String) {
    // Written by hand, since `json!` would copy the object.
    piece.push_str(&format!("{{\"type\":\"{what}\",\"object\":{object}}}\n"));
}

#[cfg(test)]
mod tests;
