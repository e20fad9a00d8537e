//! What is promised of the archive: what Linux reads back is what the layers said, and always the same bytes.

use super::*;
use crate::images::sample::{Archive, Blobs, tar};
use std::collections::BTreeMap;
use tar::EntryType;

/// An entry as Linux would read it: mode, owner, inode, names, content.
#[derive(Debug, PartialEq)]
struct Read {
    mode: u32,
    uid: u32,
    inode: u32,
    names: u32,
    content: Vec<u8>,
}

/// Reads a newc archive as init/initramfs.c does.
fn parse(archive: &[u8]) -> BTreeMap<String, Read> {
    let mut entries = BTreeMap::new();
    let mut at = 0;
    loop {
        assert_eq!(&archive[at..at + 6], b"070701", "a header starts at {at}");
        let field = |number: usize| {
            let text = std::str::from_utf8(&archive[at + 6 + 8 * number..at + 14 + 8 * number]).unwrap();
            u32::from_str_radix(text, 16).unwrap()
        };
        let (size, name_size) = (field(6) as usize, field(11) as usize);
        let name = String::from_utf8(archive[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
        let data = (at + 110 + name_size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            return entries;
        }
        let content = archive[data..data + size].to_vec();
        entries.insert(
            name,
            Read {
                mode: field(1),
                uid: field(2),
                inode: field(0),
                names: field(4),
                content,
            },
        );
        at = (data + size).next_multiple_of(4);
    }
}

fn archive_of(layers: &[(Vec<u8>, bool)]) -> Vec<u8> {
    let blobs = Blobs::new();
    let layers: Vec<_> = layers
        .iter()
        .map(|(bytes, gzip)| blobs.layer(bytes, *gzip))
        .collect();
    let layout = blobs.index(&[blobs.image("riscv64", &layers)]);
    let scratch = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    let mut root = Root::unpack(&layout, &layout.resolve().unwrap(), scratch.path()).unwrap();
    root.write(&mut out).unwrap();
    out
}

fn sample() -> Vec<(Vec<u8>, bool)> {
    let mut base = Archive::new();
    base.entry(EntryType::Directory, "./", "", 0o755, b"");
    base.entry(EntryType::Regular, "bin/busybox", "", 0o4755, b"#!elf");
    base.link(EntryType::Link, "bin/ash", "bin/busybox");
    base.link(EntryType::Symlink, "bin/sh", "busybox");
    base.file("etc/motd", b"old");
    base.entry(EntryType::Char, "srv/console", "", 0o600, b"");
    vec![
        (base.finish(), true),
        (tar(&[("etc/motd", b"newer"), ("etc/issue", b"")]), false),
    ]
}

#[test]
fn linux_reads_back_what_the_layers_said() {
    let entries = parse(&archive_of(&sample()));
    assert_eq!(entries["etc/motd"].content, b"newer");
    assert_eq!(entries["bin/sh"].mode, 0o120_777);
    assert_eq!(entries["bin/sh"].content, b"busybox");
    assert_eq!(entries["srv/console"].mode, 0o020_600);
    assert_eq!(entries["."].mode, 0o040_755);
    assert_eq!(entries["etc/issue"].content, b"");
    assert_eq!(entries["bin/busybox"].uid, 1000);
}

#[test]
fn names_of_one_file_share_an_inode_and_the_first_has_the_bytes() {
    let entries = parse(&archive_of(&sample()));
    let (first, second) = (&entries["bin/ash"], &entries["bin/busybox"]);
    assert_eq!(
        (first.inode, first.names, first.mode),
        (second.inode, 2, 0o104_755)
    );
    assert_eq!(
        (first.content.as_slice(), second.content.len()),
        (b"#!elf".as_slice(), 0)
    );
}

#[test]
fn parents_come_before_what_is_in_them() {
    let archive = archive_of(&[(tar(&[("z/y/x", b"1"), ("a/b", b"2")]), false)]);
    let place = |name: &[u8]| {
        archive
            .windows(name.len())
            .position(|window| window == name)
            .unwrap()
    };
    assert!(place(b"a\0") < place(b"a/b\0"));
    assert!(place(b"z\0") < place(b"z/y\0") && place(b"z/y\0") < place(b"z/y/x\0"));
}

#[test]
fn the_same_image_gives_the_same_bytes_in_whole_blocks() {
    let (first, second) = (archive_of(&sample()), archive_of(&sample()));
    assert_eq!(first, second);
    assert!(first.len().is_multiple_of(512));
}

#[test]
fn a_file_is_found_over_links_and_a_missing_one_is_named() {
    let mut archive = Archive::new();
    archive.file("boot/vmlinuz-6.1", b"kernel");
    archive.link(EntryType::Symlink, "boot/vmlinuz", "vmlinuz-6.1");
    archive.link(EntryType::Symlink, "kernel", "/boot/vmlinuz");
    let blobs = Blobs::new();
    let layout = blobs.index(&[blobs.image("riscv64", &[blobs.layer(&archive.finish(), false)])]);
    let scratch = tempfile::tempdir().unwrap();
    let mut root = Root::unpack(&layout, &layout.resolve().unwrap(), scratch.path()).unwrap();
    let mut out = Vec::new();
    root.write_file("/kernel", &mut out).unwrap();
    assert_eq!(out, b"kernel");
    let missing = root.write_file("/boot/initrd", &mut out).unwrap_err();
    assert_eq!(missing.to_string(), "the image has no file '/boot/initrd'");
    assert!(matches!(
        root.write_file("/boot", &mut out),
        Err(RootError::NoFile(_))
    ));
}

#[test]
fn an_image_cannot_replace_our_init_nor_what_it_loads() {
    let mut layer = Archive::new();
    layer.file("rvm-init", b"#!evil");
    layer.file("rvm/modules.order", b"evil.ko");
    layer.file("rvm/modules/evil.ko", b"evil");
    layer.entry(EntryType::Regular, "./dev/console", "", 0o666, b"a file");
    layer.link(EntryType::Link, "etc/init", "rvm-init");
    layer.file("etc/rvm/own", b"kept");
    layer.file("rvm-initial", b"kept");
    let mut upper = Archive::new();
    upper.entry(EntryType::Symlink, "rvm", "etc", 0o777, b"");
    let entries = parse(&archive_of(&[(layer.finish(), false), (upper.finish(), true)]));
    let names: Vec<&str> = entries.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [".", "etc", "etc/init", "etc/rvm", "etc/rvm/own", "rvm-initial"]
    );
    assert_eq!(entries["etc/init"].content, b"#!evil");
}
