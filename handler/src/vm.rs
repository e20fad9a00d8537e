//! The two things that everything here speaks of: which VM, and what is seen of its machine on this node.

use std::fmt;

use jiff::Timestamp;
use rvm_types::VirtualMachineInstance;
use rvmm_control::{Ending, Info};
use serde::{Deserialize, Serialize};

/// Which VMI. The uid names files, so it is known to be a UUID; the other two are only ever shown and asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmId {
    /// Its namespace.
    pub namespace: String,
    /// Its name, which another VMI may have later.
    pub name: String,
    /// Its UID, which no other ever has.
    pub uid: String,
}

// === impl VmId ===

impl VmId {
    /// The VMI's identity; none for an object that no API server has made.
    pub fn of(vmi: &VirtualMachineInstance) -> Option<Self> {
        let meta = &vmi.metadata;
        let uid = meta.uid.as_deref().filter(|uid| is_uid(uid))?;
        Some(Self {
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            uid: uid.to_owned(),
        })
    }
}

/// Whether a text is a UUID as API servers write it: a file name that leads nowhere else.
pub fn is_uid(text: &str) -> bool {
    text.len() == uuid::fmt::Hyphenated::LENGTH && uuid::Uuid::try_parse(text).is_ok()
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is seen of a VM's machine on this node, read from its run directory and never remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Machine {
    /// No run directory.
    Absent,
    /// A run directory that no rvmm was ever started in, and none is about to.
    Prepared,
    /// An rvmm was started, at this time, and does not hold its run directory yet.
    Launching(Timestamp),
    /// An rvmm holds its run directory, and its control socket does not answer (yet).
    Silent,
    /// An rvmm answers.
    Alive(Box<Info>),
    /// It is over, and said how.
    Ended(Ending),
    /// It ran and is gone without a word: killed, or the host went down.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_uuid_names_a_run_directory() {
        assert!(is_uid("6f9619ff-8b86-4d01-b42d-00cf4fc964ff"));
        assert!(!is_uid("../../../../etc/passwd"));
        assert!(!is_uid("6f9619ff8b864d01b42d00cf4fc964ff"));
        assert!(!is_uid(""));
    }
}
