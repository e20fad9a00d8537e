//! Objects that are kept for a while only, such as events, go when they are old: whenever a new one comes.

use crate::batch::Batch;
use crate::object::{Key, Object};
use crate::resource::Resource;

/// Most objects removed along with one write, so that no write takes long.
const AT_ONCE: usize = 64;

/// Stages the removal of old objects of this kind.
pub(crate) fn sweep(batch: &mut Batch<'_>, resource: &Resource) {
    let Some(kept) = resource.kept else {
        return;
    };
    let prefix = resource.prefix();
    let old =
        |object: &&std::sync::Arc<Object>| prefix.covers(&object.key) && object.written.elapsed() > kept;
    let keys: Vec<Key> = batch
        .all()
        .filter(old)
        .take(AT_ONCE)
        .map(|object| object.key.clone())
        .collect();
    for key in keys {
        batch.remove(&key, None);
    }
}
