//! Which addresses of machines are taken. The disk says it, in the plan of each machine's run directory; what was read there once is
//! remembered for as long as the plan is there, since a thousand would be read for each new machine.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use super::client::PLAN;
use super::range::Range;

/// The addresses that are known, by the UIDs of their machines.
#[derive(Debug, Default)]
pub(super) struct Addresses(HashMap<String, Ipv4Addr>);

// === impl Addresses ===

impl Addresses {
    /// Looks which plans are there, and has those read that are new.
    pub(super) fn look(&mut self, run: &Path, read: impl Fn(&Path) -> Option<Ipv4Addr>) -> io::Result<()> {
        let mut there = HashMap::new();
        for entry in fs::read_dir(run)?.flatten() {
            let Ok(uid) = entry.file_name().into_string() else {
                continue;
            };
            let path = entry.path().join(PLAN);
            let address = match self.0.get(&uid) {
                Some(address) if path.exists() => Some(*address),
                // What is no plan of ours is nobody's network.
                _ => read(&path),
            };
            there.extend(address.map(|address| (uid, address)));
        }
        self.0 = there;
        Ok(())
    }

    /// The number of an address for this machine: what it had, or one that nobody has, near to what its UID says.
    pub(super) fn free(&self, uid: &str, had: Option<Ipv4Addr>, range: Range) -> Option<u32> {
        let others = self.0.iter().filter(|(other, _)| *other != uid);
        let taken: HashSet<Ipv4Addr> = others.map(|(_, address)| *address).collect();
        let pods = range.pods();
        let start = u32::from_str_radix(uid.get(..8).unwrap_or_default(), 16).unwrap_or(0) % pods;
        let is_free = |index: &u32| !taken.contains(&range.pod(*index).v4);
        let again = (0..pods).find(|index| Some(range.pod(*index).v4) == had && is_free(index));
        again.or_else(|| (0..pods).map(|step| (start + step) % pods).find(is_free))
    }

    /// A machine is about to have another one, or none.
    pub(super) fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// A machine's is on the disk.
    pub(super) fn note(&mut self, uid: &str, address: Ipv4Addr) {
        self.0.insert(uid.to_owned(), address);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_plan_is_read_once_and_its_address_is_free_when_it_is_gone() {
        let run = tempfile::tempdir().unwrap();
        let range: Range = "10.244.0.0/29".parse().unwrap();
        let address = range.pod(3).v4;
        fs::create_dir(run.path().join("one")).unwrap();
        fs::write(run.path().join("one").join(PLAN), address.to_string()).unwrap();
        fs::write(run.path().join("network.log"), "").unwrap();
        let reads = Cell::new(0);
        let read = |path: &Path| {
            reads.set(reads.get() + 1);
            fs::read_to_string(path).ok()?.parse().ok()
        };
        let mut addresses = Addresses::default();
        addresses.look(run.path(), read).unwrap();
        let first = reads.get();
        addresses.look(run.path(), read).unwrap();
        // Only what is no plan is looked at again.
        assert_eq!(reads.get(), first + 1);

        // The UID of the other says 3, which is taken; its own it may keep.
        assert_eq!(addresses.free("00000003-two", None, range), Some(4));
        assert_eq!(addresses.free("one", Some(address), range), Some(3));
        fs::remove_file(run.path().join("one").join(PLAN)).unwrap();
        addresses.look(run.path(), read).unwrap();
        assert_eq!(addresses.free("00000003-two", None, range), Some(3));
    }

    #[test]
    fn when_all_are_taken_there_is_none() {
        let range: Range = "10.244.0.0/29".parse().unwrap();
        let mut addresses = Addresses::default();
        for index in 0..range.pods() {
            addresses.note(&index.to_string(), range.pod(index).v4);
        }
        assert_eq!(addresses.free("another", None, range), None);
        addresses.forget("0");
        assert_eq!(addresses.free("another", None, range), Some(0));
    }
}
