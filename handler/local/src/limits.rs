//! Every bound that keeps a hostile or a broken client from costing more than its share, in one place.

use std::time::Duration;

/// Longest request body: what kube-apiserver takes.
pub const BODY_BYTES: usize = 3 << 20;

/// Longest object, as JSON: etcd's own limit, so that what local mode keeps a cluster keeps as well.
pub const OBJECT_BYTES: usize = 3 << 19;

/// Deepest nesting of an object (the JSON parser stops at 128).
pub const NESTING: usize = 100;

/// Most objects in the store, events included.
pub const OBJECTS: usize = 50_000;

/// Most bytes of objects in the store (they are held in memory as well).
pub const STORE_BYTES: usize = 128 << 20;

/// Most changes kept for watchers to catch up on: a watcher that falls further behind gets `410 Gone`.
/// This is also every watcher's queue; there is no other.
pub const HISTORY_CHANGES: usize = 4096;

/// Most bytes of objects that the history may pin.
pub const HISTORY_BYTES: usize = 32 << 20;

/// Changes (or objects of the first state) turned into one piece of a watch's answer.
pub const WATCH_BATCH: usize = 64;

/// A watch without `timeoutSeconds` ends after this time, and no watch lasts longer than `WATCH_LONGEST`.
pub const WATCH_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// The longest `timeoutSeconds` that is honoured.
pub const WATCH_LONGEST: Duration = Duration::from_secs(60 * 60);

/// How often a quiet watch that asked for bookmarks gets one.
pub const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Most objects on one page of a list whose client asked for pages.
pub const LIST_PAGE: usize = 1000;

/// Longest label or field selector, in bytes.
pub const SELECTOR_BYTES: usize = 16 << 10;

/// Most requirements in one selector.
pub const SELECTOR_REQUIREMENTS: usize = 256;

/// Longest `continue` token, in bytes.
pub const CONTINUE_BYTES: usize = 2 << 10;

/// Most operations in one JSON patch, and most bytes its `copy` operations may add.
pub const JSON_PATCH_OPERATIONS: usize = 10_000;
/// Bytes of JSON that all `copy` operations of one patch may make.
pub const JSON_PATCH_COPIED_BYTES: usize = 3 << 20;

/// Most writers that are remembered for the fields of one object, besides those who applied them.
pub const FIELD_MANAGERS: usize = 10;

/// Longest name of who writes, in bytes.
pub const MANAGER_BYTES: usize = 128;

/// Most items of one list that a strategic merge patch merges.
pub const PATCHED_ITEMS: usize = 1000;

/// Most bytes of annotations on one object: Kubernetes' limit.
pub const ANNOTATION_BYTES: usize = 256 << 10;

/// Most causes listed in one refusal; what is beyond is counted only.
pub const CAUSES: usize = 64;

/// Most connections at once, and how long each step of one may take.
pub const CONNECTIONS: usize = 512;
/// Time for the TLS handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for a request's head: what a client that sends a byte now and then runs into.
pub const REQUEST_HEAD: Duration = Duration::from_secs(30);
/// Time for a request's body.
pub const REQUEST_BODY: Duration = Duration::from_secs(30);
/// A connection whose client takes nothing for this long is closed.
pub const WRITE_STALL: Duration = Duration::from_secs(60);

/// How long an event is kept after it was last written, as in Kubernetes.
pub const EVENT_KEPT: Duration = Duration::from_secs(60 * 60);
