//! Memory that a running VMM has besides its guest's, by the rule of Firecracker's memory monitor: the sum of `Rss` over
//! every mapping that is not guest RAM.

use anyhow::{Result, ensure};

const KIB: u64 = 1024;

/// Bytes that the process with these `smaps` has in memory besides its guest's RAM of `memory_mib`.
pub fn besides_guest_ram(smaps: &str, memory_mib: u32) -> Result<u64> {
    let ram = u64::from(memory_mib) * KIB * KIB;
    let mappings = mappings(smaps);
    // Guest RAM has no name that every kernel shows, but nothing else is just that large.
    let (guest, besides): (Vec<Mapping>, Vec<_>) = mappings.iter().partition(|mapping| mapping.size == ram);
    ensure!(
        guest.len() == 1,
        "{} mappings look like guest RAM: {mappings:?}",
        guest.len()
    );
    Ok(besides.iter().map(|mapping| mapping.rss).sum())
}

/// One mapping, as `smaps` tells of it, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mapping {
    size: u64,
    rss: u64,
}

/// A mapping starts with a line that begins with its range, and has a line for each of its numbers.
fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match (fields.as_slice(), mappings.last_mut()) {
            (["Size:", kib, "kB"], Some(mapping)) => mapping.size = kib.parse().unwrap_or(0) * KIB,
            (["Rss:", kib, "kB"], Some(mapping)) => mapping.rss = kib.parse().unwrap_or(0) * KIB,
            ([range, _, ..], _) if range.contains('-') => mappings.push(Mapping::default()),
            _ => {}
        }
    }
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00010000-00110000 r-xp 00000000 00:02 1234                       /usr/local/bin/rvmm
Size:               1024 kB
KernelPageSize:        4 kB
Rss:                 600 kB
Pss:                 600 kB
VmFlags: rd ex mr mw me
3f70000000-3f78000000 rw-p 00000000 00:00 0
Size:             131072 kB
Rss:               70000 kB
3f7a000000-3f7a021000 rw-p 00000000 00:00 0                      [heap]
Size:                132 kB
Rss:                  16 kB
";

    #[test]
    fn everything_but_guest_ram_counts() {
        assert_eq!(besides_guest_ram(SMAPS, 128).unwrap(), 616 * KIB);
    }

    #[test]
    fn a_process_in_which_guest_ram_is_not_found_has_no_figure() {
        let split = SMAPS.replace("131072 kB", "131068 kB");
        let error = besides_guest_ram(&split, 128).unwrap_err();
        assert!(
            error.to_string().starts_with("0 mappings look like guest RAM"),
            "{error}"
        );
    }
}
