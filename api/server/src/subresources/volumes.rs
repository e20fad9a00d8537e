//! Volumes that come and go while a machine runs: refused, as KubeVirt refuses them where that is switched off.
//!
//! rvmm can plug disks (`rvmm ctl add-disk`), but only on PCI, and no guest is told of them: see ARCHITECTURE.md.

use super::answer::Refused;

const WHY: &str = "rvm plugs no volumes into machines that run yet; write the volume into the manifest and start the machine again";

/// `PUT …/addvolume`
pub(super) async fn add() -> Refused {
    refused("Add")
}

/// `PUT …/removevolume`
pub(super) async fn remove() -> Refused {
    refused("Remove")
}

fn refused(what: &str) -> Refused {
    Refused::bad_request(format!(
        "Unable to {what} Volume because HotplugVolumes feature gate is not enabled. {WHY}"
    ))
}
