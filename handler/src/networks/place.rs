//! The namespaces in which a machine's rvmm is started.

use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where a machine's rvmm has to be to find its tap.
#[derive(Debug)]
pub struct Place {
    /// The network namespace.
    pub network: OwnedFd,
    /// The user namespace to enter before, if that is not the host's.
    pub user: Option<OwnedFd>,
}

// === impl Place ===

impl Place {
    /// Has this thread be there. Neither allocates nor locks.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(&self) -> rustix::io::Result<()> {
        if let Some(user) = &self.user {
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?;
        }
        move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))
    }
}
