//! What is promised of boot files: made once, whole or not at all, and every lack named.

use super::*;
use sample::{Blobs, tar};

struct Place {
    folder: tempfile::TempDir,
    blobs: Blobs,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            blobs: Blobs::new(),
        };
        fs::create_dir(place.guests()).unwrap();
        fs::write(place.guests().join("Image"), "kernel").unwrap();
        fs::write(place.guests().join("init.cpio"), "init").unwrap();
        place
    }

    fn guests(&self) -> PathBuf {
        self.folder.path().join("guests")
    }

    fn images(&self) -> Images {
        let layer = self.blobs.layer(&tar(&[("etc/motd", b"hello")]), true);
        let layout = self.blobs.index(&[self.blobs.image("riscv64", &[layer])]);
        let mirror: Mirror = format!("alpine:3.23=oci:{}", layout.dir.display())
            .parse()
            .unwrap();
        Images::new(
            [mirror].into_iter().collect(),
            Some(self.guests()),
            self.folder.path(),
        )
        .unwrap()
    }
}

#[test]
fn an_image_boots_our_kernel_and_our_init_before_its_own_files() {
    let place = Place::new();
    let boot = place.images().root_boot("docker.io/library/alpine:3.23").unwrap();
    assert_eq!(boot.kernel, place.guests().join("Image"));
    let initrd = fs::read(boot.initrd.unwrap()).unwrap();
    assert_eq!(&initrd[..4], b"init");
    assert_eq!(&initrd[512..518], b"070701");
}

#[test]
fn the_same_image_and_init_are_made_once_and_another_init_anew() {
    let place = Place::new();
    let first = place.images().root_boot("alpine:3.23").unwrap().initrd.unwrap();
    fs::write(&first, "marked").unwrap();
    assert_eq!(
        place.images().root_boot("alpine:3.23").unwrap().initrd.unwrap(),
        first
    );
    assert_eq!(fs::read(&first).unwrap(), b"marked");
    fs::write(place.guests().join("init.cpio"), "other").unwrap();
    assert_ne!(
        place.images().root_boot("alpine:3.23").unwrap().initrd.unwrap(),
        first
    );
}

#[test]
fn what_a_killed_handler_left_half_done_is_cleared_away() {
    let place = Place::new();
    drop(place.images());
    let half = place.folder.path().join("roots/.new-abc");
    fs::write(&half, "half").unwrap();
    drop(place.images());
    assert!(!half.exists());
}

#[test]
fn an_image_that_nobody_pulled_is_not_here() {
    let error = Place::new().images().root_boot("debian:13").unwrap_err();
    assert_eq!(error.to_string(), "image 'debian:13' is not on this node");
}

#[test]
fn a_missing_guest_folder_or_kernel_is_named() {
    let place = Place::new();
    let mut images = place.images();
    fs::remove_file(place.guests().join("Image")).unwrap();
    let missing = images.root_boot("alpine:3.23");
    assert!(matches!(missing, Err(ImageError::Guest(path, _)) if path.ends_with("Image")));
    images.guests = None;
    assert!(matches!(
        images.root_boot("alpine:3.23"),
        Err(ImageError::NoGuests)
    ));
}

#[test]
fn an_image_says_by_its_label_what_it_asks_of_the_processors() {
    let place = Place::new();
    assert_eq!(place.images().cpu_features("alpine:3.23").unwrap(), None);
    let layer = place.blobs.layer(&tar(&[("etc/motd", b"hello")]), true);
    let labels = serde_json::json!({labels::CPU: "v=on,zbb=off"});
    let layout = place
        .blobs
        .index(&[place.blobs.labelled_image("riscv64", &[layer], &labels)]);
    let asked = labels::cpu_features(&layout, &layout.resolve().unwrap()).unwrap();
    assert_eq!(asked.as_deref(), Some("v=on,zbb=off"));
}

#[test]
fn a_kernel_out_of_an_image_is_a_file_of_its_own() {
    let place = Place::new();
    let boot = place
        .images()
        .kernel_boot("alpine:3.23", "/etc/motd", None)
        .unwrap();
    assert_eq!(fs::read(boot.kernel).unwrap(), b"hello");
    let missing = place
        .images()
        .kernel_boot("alpine:3.23", "/boot/vmlinuz", None)
        .unwrap_err();
    assert!(crate::steps::chain(&missing).ends_with("the image has no file '/boot/vmlinuz'"));
}

#[test]
fn what_no_machine_uses_and_nobody_asked_for_lately_is_swept() {
    let place = Place::new();
    let images = place.images();
    let initrd = images.root_boot("alpine:3.23").unwrap().initrd.unwrap();
    let spec = |path: &Path| vec![format!("{{\"initrd\":\"{}\"}}", path.display())];
    let (now, later) = (
        SystemTime::now(),
        SystemTime::now() + KEPT + Duration::from_secs(1),
    );
    images.sweep(&[], now).unwrap();
    assert!(initrd.exists(), "it was asked for lately");
    images.sweep(&spec(&initrd), later).unwrap();
    assert!(initrd.exists(), "a machine uses it");
    File::open(&initrd).unwrap().set_modified(now - 2 * KEPT).unwrap();
    images.root_boot("alpine:3.23").unwrap();
    images.sweep(&[], now).unwrap();
    assert!(initrd.exists(), "it was asked for again");
    images.sweep(&spec(Path::new("/another.cpio")), later).unwrap();
    assert!(!initrd.exists());
    assert_eq!(images.root_boot("alpine:3.23").unwrap().initrd.unwrap(), initrd);
}

