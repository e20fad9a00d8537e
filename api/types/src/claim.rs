//! Who has taken a VMI: the annotation `NODE/HANDLER/UID`.
//!
//! Nobody can write one into a manifest that is believed, since the API server chooses the UID. How claims are made and lost, the
//! handler says (`handler/src/claim.rs`).

use crate::VirtualMachineInstance;
use crate::names::annotations;

/// Who has taken a VMI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The node.
    pub node: &'a str,
    /// The id of its handler.
    pub handler: &'a str,
}

// === impl Claim ===

impl<'a> Claim<'a> {
    /// The claim on a VMI; none where there is none, or where it was made on another VMI.
    pub fn on(vmi: &'a VirtualMachineInstance) -> Option<Self> {
        let annotations = vmi.metadata.annotations.as_ref()?;
        let mut parts = annotations.get(annotations::CLAIM)?.split('/');
        let (node, handler, uid) = (parts.next()?, parts.next()?, parts.next()?);
        let own = vmi.metadata.uid.as_deref()? == uid && parts.next().is_none();
        own.then_some(Self { node, handler })
    }
}
