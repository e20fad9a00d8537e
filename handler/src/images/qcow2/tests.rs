//! What is promised of qcow2 disks: whole ones pass, and each that is not is refused by its own words.

use super::*;
use std::io::Write;

/// The smallest sound image: header, first table, one second table, one cluster of data; clusters of 512 bytes.
struct Sample(Vec<u8>);

impl Sample {
    fn new() -> Self {
        let mut sample = Self(vec![0; 4 * 512]);
        sample.0[..4].copy_from_slice(&MAGIC);
        sample
            .word(4, 3)
            .word(20, 9)
            .long(24, 32768)
            .word(36, 1)
            .long(40, 512)
            .word(100, 104)
            .long(512, 1024 | 1 << 63)
            .long(1024, 1536 | 1 << 63);
        sample
    }

    fn word(&mut self, at: usize, value: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn long(&mut self, at: usize, value: u64) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn said(&self) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&self.0).unwrap();
        check(&file).map_or_else(|error| error.to_string(), |()| "sound".to_owned())
    }

    fn cut(&self, length: usize) -> String {
        Self(self.0[..length].to_vec()).said()
    }
}

#[test]
fn a_whole_disk_passes_also_if_its_last_cluster_ends_early() {
    let sample = Sample::new();
    assert_eq!(sample.said(), "sound");
    assert_eq!(sample.cut(1537), "sound");
    assert_eq!(Sample::new().word(4, 2).said(), "sound");
}

#[test]
fn a_disk_that_ends_before_what_it_points_to_is_truncated() {
    let sample = Sample::new();
    assert_eq!(sample.cut(1536), "the qcow2 disk is truncated");
    assert_eq!(sample.cut(1100), "the qcow2 disk is truncated");
    assert_eq!(sample.cut(515), "the qcow2 disk is truncated");
    assert_eq!(sample.cut(80), "the qcow2 disk is truncated");
    let compressed = Sample::new().long(1024, COMPRESSED | 4096).said();
    assert_eq!(compressed, "the qcow2 disk is truncated");
}

#[test]
fn a_disk_that_stands_on_another_file_is_refused() {
    let backed = Sample::new().long(8, 200).word(16, 11).said();
    assert!(
        backed.starts_with("the qcow2 disk has a backing file"),
        "{backed}"
    );
    let external = Sample::new().long(72, EXTERNAL_DATA).said();
    assert!(
        external.starts_with("the qcow2 disk has an external data file"),
        "{external}"
    );
}

#[test]
fn what_cannot_be_is_refused_and_costs_nothing() {
    assert_eq!(Sample::new().word(20, 40).said(), "the qcow2 disk is corrupt");
    assert_eq!(
        Sample::new().word(36, u32::MAX).said(),
        "the qcow2 disk is corrupt"
    );
    assert_eq!(
        Sample::new().long(40, u64::MAX - 3).said(),
        "the qcow2 disk is corrupt"
    );
    assert_eq!(
        Sample::new().long(72, CORRUPT).said(),
        "the qcow2 disk is corrupt"
    );
    assert_eq!(Sample::new().word(32, 2).said(), "the qcow2 disk is encrypted");
    assert_eq!(
        Sample::new().word(4, 9).said(),
        "the qcow2 disk is of version 9; 2 and 3 are supported"
    );
    // The same table over and over.
    let mut endless = Sample::new();
    (0..64).fold(endless.word(36, 64), |sample, entry| {
        sample.long(512 + entry * 8, 1024)
    });
    assert_eq!(endless.said(), "the qcow2 disk is corrupt");
}

#[test]
fn a_disk_is_known_by_its_beginning() {
    let mut file = tempfile::tempfile().unwrap();
    assert!(!is_one(&file).unwrap());
    file.write_all(&MAGIC).unwrap();
    assert!(is_one(&file).unwrap());
}
