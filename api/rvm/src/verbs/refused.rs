//! Why rvm does not have a command of virtctl, and what to do instead. No server is asked.

use anyhow::{Error, anyhow};

use crate::args::RefusedVerb;

const STAYS: &str = "rvm does not migrate: a machine stays on its node until it ends; `rvm stop` and `rvm start` have its node chosen anew";

pub fn because(verb: &RefusedVerb) -> Error {
    let (name, why) = match verb {
        RefusedVerb::Usbredir(_) => (
            "usbredir",
            "rvm's machines have no USB; `rvm scp` copies files to a guest",
        ),
        RefusedVerb::MemoryDump(_) => ("memory-dump", "rvm does not write a guest's memory to volumes"),
        RefusedVerb::Guestfs(_) => (
            "guestfs",
            "rvm has no pod that opens volumes; boot a machine with the volume and use `rvm console` or `rvm ssh`",
        ),
        RefusedVerb::Adm(_) => ("adm", "rvm does not set its log levels by the KubeVirt object"),
        RefusedVerb::ImageUpload(_) => (
            "image-upload",
            "rvm does not use CDI; push the disk as an image to a registry and name it as a containerDisk",
        ),
        RefusedVerb::Vmexport(_) => ("vmexport", "rvm does not export volumes"),
        RefusedVerb::Migrate(_) => ("migrate", STAYS),
        RefusedVerb::MigrateCancel(_) => ("migrate-cancel", STAYS),
        RefusedVerb::EvacuateCancel(_) => ("evacuate-cancel", STAYS),
        RefusedVerb::Objectgraph(_) => (
            "objectgraph",
            "rvm does not follow what objects refer to; `rvm expand` prints a VirtualMachine in full",
        ),
        RefusedVerb::Template(_) => ("template", "rvm has no templates of machines"),
    };
    anyhow!("{name} is not there: {why}")
}
