//! Every kind of disk: what is asked for is what is opened, and each refusal names it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatCreateBuilder};
use proptest::prelude::*;
use rvmm_spec::Base;
use vm_memory::VolatileSlice;

use super::*;

fn image(size: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    File::create(&path).unwrap().set_len(size).unwrap();
    (folder, path)
}

/// An empty qcow2 image of this many bytes.
pub(super) fn qcow2(path: &Path, size: u64, cluster: usize) {
    File::create(path).unwrap();
    let storage = Storage::try_from(writable(path)).unwrap();
    let builder = Qcow2::<Storage>::create_builder(storage);
    builder.size(size).cluster_size(cluster).create().unwrap();
}

fn writable(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn disk(path: &Path, format: DiskFormat) -> Disk {
    Disk {
        format,
        ..Disk::new(path)
    }
}

fn read(disk: &mut dyn BlockBackend, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    disk.read_at(offset, &[VolatileSlice::from(&mut bytes[..])])
        .unwrap();
    bytes
}

fn write(disk: &mut dyn BlockBackend, offset: u64, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    disk.write_at(offset, &[VolatileSlice::from(&mut bytes[..])])
        .unwrap();
}

#[test]
fn an_image_has_one_writer_or_many_readers() {
    let (_folder, path) = image(512);
    let read_only = Disk {
        read_only: true,
        ..Disk::new(&path)
    };
    let writer = open(&Disk::new(&path)).unwrap();
    assert!(matches!(open(&Disk::new(&path)), Err(DiskError::InUse(_, false))));
    assert!(matches!(open(&read_only), Err(DiskError::InUse(_, true))));
    drop(writer);
    let _readers = (open(&read_only).unwrap(), open(&read_only).unwrap());
    assert!(matches!(open(&Disk::new(&path)), Err(DiskError::InUse(..))));
}

#[test]
fn a_writer_of_qemus_keeps_readers_out() {
    let (_folder, path) = image(512);
    let qemu = writable(&path);
    let holds = |byte| lock::shared(&qemu, byte).unwrap();
    assert!([100, 101, 201, 203].into_iter().all(holds));
    assert!(matches!(open(&Disk::new(&path)), Err(DiskError::InUse(..))));
}

#[test]
fn what_is_no_disk_is_named_in_the_error() {
    let (folder, path) = image(100);
    let text = |path: &Path| open(&Disk::new(path)).err().unwrap().to_string();
    let (folder, missing) = (folder.path(), folder.path().join("none"));
    assert_eq!(
        text(folder),
        format!("disk '{}' is neither a file nor a block device", folder.display())
    );
    assert_eq!(
        text(&missing),
        format!("disk '{}' cannot be opened", missing.display())
    );
    assert_eq!(
        text(&path),
        format!(
            "disk '{}' has 100 bytes, less than one sector of 512",
            path.display()
        )
    );
    let device = Path::new("/dev/null");
    assert_eq!(
        text(device),
        "disk '/dev/null' is neither a file nor a block device"
    );
}

#[test]
fn a_read_only_disk_cannot_be_written() {
    let (_folder, path) = image(512);
    let read_only = Disk {
        read_only: true,
        ..Disk::new(&path)
    };
    let mut sector = [7; 512];
    let slice = [VolatileSlice::from(&mut sector[..])];
    assert!(open(&read_only).unwrap().write_at(0, &slice).is_err());
}

#[test]
fn a_raw_disk_that_holds_a_qcow2_header_is_still_raw() {
    let (_folder, path) = image(512);
    qcow2(&path, 1 << 20, 65536);
    let len = fs::metadata(&path).unwrap().len();
    let mut raw = open(&Disk::new(&path)).unwrap();
    assert_eq!(raw.size(), len);
    assert_eq!(read(&mut *raw, 0, 512)[..4], *b"QFI\xfb");
}

#[test]
fn a_qcow2_disk_keeps_what_is_written_and_is_as_large_as_it_says() {
    let (_folder, path) = image(512);
    qcow2(&path, 8 << 20, 65536);
    let wish = disk(&path, DiskFormat::Qcow2);
    let mut opened = open(&wish).unwrap();
    assert_eq!((opened.size(), opened.geometry().discard), (8 << 20, 65536));
    write(&mut *opened, 65000, &[7; 2048]);
    opened.flush().unwrap();
    drop(opened);
    let mut opened = open(&Disk {
        read_only: true,
        ..wish
    })
    .unwrap();
    assert_eq!(read(&mut *opened, 65000, 2048), [7; 2048]);
    assert_eq!(read(&mut *opened, 4 << 20, 512), [0; 512]);
}

#[test]
fn what_is_longer_than_one_write_of_the_host_is_written_whole() {
    let wanted: Vec<u8> = (0..1_000_448)
        .map(|at| u8::try_from(at / 4099 % 251).unwrap())
        .collect();
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let (_folder, path) = image(8 << 20);
        if format == DiskFormat::Qcow2 {
            qcow2(&path, 8 << 20, 65536);
        }
        let mut disk = open(&disk(&path, format)).unwrap();
        write(&mut *disk, 512, &wanted);
        assert!(read(&mut *disk, 512, wanted.len()) == wanted, "{format:?}");
    }
}

