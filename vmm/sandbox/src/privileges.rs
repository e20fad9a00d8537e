//! Rights of the process beyond those of its user: none, for good.

use std::io;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::SandboxError;

/// Gives up every capability and the ways to get new ones. From here on, root is a user whose files happen to be root's.
pub(crate) fn drop_all() -> Result<(), SandboxError> {
    let refused = |what| move |errno: Errno| SandboxError::Refused(what, io::Error::from(errno));
    set_no_new_privs(true).map_err(refused("new privileges cannot be ruled out"))?;
    // Other processes of this user may not look into this one, nor stop it with a debugger.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("debuggers cannot be kept out"))?;
    for capability in CapabilitySet::all() {
        match remove_capability_from_bounding_set(capability) {
            // Not root: what is bounded has nothing in it that could be had. Or a capability that this kernel has not.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(errno) => return Err(refused("the bounding set cannot be emptied")(errno)),
        }
    }
    clear_ambient_capability_set().map_err(refused("ambient capabilities cannot be dropped"))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(refused("capabilities cannot be dropped"))
}
