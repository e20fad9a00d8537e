//! Folders of the host that the guest mounts, served by a process of their own (virtiofsd).

use std::path::{Path, PathBuf};

use crate::error::SpecError;
use crate::limits::{MAX_SHARE_TAG, MAX_SOCKET_PATH};

/// A file system that whoever listens on a Unix socket serves, in the vhost-user protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    tag: String,
    socket: PathBuf,
}

// === impl Share ===

impl Share {
    /// The guest mounts it by its tag: `mount -t virtiofs TAG /mnt`.
    ///
    /// # Errors
    /// A tag that no driver could read whole, or a path that no socket can have.
    pub fn new(tag: impl Into<String>, socket: impl Into<PathBuf>) -> Result<Self, SpecError> {
        let (tag, socket) = (tag.into(), socket.into());
        let tag_ok = (1..=MAX_SHARE_TAG).contains(&tag.len()) && !tag.chars().any(char::is_control);
        if !tag_ok {
            return Err(SpecError::ShareTag(tag));
        }
        if !(1..=MAX_SOCKET_PATH).contains(&socket.as_os_str().len()) {
            return Err(SpecError::SharePath(socket));
        }
        Ok(Self { tag, socket })
    }

    /// What the guest calls it.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Where its server listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Each has a name and a server of its own, a server that can see guest RAM.
pub(crate) fn check(shares: &[Share], memory_is_shared: bool) -> Result<(), SpecError> {
    for (index, share) in shares.iter().enumerate() {
        if shares[..index].iter().any(|other| other.tag == share.tag) {
            return Err(SpecError::ShareTwice(share.tag.clone()));
        }
        if shares[..index].iter().any(|other| other.socket == share.socket) {
            return Err(SpecError::ShareSocketTwice(share.socket.clone()));
        }
        if !memory_is_shared {
            return Err(SpecError::ShareMemory(share.tag.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, MemoryBacking, Spec, SpecBuilder};

    fn built<const N: usize>(shares: [Share; N], shared: bool) -> Result<Spec, SpecError> {
        let backing = MemoryBacking {
            shared,
            ..MemoryBacking::default()
        };
        let wish = Spec::builder(Boot::new("Image")).memory_backing(backing);
        shares.into_iter().fold(wish, SpecBuilder::share).build()
    }

    #[test]
    fn a_tag_is_one_that_a_driver_reads_whole() {
        assert!(Share::new("t".repeat(MAX_SHARE_TAG), "/s").is_ok());
        for tag in [String::new(), "t".repeat(MAX_SHARE_TAG + 1), "a\0".to_owned()] {
            assert_eq!(Share::new(&tag, "/s"), Err(SpecError::ShareTag(tag)));
        }
        let long = PathBuf::from("x".repeat(MAX_SOCKET_PATH + 1));
        assert_eq!(Share::new("t", &long), Err(SpecError::SharePath(long.clone())));
    }

    #[test]
    fn a_share_needs_memory_that_its_server_can_see_and_a_name_of_its_own() {
        let share = Share::new("data", "/s").unwrap();
        assert_eq!(
            built([share.clone()], false),
            Err(SpecError::ShareMemory("data".to_owned()))
        );
        assert_eq!(
            built([share.clone(), share.clone()], true),
            Err(SpecError::ShareTwice("data".to_owned()))
        );
        let other = Share::new("other", "/s").unwrap();
        assert_eq!(
            built([share.clone(), other], true),
            Err(SpecError::ShareSocketTwice("/s".into()))
        );
        assert_eq!(built([share.clone()], true).unwrap().shares(), [share]);
    }
}
