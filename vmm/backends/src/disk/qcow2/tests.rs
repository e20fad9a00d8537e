//! Hostile images: each ends in one clear error, or in a disk some of whose requests fail; never in a panic, a hang, or
//! another file.

use std::fs::OpenOptions;
use std::path::PathBuf;

use proptest::prelude::*;
use rvmm_devices::virtio::blk::BlockBackend;
use vm_memory::VolatileSlice;

use super::*;
use crate::disk::image::ImageDisk;
use crate::disk::tests::qcow2;

const CLUSTER: usize = 4096;
const SIZE: u64 = 2 << 20;

/// A good image with some data in it.
fn good() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    qcow2(&path, SIZE, CLUSTER);
    let mut disk = ImageDisk::qcow2(open(&path), true, false, None).unwrap();
    let mut bytes = vec![7; 3 * CLUSTER];
    disk.write_at(10_000, &[VolatileSlice::from(&mut bytes[..])])
        .unwrap();
    disk.flush().unwrap();
    (folder, path)
}

fn open(path: &std::path::Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// What is said of the image with these bytes put at these places.
fn verdict(changes: &[(u64, &[u8])]) -> String {
    let (_folder, path) = good();
    let file = open(&path);
    changes
        .iter()
        .for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
    let len = file.metadata().unwrap().len();
    check(&file, len).map_or_else(|error| error.to_string(), |()| "good".to_owned())
}

#[test]
fn an_image_that_is_complete_is_good() {
    assert_eq!(verdict(&[]), "good");
}

#[test]
fn what_is_no_qcow2_or_another_one_is_named() {
    assert_eq!(verdict(&[(0, b"QFI\xfa")]), "it is no qcow2 image");
    assert_eq!(
        verdict(&[(4, &4u32.to_be_bytes())]),
        "version 4 is not supported; 2 and 3 are"
    );
    let empty = tempfile::tempfile().unwrap();
    assert_eq!(
        check(&empty, 0).unwrap_err().to_string(),
        "it ends before its header does"
    );
}

#[test]
fn another_file_is_never_opened_and_is_named() {
    let name = b"/etc/shadow\x1b[2J";
    let backing = [
        (8, &0x400u64.to_be_bytes()[..]),
        (16, &15u32.to_be_bytes()),
        (0x400, name),
    ];
    assert_eq!(
        verdict(&backing),
        "it needs the backing file '/etc/shadow\\u{1b}[2J'; only images that are complete in one file are supported"
    );
    let far = [(8, &u64::MAX.to_be_bytes()[..]), (16, &4u32.to_be_bytes())];
    assert_eq!(verdict(&far), "it ends before the name of its backing file does");
    let long = [(8, &0x400u64.to_be_bytes()[..]), (16, &u32::MAX.to_be_bytes())];
    assert_eq!(
        verdict(&long),
        "its backing_file_size is 4294967295, which is not possible"
    );

    // Padded to 16 bytes, and followed by the end of the list.
    let extension = [
        &DATA_FILE_EXTENSION.to_be_bytes()[..],
        &11u32.to_be_bytes(),
        b"/etc/shadow",
        &[0; 13],
    ]
    .concat();
    let refused =
        "it needs the data file '/etc/shadow'; only images that are complete in one file are supported";
    assert_eq!(verdict(&[(104, &extension)]), refused);
    assert_eq!(
        verdict(&[(72, &4u64.to_be_bytes())]),
        "it needs the data file ''; only images that are complete in one file are supported"
    );
}

#[test]
fn each_feature_that_changes_the_meaning_is_refused() {
    for (bit, name) in [
        (0, "dirty"),
        (1, "corrupt"),
        (3, "zlib"),
        (4, "L2"),
        (5, "feature 5"),
        (63, "feature 63"),
    ] {
        let said = verdict(&[(72, &(1u64 << bit).to_be_bytes())]);
        assert!(
            said.contains(name) && said.ends_with("which is not supported"),
            "{said}"
        );
    }
    assert_eq!(
        verdict(&[(32, &2u32.to_be_bytes())]),
        "it is encrypted, which is not supported"
    );
    assert_eq!(
        verdict(&[(60, &1u32.to_be_bytes())]),
        "it has 1 snapshots, which are not supported"
    );
}

#[test]
fn extreme_numbers_are_refused_by_their_field() {
    for (at, value, name) in [
        (20, 8u32, "cluster_bits"),
        (20, 22, "cluster_bits"),
        (20, u32::MAX, "cluster_bits"),
        (36, 0, "l1_size"),
        (36, u32::MAX, "l1_size"),
        (56, 0, "refcount_table_clusters"),
        (56, u32::MAX, "refcount_table_clusters"),
        (96, 7, "refcount_order"),
        (100, 0, "header_length"),
        (100, u32::MAX, "header_length"),
        (28, u32::MAX, "l1_size"),
        (24, u32::MAX, "size"),
        (40, u32::MAX, "L1 table"),
        (44, 512, "L1 table"),
        (48, u32::MAX, "refcount table"),
        (52, 0, "refcount table"),
    ] {
        let said = verdict(&[(at, &value.to_be_bytes())]);
        assert!(said.contains(name), "{value} at {at}: {said}");
    }
}

#[test]
fn extensions_neither_run_out_of_the_file_nor_go_on_for_ever() {
    let endless: Vec<u8> = [0xdead_beefu32.to_be_bytes(), [0; 4]].concat().repeat(100);
    assert!(verdict(&[(104, &endless)]).contains("header extensions"));
    let long = [[0xff; 4], u32::MAX.to_be_bytes()].concat();
    assert!(verdict(&[(104, &long)]).contains("length of a header extension"));
    // Sixteen of the largest do not end in a file of a few clusters.
    let large = [[0xff; 4], (64u32 << 10).to_be_bytes()].concat();
    assert_eq!(
        verdict(&[(104, &large)]),
        "it ends before its header extensions does"
    );
}

#[test]
fn a_refcount_table_that_leads_in_circles_is_refused() {
    let at = |cluster: u64| (cluster * CLUSTER as u64).to_be_bytes();
    // imago puts the table into the first cluster behind the header.
    let table = CLUSTER as u64;
    assert_eq!(
        verdict(&[(table, &at(2)), (table + 8, &at(2))]),
        "its refcount table names a cluster twice"
    );
    assert_eq!(
        verdict(&[(table, &at(1 << 40))]),
        "a refcount block is not in the file"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is written over an image's metadata: it is refused, or each request succeeds or fails.
    #[test]
    fn a_mangled_image_is_refused_or_some_requests_fail(
        changes in proptest::collection::vec(
            (prop_oneof![3 => 0u64..0x100, 5 => 0x1000u64..0x8000], any::<[u8; 8]>(), 1usize..9),
            1..12,
        ),
        pointers in proptest::collection::vec((0u64..0xe00, 0u64..16, any::<bool>()), 0..12),
        requests in proptest::collection::vec((0u8..5, 0u64..SIZE / 512 - 64, 1usize..64), 1..16),
    ) {
        let (_folder, path) = good();
        let file = open(&path);
        for (at, bytes, count) in &changes {
            file.write_all_at(&bytes[..*count], *at).unwrap();
        }
        // Entries of tables that point at other metadata.
        for (entry, cluster, copied) in &pointers {
            let entry_of = (cluster * CLUSTER as u64) | (u64::from(*copied) << 63);
            file.write_all_at(&entry_of.to_be_bytes(), 0x1000 + entry * 8).unwrap();
        }
        let len = file.metadata().unwrap().len();
        let opened = check(&file, len).and_then(|()| ImageDisk::qcow2(file, true, false, None));
        if let Ok(mut disk) = opened {
            for (what, sector, sectors) in requests {
                let (offset, len) = (sector * 512, sectors * 512);
                let mut bytes = vec![9; len];
                let buffers = [VolatileSlice::from(&mut bytes[..])];
                // Errors are what is expected; a panic, or no end, is not.
                let _ = match what {
                    0 => disk.read_at(offset, &buffers),
                    1 => disk.write_at(offset, &buffers),
                    2 => disk.discard(offset, len as u64),
                    3 => disk.write_zeroes(offset, len as u64, true),
                    _ => disk.flush(),
                };
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096), version in 2u8..4) {
        let file = tempfile::tempfile().unwrap();
        let header = [&b"QFI\xfb\0\0\0"[..], &[version]].concat();
        file.write_all_at(&[header, bytes].concat(), 0).unwrap();
        prop_assert!(check(&file, file.metadata().unwrap().len()).is_err());
    }
}
