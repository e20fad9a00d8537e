//! Layout of the file system device: queues and config space (5.11.2, 5.11.4).

/// High-priority requests, then one queue of all others.
pub(super) const QUEUES: usize = 2;
/// Those others' queues.
const REQUEST_QUEUES: u32 = 1;
/// What virtiofsd takes at most.
pub(super) const QUEUE_SIZES: [u16; QUEUES] = [1024; QUEUES];

const TAG_LEN: usize = 36;
/// The tag, then how many request queues there are.
pub(super) const CONFIG_LEN: usize = TAG_LEN + 4;

/// The tag has zeros behind it, or fills its field.
pub(super) fn config(tag: &str) -> [u8; CONFIG_LEN] {
    let mut config = [0; CONFIG_LEN];
    for (to, from) in config.iter_mut().zip(tag.bytes().take(TAG_LEN)) {
        *to = from;
    }
    config[TAG_LEN..].copy_from_slice(&REQUEST_QUEUES.to_le_bytes());
    config
}
