//! Network namespaces: made, entered and left by the one thread of the keeper.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Where a thread sees its own.
const NETWORK: &str = "/proc/thread-self/ns/net";
const USER: &str = "/proc/thread-self/ns/user";

/// A network namespace. It lives for as long as this, a process in it, or a socket of it.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

/// A namespace cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// A user who may not have one.
    #[error(
        "this user may have no user namespaces, which networks need without root: allow them (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns), or run rvm-handler as root"
    )]
    User(#[source] io::Error),
    /// Anything else.
    #[error("no network namespace can be made")]
    Network(#[source] io::Error),
    /// A kernel whose rules do not see what a bridge carries.
    #[error(
        "NetworkPolicies for an interface with the binding bridge need the kernel's module br_netfilter: load it, or bind the \
         interface by masquerade"
    )]
    Bridges(#[source] io::Error),
    /// A setting of the kernel.
    #[error("'{0}' cannot be set")]
    Setting(String, #[source] io::Error),
}

// === impl Namespace ===

impl Namespace {
    /// The one that this thread is in.
    ///
    /// # Errors
    /// [`NamespaceError::Network`].
    pub fn current() -> Result<Self, NamespaceError> {
        let file = File::open(NETWORK).map_err(NamespaceError::Network)?;
        Ok(Self(file.into()))
    }

    /// Makes a new one, and goes there.
    ///
    /// # Errors
    /// [`NamespaceError::Network`].
    pub fn enter_new() -> Result<Self, NamespaceError> {
        unshare(UnshareFlags::NEWNET).map_err(NamespaceError::Network)?;
        Self::current()
    }

    /// Goes there.
    ///
    /// # Errors
    /// [`NamespaceError::Network`].
    pub fn enter(&self) -> Result<(), NamespaceError> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| NamespaceError::Network(error.into()))
    }
}

impl From<File> for Namespace {
    /// One that was opened elsewhere.
    fn from(file: File) -> Self {
        Self(file.into())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Becomes the root of a user namespace of its own, in which nobody but this user is.
///
/// # Errors
/// [`NamespaceError::User`].
pub fn become_own_root() -> Result<OwnedFd, NamespaceError> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(UnshareFlags::NEWUSER).map_err(NamespaceError::User)?;
    let map = |id: u32| format!("0 {id} 1");
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", map(user.as_raw())))
        .and_then(|()| fs::write("/proc/self/gid_map", map(group.as_raw())))
        .and_then(|()| File::open(USER))
        .map(OwnedFd::from)
        .map_err(NamespaceError::User)
}

/// Sets a setting of the network namespace that this thread is in.
///
/// # Errors
/// [`NamespaceError::Setting`].
pub fn set(setting: &str, value: &str) -> Result<(), NamespaceError> {
    let path = format!("/proc/sys/net/{setting}");
    fs::write(&path, value).map_err(|error| NamespaceError::Setting(path, error))
}

/// Has what bridges of the network namespace that this thread is in carry pass the rules for packets.
///
/// # Errors
/// [`NamespaceError::Bridges`].
pub fn filter_bridges() -> Result<(), NamespaceError> {
    for setting in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let path = format!("/proc/sys/net/bridge/{setting}");
        fs::write(path, "1").map_err(NamespaceError::Bridges)?;
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "which is unsafe where it is about descriptors, as it is not here"
)]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the table of descriptors is not among what is no longer shared.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}
