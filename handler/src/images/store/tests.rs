//! What is promised of pulled images: whole or not there, one fetcher a blob, and the oldest go first.

use super::*;
use crate::images::pull::fetch::digest_of;
use crate::images::sample::{Blobs, tar};

/// A store with images of one layer each, in the order in which they were asked for.
struct Place {
    blobs: Blobs,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let blobs = Blobs::new();
        let store = Store::open(&blobs.index(&[]).dir).unwrap();
        Self { blobs, store }
    }

    /// An image with these bytes in its one layer, asked for so many seconds after the epoch.
    fn image(&self, name: &str, content: &[u8], asked_for: u64) -> Record {
        let layer = self.blobs.layer(&tar(&[("f", content)]), false);
        let image = self.blobs.image("riscv64", std::slice::from_ref(&layer));
        let digest = image["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let record = Record {
            image: name.to_owned(),
            digest: digest.to_owned(),
            size: image["size"].as_u64().unwrap(),
            bytes: layer["size"].as_u64().unwrap(),
        };
        self.store.record(&record).unwrap();
        let named = File::open(self.store.name(name)).unwrap();
        named
            .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(asked_for))
            .unwrap();
        record
    }

    fn names(&self) -> usize {
        files(&self.store.dir.join("names")).unwrap().len()
    }
}

#[test]
fn what_has_not_arrived_whole_is_not_there_and_is_gone_on_with() {
    let place = Place::new();
    let digest = digest_of(b"whole");
    let mut part = place.store.partial(&digest, 5).unwrap().unwrap();
    part.file.write_all(b"who").unwrap();
    drop(part);
    assert!(!place.store.has_blob(&digest, 5));
    let mut part = place.store.partial(&digest, 5).unwrap().unwrap();
    assert_eq!(part.file.metadata().unwrap().len(), 3);
    part.file.write_all(b"le").unwrap();
    part.finish().unwrap();
    assert!(place.store.has_blob(&digest, 5));
    assert!(place.store.partial(&digest, 5).unwrap().is_none());
    assert!(files(&place.store.dir.join("partial")).unwrap().is_empty());
}

#[test]
fn who_waits_for_a_blob_finds_it_fetched() {
    let place = Place::new();
    let digest = digest_of(b"whole");
    let mut part = place.store.partial(&digest, 5).unwrap().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| place.store.partial(&digest, 5).unwrap().is_none());
        part.file.write_all(b"whole").unwrap();
        part.finish().unwrap();
        assert!(waits.join().unwrap());
    });
}

#[test]
fn an_image_that_lacks_a_blob_is_not_here() {
    let place = Place::new();
    place.image("a", b"x", 1);
    let (_, found) = place.store.find("a").unwrap();
    assert_eq!(place.store.find("b"), None);
    fs::write(place.store.blob(found.layers[0].digest()), "short").unwrap();
    assert_eq!(place.store.find("a"), None);
}

#[test]
fn the_images_asked_for_longest_ago_make_room() {
    let place = Place::new();
    let (old, new) = (
        place.image("old", &[1; 9000], 1),
        place.image("new", &[2; 9000], 2),
    );
    let both = place.image("newest", &[2; 9000], 3);
    assert_eq!(both.digest, new.digest);
    place.store.make_room(u64::MAX, SystemTime::now()).unwrap();
    assert_eq!(place.names(), 3);
    place.store.make_room(12_000, SystemTime::now()).unwrap();
    assert_eq!(place.store.find("old"), None);
    assert!(!place.store.has_blob(&old.digest, old.size));
    assert!(place.store.find("new").is_some() && place.store.find("newest").is_some());
    place.store.make_room(0, SystemTime::now()).unwrap();
    assert_eq!(place.names(), 0);
    assert!(files(&place.store.dir.join("blobs/sha256")).unwrap().is_empty());
}

#[test]
fn nothing_is_removed_from_a_store_in_use() {
    let place = Place::new();
    place.image("a", b"x", 1);
    let held = place.store.in_use().unwrap();
    place.store.make_room(0, SystemTime::now()).unwrap();
    assert!(place.store.find("a").is_some());
    drop(held);
    place.store.make_room(0, SystemTime::now()).unwrap();
    assert_eq!(place.store.find("a"), None);
}

#[test]
fn a_forgotten_image_takes_its_own_blobs_along_and_no_others() {
    let place = Place::new();
    let (one, _) = (
        place.image("one", &[1; 9000], 1),
        place.image("other", &[2; 9000], 2),
    );
    place.image("same", &[2; 9000], 3);
    let alone = place.store.alone().unwrap().unwrap();
    assert_eq!(place.store.all().unwrap().len(), 3);
    assert!(
        place
            .store
            .forget(&alone, &|record| record.image == "one")
            .unwrap()
            > one.bytes
    );
    assert_eq!(place.store.find("one"), None);
    assert_eq!(
        place
            .store
            .forget(&alone, &|record| record.image == "other")
            .unwrap(),
        0
    );
    assert!(place.store.find("same").is_some());
}

#[test]
fn nobody_removes_what_another_reads() {
    let place = Place::new();
    let held = place.store.in_use().unwrap();
    assert!(place.store.alone().unwrap().is_none());
    drop(held);
    assert!(place.store.alone().unwrap().is_some());
}