#[test]
fn a_disk_past_the_page_cache_takes_requests_of_any_alignment() {
    // Under the target folder: a temporary folder may lie on a file system without direct I/O.
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = folder.path().join("disk.img");
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        if format == DiskFormat::Qcow2 {
            qcow2(&path, 1 << 20, 65536);
        }
        let wish = Disk {
            direct: true,
            ..disk(&path, format)
        };
        let mut opened = open(&wish).unwrap();
        write(&mut *opened, 512, &[7; 1536]);
        assert_eq!(read(&mut *opened, 0, 512), [0; 512]);
        assert_eq!(read(&mut *opened, 1024, 512), [7; 512]);
        let zeroed = opened.write_zeroes(512, 512, true);
        zeroed.unwrap();
        assert_eq!(read(&mut *opened, 512, 1024), [[0; 512], [7; 512]].concat());
    }
}

/// What is done to a disk: 0 write, 1 discard, 2 zeroes, 3 zeroes with unmap, 4 flush; where, and how much.
type Step = (u8, u64, u64, u8);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Each format against an array. What was discarded may read as anything until it is written again.
    #[test]
    fn every_format_holds_what_was_written(
        steps in proptest::collection::vec((0u8..5, 0u64..2048, 1u64..512, 1u8..), 1..24),
        qcow: bool,
        cluster in prop_oneof![Just(512usize), Just(4096), Just(65536)],
    ) {
        let (_folder, path) = image(1 << 20);
        if qcow {
            qcow2(&path, 1 << 20, cluster);
        }
        let format = if qcow { DiskFormat::Qcow2 } else { DiskFormat::Raw };
        let mut opened = open(&disk(&path, format)).unwrap();
        let mut model: Vec<Option<u8>> = vec![Some(0); 1 << 20];
        for step in &steps {
            play(&mut *opened, &mut model, *step);
        }
        opened.flush().unwrap();
        drop(opened);
        let mut opened = open(&disk(&path, format)).unwrap();
        let bytes = read(&mut *opened, 0, 1 << 20);
        let wrong = bytes.iter().zip(&model).position(|(is, wanted)| wanted.is_some_and(|wanted| wanted != *is));
        prop_assert_eq!(wrong, None);
    }
}

