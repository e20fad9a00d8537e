//! What is promised of layers: whiteouts as the image specification has them, and no hostile archive gets through.

use super::*;
use crate::images::sample::{Archive, tar};
use crate::images::tree::NodeId;
use proptest::prelude::*;
use std::io::{Seek, Write};

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn applied(layers: &[Vec<u8>]) -> Result<Tree, LayerError> {
    let mut tree = Tree::default();
    for (number, bytes) in layers.iter().enumerate() {
        apply(&mut tree, number, &file_of(bytes))?;
    }
    Ok(tree)
}

fn find(tree: &mut Tree, path: &str) -> Option<NodeId> {
    let path: Vec<Name> = path.split('/').map(|name| name.as_bytes().to_vec()).collect();
    tree.find(&path).unwrap()
}

fn refusal(archive: Archive) -> String {
    applied(&[archive.finish()]).unwrap_err().to_string()
}

#[test]
fn a_whiteout_hides_what_is_below_and_is_not_there_itself() {
    let lower = tar(&[("etc/passwd", b"root"), ("etc/group", b"g")]);
    let upper = tar(&[("etc/.wh.passwd", b"")]);
    let mut tree = applied(&[lower, upper]).unwrap();
    assert_eq!(find(&mut tree, "etc/passwd"), None);
    assert_eq!(find(&mut tree, "etc/.wh.passwd"), None);
    assert!(find(&mut tree, "etc/group").is_some());
}

#[test]
fn an_opaque_folder_hides_all_below_but_nothing_of_its_own_layer() {
    let lower = tar(&[("opt/old", b"o"), ("opt/deep/older", b"o")]);
    let upper = tar(&[("opt/new", b"n"), ("opt/.wh..wh..opq", b"")]);
    let mut tree = applied(&[lower, upper]).unwrap();
    assert_eq!(find(&mut tree, "opt/old"), None);
    assert_eq!(find(&mut tree, "opt/deep"), None);
    assert!(find(&mut tree, "opt/new").is_some());
}

#[test]
fn a_whiteout_in_the_layer_of_its_file_keeps_the_file() {
    let layer = tar(&[("a", b"new"), (".wh.a", b"")]);
    assert!(find(&mut applied(&[tar(&[("a", b"old")]), layer]).unwrap(), "a").is_some());
}

#[test]
fn every_kind_of_file_keeps_owner_mode_and_target() {
    let mut archive = Archive::new();
    archive.entry(EntryType::Directory, "bin/", "", 0o1755, b"");
    archive.entry(EntryType::Regular, "bin/su", "", 0o4755, b"elf");
    archive.link(EntryType::Symlink, "bin/sh", "/bin/busybox");
    archive.link(EntryType::Link, "bin/su2", "bin/su");
    archive.entry(EntryType::Char, "dev/ttyS0", "", 0o600, b"");
    archive.entry(EntryType::Fifo, "run/pipe", "", 0o600, b"");
    let mut tree = applied(&[archive.finish()]).unwrap();
    let su = find(&mut tree, "bin/su").unwrap();
    assert_eq!(
        tree.node(su).meta,
        Meta {
            mode: 0o4755,
            uid: 1000,
            gid: 100,
            mtime: 7
        }
    );
    assert!(matches!(
        tree.node(su).kind,
        Kind::File(Content {
            layer: 0,
            size: 3,
            ..
        })
    ));
    assert_eq!(find(&mut tree, "bin/su2"), Some(su));
    let sh = find(&mut tree, "bin/sh").unwrap();
    assert_eq!(tree.node(sh).kind, Kind::Symlink(b"/bin/busybox".to_vec()));
    let tty = find(&mut tree, "dev/ttyS0").unwrap();
    assert_eq!(tree.node(tty).kind, Kind::Character(4, 64));
    let folder = find(&mut tree, "bin").unwrap();
    assert_eq!(tree.node(folder).meta.mode, 0o1755);
}

#[test]
fn long_names_come_whole_out_of_their_extension_headers() {
    let long = "d/".repeat(90) + "end";
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    builder.append_data(&mut header, &long, &b""[..]).unwrap();
    let gnu = builder.into_inner().unwrap();
    assert!(find(&mut applied(&[gnu]).unwrap(), &long).is_some());
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([("path", b"pax/name".as_slice())])
        .unwrap();
    let mut archive = builder.into_inner().unwrap();
    archive.truncate(1024);
    archive.extend(tar(&[("short", b"x")]));
    assert!(find(&mut applied(&[archive]).unwrap(), "pax/name").is_some());
}

#[test]
fn a_path_out_of_the_root_is_refused() {
    assert!(refusal_of_path("../etc/passwd").contains("no path below a root"));
    assert!(refusal_of_path("a/../../b").contains("no path below a root"));
    assert!(refusal_of_path("/etc/passwd").contains("no path below a root"));
}

fn refusal_of_path(path: &str) -> String {
    applied(&[tar(&[(path, b"x")])]).unwrap_err().to_string()
}

#[test]
fn a_hard_link_out_of_the_root_or_to_nothing_is_refused() {
    let mut archive = Archive::new();
    archive.link(EntryType::Link, "a", "../../etc/shadow");
    assert!(refusal(archive).contains("link"));
    let mut archive = Archive::new();
    archive.link(EntryType::Link, "a", "missing");
    assert_eq!(
        refusal(archive),
        "'a' in it is a hard link to a file that is not there"
    );
}

#[test]
fn a_header_that_claims_a_huge_extension_is_refused_without_reading_it() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend([0; 1024]);
    assert!(matches!(applied(&[archive]), Err(LayerError::Extension)));
}

#[test]
fn a_size_that_differs_between_headers_is_refused() {
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([("size", b"100000".as_slice())])
        .unwrap();
    let mut archive = builder.into_inner().unwrap();
    archive.truncate(1024);
    archive.extend(tar(&[("a", b"x")]));
    assert!(matches!(applied(&[archive]), Err(LayerError::Kind(_))));
}

#[test]
fn sparse_files_and_unknown_kinds_are_refused() {
    let mut archive = Archive::new();
    archive.entry(EntryType::GNUSparse, "sparse", "", 0o644, b"");
    assert!(refusal(archive).contains("kind that is not supported"));
    let mut archive = Archive::new();
    archive.entry(EntryType::new(b'V'), "label", "", 0o644, b"");
    assert!(refusal(archive).contains("kind that is not supported"));
}

#[test]
fn a_file_said_to_be_larger_than_its_archive_is_refused() {
    let mut archive = tar(&[("a", &[1; 2000])]);
    archive.truncate(1024);
    let tree = applied(&[archive]);
    let mut sink = Vec::new();
    let written = tree.map(|tree| crate::images::cpio::write(&tree, &mut [file_of(&[0; 1024])], &mut sink));
    assert!(!matches!(written, Ok(Ok(()))));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = applied(&[bytes]);
    }

    #[test]
    fn a_damaged_archive_is_read_without_panic(at in 0usize..3000, value: u8) {
        let mut archive = Archive::new();
        archive.file("etc/passwd", b"root");
        archive.link(EntryType::Symlink, "etc/link", "passwd");
        archive.link(EntryType::Link, "etc/hard", "etc/passwd");
        let mut bytes = archive.finish();
        let end = bytes.len();
        bytes[at % end] = value;
        let _ = applied(&[bytes]);
    }
}
