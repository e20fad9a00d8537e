//! The way of a machine to where it runs, as it is told to who waits for it.

use anyhow::{Context, Result, bail};
use rvm_types::condition::find;
use rvm_types::names::conditions::SYNCHRONIZED;
use rvm_types::{Phase, VirtualMachineInstance};
use serde_json::Value;
use std::time::Duration;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::screen::Bar;

/// Between two looks at a machine.
const AGAIN: Duration = Duration::from_millis(500);

/// What was said of a machine on its way.
pub(super) struct Story {
    bar: Bar,
    said: Option<Phase>,
    explained: String,
}

impl Story {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            bar: Bar::new()?,
            said: None,
            explained: String::new(),
        })
    }

    /// Says what is new, and whether the machine runs, or has run.
    pub(super) fn has_come_to_run(&mut self, name: &str, vmi: &VirtualMachineInstance) -> Result<bool> {
        let phase = vmi.phase().cloned();
        let is_there = matches!(phase, Some(Phase::Running | Phase::Succeeded));
        let word = phase.as_ref().map_or("Pending", Phase::as_str);
        if is_there {
            self.bar.keep(&format!("{name}: {word}"));
            return Ok(true);
        }
        if phase == Some(Phase::Failed) {
            self.bar.keep(&format!("{name}: {word}"));
            bail!("{name} has failed{}", because(vmi));
        }
        if phase != self.said {
            self.bar.say(&format!("{name}: {word}"));
        }
        // How far a pull is, or what keeps it from starting; why it failed is said at the end.
        let why = because(vmi);
        if why != self.explained {
            self.explained = why;
            match pulled(&self.explained).filter(|_| self.bar.is_shown()) {
                Some((what, have, total)) => self.bar.show(&format!("{name}: {what}"), have, total),
                None if self.explained.is_empty() => {}
                None => self.bar.say(&format!("{name}{}", self.explained)),
            }
        }
        self.said = phase;
        Ok(false)
    }
}

/// Looks until the machine at this path runs, or has run; says on the way where it is. One that is yet to be made is waited for, too, where
/// that is so.
pub(super) async fn until_it_runs(cluster: &Cluster, name: &str, path: &str, is_to_come: bool) -> Result<()> {
    let mut story = Story::new()?;
    let mut was_there = !is_to_come;
    loop {
        match cluster.find(path).await? {
            Some(object) => {
                if story.has_come_to_run(name, &parse(object)?)? {
                    return Ok(());
                }
                was_there = true;
            }
            None if was_there => bail!("{name} was deleted meanwhile"),
            None => {}
        }
        sleep(AGAIN).await;
    }
}

fn parse(object: Value) -> Result<VirtualMachineInstance> {
    serde_json::from_value(object).context("the server sent an object that cannot be understood")
}

/// Why a machine has failed, or does not yet run, in as many words as its status has.
fn because(vmi: &VirtualMachineInstance) -> String {
    let Some(status) = &vmi.status else {
        return String::new();
    };
    let message = find(&status.conditions, SYNCHRONIZED).filter(|condition| !condition.is_true());
    let why = message
        .and_then(|condition| condition.message.clone())
        .or_else(|| status.reason.clone());
    why.filter(|why| !why.is_empty())
        .map(|why| format!(": {why}"))
        .unwrap_or_default()
}

/// What is pulled, and how many bytes of how many are here: a handler says `Pulling image "a:1": 12 of 50 MiB`.
fn pulled(why: &str) -> Option<(&str, u64, u64)> {
    let (what, far) = why.trim_start_matches(": ").rsplit_once(": ")?;
    let (have, total) = far.strip_suffix(" MiB")?.split_once(" of ")?;
    let mebibytes = |number: &str| Some(number.parse::<u64>().ok()?.saturating_mul(1 << 20));
    Some((what, mebibytes(have)?, mebibytes(total)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_pull_is_can_be_read_from_a_status() {
        let far = pulled(": Pulling image \"r:5000/a:1\": 12 of 50 MiB");
        assert_eq!(far, Some(("Pulling image \"r:5000/a:1\"", 12 << 20, 50 << 20)));
        assert_eq!(pulled(": Failed to pull image \"a:1\": no route"), None);
        assert_eq!(pulled(""), None);
    }
}