fn play(disk: &mut dyn BlockBackend, model: &mut [Option<u8>], (what, sector, sectors, fill): Step) {
    let (offset, len) = (sector * 512, sectors.min(2048 - sector) * 512);
    let (at, count) = (usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
    let range = &mut model[at..at + count];
    match what {
        0 => {
            write(disk, offset, &vec![fill; count]);
            range.fill(Some(fill));
        }
        1 => {
            disk.discard(offset, len).unwrap();
            range.fill(None);
        }
        2 | 3 => {
            disk.write_zeroes(offset, len, what == 3).unwrap();
            range.fill(Some(0));
        }
        _ => disk.flush().unwrap(),
    }
}

#[test]
fn a_backing_format_of_imago_is_never_opened() {
    // The gate behind our own check, which is tested with the headers.
    let (_folder, path) = image(512);
    let storage = Storage::try_from(writable(&path)).unwrap();
    let builder = Qcow2::<Storage, FormatAccess<Storage>>::create_builder(storage);
    let created = builder
        .size(1 << 20)
        .backing("/etc/passwd".into(), "raw".into())
        .create();
    assert!(created.is_ok());
    let file = writable(&path);
    let refused = ImageDisk::qcow2(file, true, false, None).err().unwrap();
    let source = std::error::Error::source(&refused).unwrap().to_string();
    assert!(
        source.contains("denied") || source.contains("No filename"),
        "{source}"
    );
}

/// A disk whose own image is empty, on a base of this format that holds sevens.
fn on_sevens(folder: &Path, format: DiskFormat) -> Disk {
    let (path, under) = (folder.join("d.qcow2"), folder.join("base"));
    let sevens = vec![7; 1 << 20];
    if format == DiskFormat::Qcow2 {
        qcow2(&under, 1 << 20, 4096);
        let mut base = open(&disk(&under, format)).unwrap();
        write(&mut *base, 0, &sevens);
        base.flush().unwrap();
    } else {
        fs::write(&under, &sevens).unwrap();
    }
    qcow2(&path, 1 << 20, 65536);
    Disk {
        base: Some(Base { path: under, format }),
        ..disk(&path, DiskFormat::Qcow2)
    }
}

#[test]
fn a_disk_on_a_base_holds_the_base_and_what_was_written_over_it() {
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        let folder = tempfile::tempdir().unwrap();
        let wish = on_sevens(folder.path(), format);
        let base = &wish.base.as_ref().unwrap().path;
        let before = fs::read(base).unwrap();
        let mut opened = open(&wish).unwrap();
        write(&mut *opened, 100_352, &[9; 512]);
        opened.write_zeroes(512, 1024, true).unwrap();
        opened.flush().unwrap();
        drop(opened);
        let mut wanted = vec![7; 1 << 20];
        wanted[100_352..100_864].fill(9);
        wanted[512..1536].fill(0);
        let mut opened = open(&wish).unwrap();
        assert!(read(&mut *opened, 0, 1 << 20) == wanted, "{format:?}");
        drop(opened);
        assert!(fs::read(base).unwrap() == before, "{format:?}");
    }
}

#[test]
fn machines_share_a_base_and_nobody_writes_it_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let wish = on_sevens(folder.path(), DiskFormat::Raw);
    let base = wish.base.clone().unwrap().path;
    let other = folder.path().join("other.qcow2");
    qcow2(&other, 1 << 20, 65536);
    let other = Disk {
        path: other,
        ..wish.clone()
    };
    let both = (open(&wish).unwrap(), open(&other).unwrap());
    assert!(matches!(open(&Disk::new(&base)).err(), Some(DiskError::InUse(path, false)) if path == base));
    drop(both);
    let writer = open(&Disk::new(&base)).unwrap();
    assert!(matches!(open(&wish).err(), Some(DiskError::InUse(path, true)) if path == base));
    assert!(matches!(examine(&wish), Err(DiskError::InUse(path, true)) if path == base));
    drop(writer);
    fs::remove_file(&base).unwrap();
    assert!(matches!(open(&wish).err(), Some(DiskError::Open(path, _)) if path == base));
}

#[test]
fn a_base_that_names_another_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let wish = on_sevens(folder.path(), DiskFormat::Qcow2);
    let file = writable(&wish.base.as_ref().unwrap().path);
    // The place and length of a backing file's name.
    file.write_all_at(&0x70_u64.to_be_bytes(), 8).unwrap();
    file.write_all_at(&3_u32.to_be_bytes(), 16).unwrap();
    let refused = open(&wish).err().unwrap();
    assert!(
        matches!(refused, DiskError::Qcow2(_, Qcow2Error::BackingFile(_))),
        "{refused}"
    );
    assert!(examine(&wish).is_err());
}

#[test]
fn an_image_that_another_process_opened_is_used_as_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.img");
    fs::write(&path, [7; 1024]).unwrap();
    let disk = Disk::new(&path);
    let reads = Disk {
        read_only: true,
        ..disk.clone()
    };
    let wrong = open_from(&disk, hand_over(&reads).unwrap()).err().unwrap();
    assert!(matches!(wrong, DiskError::Opened(_, false)), "{wrong}");
    let file = hand_over(&disk).unwrap();
    let taken = open_from(&disk, file.try_clone().unwrap()).unwrap();
    assert_eq!(taken.size(), 1024);
    assert!(matches!(open(&disk).err(), Some(DiskError::InUse(_, false))));
    // The next boot has it, too.
    drop(taken);
    assert!(!examine_from(&disk, file.try_clone().unwrap()).unwrap());
    assert!(matches!(open(&disk).err(), Some(DiskError::InUse(_, false))));
    drop(file);
    assert!(open(&disk).is_ok());
}