#[test]
fn a_full_store_never_takes_what_a_machine_uses() {
    let place = Place::new();
    let images = place.images().pulled_by(Puller::new("/nonexistent".into()), 0);
    let initrd = images.root_boot("alpine:3.23").unwrap().initrd.unwrap();
    let later = SystemTime::now() + KEPT + Duration::from_secs(1);
    images.sweep(&[format!("{}", initrd.display())], later).unwrap();
    assert!(initrd.exists());
}

/// What is said of an image of these files when it is to be a disk.
fn as_disk(files: &[(&str, &[u8])]) -> String {
    let place = Place::new();
    let layer = place.blobs.layer(&tar(files), true);
    let layout = place.blobs.index(&[place.blobs.image("riscv64", &[layer])]);
    let mirror: Mirror = format!("disk:1=oci:{}", layout.dir.display()).parse().unwrap();
    let images = Images::new([mirror].into_iter().collect(), None, place.folder.path()).unwrap();
    match images.disk("disk:1", None) {
        Ok(disk) => format!("{:?} of {} bytes", disk.format, disk.size),
        Err(error) => crate::steps::chain(&error),
    }
}

#[test]
fn an_images_disk_is_the_one_file_in_its_folder_and_whole() {
    assert_eq!(as_disk(&[("disk/a.img", b"raw")]), "Raw of 3 bytes");
    let said = as_disk(&[("other/a.img", b"raw")]);
    assert!(said.ends_with("no file found in folder /disk"), "{said}");
    let said = as_disk(&[("disk/a.img", b"1"), ("disk/b.img", b"2")]);
    assert!(
        said.ends_with("more than one file found in folder /disk"),
        "{said}"
    );
    let said = as_disk(&[("disk/a.img", b"QFI\xfb\0\0\0\x03")]);
    assert_eq!(said, "image 'disk:1': the qcow2 disk is truncated");
    let mut backed = [0; 104];
    backed[..16].copy_from_slice(b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\0\x68");
    let said = as_disk(&[("disk/a.img", &backed)]);
    assert!(
        said.starts_with("image 'disk:1': the qcow2 disk has a backing file"),
        "{said}"
    );
}

/// An image of the store, with what a machine boots of it.
fn kept_with_its_root(place: &Place) -> (Images, PathBuf) {
    let layer = place.blobs.layer(&tar(&[("etc/motd", b"hello")]), true);
    let image = place.blobs.image("riscv64", &[layer]);
    let layout = place.blobs.index(&[]);
    std::os::unix::fs::symlink(&layout.dir, place.folder.path().join("images")).unwrap();
    let images = Images::new(Mirrors::default(), Some(place.guests()), place.folder.path()).unwrap();
    let record = store::Record {
        image: "r.example/a:1".to_owned(),
        digest: image["digest"].as_str().unwrap().replace("sha256:", ""),
        size: image["size"].as_u64().unwrap(),
        bytes: 0,
    };
    images.store.record(&record).unwrap();
    let root = images.root_boot("r.example/a:1").unwrap().initrd.unwrap();
    (images, root)
}

#[test]
fn an_image_is_removed_with_what_was_made_of_it() {
    let place = Place::new();
    let (images, root) = kept_with_its_root(&place);
    let kept = images.kept().unwrap();
    assert_eq!((kept.len(), kept[0].name.as_str()), (1, "r.example/a:1"));
    assert_eq!(kept[0].unpacked, fs::metadata(&root).unwrap().len());
    let removed = images
        .remove(&|name| name == "r.example/a:1", &[])
        .unwrap()
        .unwrap();
    assert_eq!(removed.names, ["r.example/a:1"]);
    assert_eq!(removed.freed, kept[0].size + kept[0].unpacked);
    assert!(!root.exists() && images.kept().unwrap().is_empty());
}

#[test]
fn what_a_machine_boots_stays_when_its_image_is_removed() {
    let place = Place::new();
    let (images, root) = kept_with_its_root(&place);
    let spec = format!("{{\"initrd\":\"{}\"}}", root.display());
    assert!(images.remove(&|_| false, &[]).unwrap().unwrap().names.is_empty());
    images.remove(&|_| true, &[spec]).unwrap().unwrap();
    assert!(root.exists() && images.kept().unwrap().is_empty());
}

#[test]
fn nothing_is_removed_while_an_image_is_made_use_of() {
    let place = Place::new();
    let (images, root) = kept_with_its_root(&place);
    let held = images.store.in_use().unwrap();
    assert_eq!(images.remove(&|_| true, &[]).unwrap(), None);
    drop(held);
    assert!(root.exists());
}
