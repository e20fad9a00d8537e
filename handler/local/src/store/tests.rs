//! The store's promises: durable, ordered, exact about the past, bounded.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::limits;

fn key(name: &str) -> Key {
    Key::new(&Prefix::of("", "nodes"), None, name)
}

fn open(folder: &Path) -> Store {
    Store::open(&folder.join("store")).unwrap()
}

fn put(store: &Store, name: &str, label: u8) -> u64 {
    let value = json!({"metadata": {"name": name, "labels": {"l": label.to_string()}}});
    store
        .write_blocking(false, |batch| batch.put(key(name), value))
        .unwrap()
        .revision
}

fn remove(store: &Store, name: &str) {
    store
        .write_blocking(false, |batch| Ok(batch.remove(&key(name), None)))
        .unwrap();
}

/// One step of a random story: the object's number, its label, and whether it goes.
fn write(store: &Store, (name, label, gone): &(u8, u8, bool)) {
    let name = format!("n{name}");
    if *gone {
        remove(store, &name);
    } else {
        put(store, &name, *label);
    }
}

fn page_after(store: &Store, after: Option<&Key>, most: usize, at: u64) -> Page {
    store
        .state()
        .page(&Prefix::of("", "nodes"), after, most, Some(at), |_| true)
        .unwrap()
}

/// Name and revision of every object.
type Content = BTreeMap<String, u64>;

fn content(objects: &[Arc<Object>]) -> Content {
    objects
        .iter()
        .map(|object| (object.text("name").to_owned(), object.revision))
        .collect()
}

fn content_at(store: &Store, at: Option<u64>) -> Content {
    content(
        &store
            .state()
            .page(&Prefix::of("", "nodes"), None, usize::MAX, at, |_| true)
            .unwrap()
            .objects,
    )
}

/// What a watcher knows after it saw these changes.
fn replay(mut known: Content, changes: &[Arc<Change>]) -> Content {
    for change in changes {
        let name = change.shown.text("name").to_owned();
        match &change.after {
            Some(object) => known.insert(name, object.revision),
            None => known.remove(&name),
        };
    }
    known
}

#[test]
fn everything_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, "a", 1);
    put(&store, "b", 1);
    let last = put(&store, "a", 2);
    remove(&store, "b");
    let before = content_at(&store, None);
    drop(store);
    let store = open(folder.path());
    assert_eq!(content_at(&store, None), before);
    assert_eq!(put(&store, "c", 1), last + 2);
}

#[test]
fn second_opening_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path());
    let error = Store::open(&folder.path().join("store")).map(drop).unwrap_err();
    assert!(
        error.to_string().contains("another handler runs in local mode"),
        "{error}"
    );
}

#[test]
fn file_of_another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let transaction = store.database.begin_write().unwrap();
    transaction
        .open_table(COUNTERS)
        .unwrap()
        .insert(FORMAT, 99)
        .unwrap();
    transaction.commit().unwrap();
    drop(store);
    let error = Store::open(&folder.path().join("store")).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Format { found: 99, .. }), "{error}");
}

#[test]
fn refused_batch_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let failed: Answer<()> = store.write_blocking(false, |batch| {
        batch.put(key("a"), json!({}))?;
        Err(Failure::bad_request("no"))
    });
    assert!(failed.is_err());
    assert_eq!(
        (content_at(&store, None), store.state().revision),
        (Content::new(), 0)
    );
}

#[test]
fn dry_write_shows_and_does_not_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let shown = store
        .write_blocking(true, |batch| batch.put(key("a"), json!({})))
        .unwrap();
    assert_eq!(shown.revision, 1);
    assert_eq!(store.state().revision, 0);
}

#[test]
fn history_is_bounded_and_says_what_it_forgot() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let many = limits::HISTORY_CHANGES as u64 + 10;
    let fill = |batch: &mut Batch<'_>| (0..many).try_for_each(|_| batch.put(key("a"), json!({})).map(drop));
    store.write_blocking(false, fill).unwrap();
    let state = store.state();
    assert_eq!(state.history.since(9, 1).unwrap_err(), TooOld { floor: 10 });
    assert_eq!(
        state.history.since(10, usize::MAX).unwrap().len(),
        limits::HISTORY_CHANGES
    );
    assert_eq!(
        state
            .page(&Prefix::of("", "nodes"), None, 1, Some(9), |_| true)
            .map(drop),
        Err(TooOld { floor: 10 })
    );
}

#[test]
fn objects_that_are_too_large_or_too_deep_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let code = |value: Value| {
        store
            .write_blocking(false, |batch| batch.put(key("a"), value))
            .map_err(|failure| failure.code().as_u16())
            .map(drop)
    };
    assert_eq!(code(json!({"x": "y".repeat(limits::OBJECT_BYTES)})), Err(413));
    assert_eq!(code((0..200).fold(json!(1), |inner, _| json!([inner]))), Err(400));
    assert_eq!(code(json!({"x": 1})), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever was written: the state of each moment can be brought back, and a watcher of that moment ends up with the last state.
    #[test]
    fn any_moment_can_be_listed_and_watched_from(writes in vec((0..3_u8, 0..4_u8, any::<bool>()), 1..12)) {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let mut moments = vec![(0, Content::new())];
        for step in &writes {
            write(&store, step);
            let revision = store.state().revision;
            moments.push((revision, content_at(&store, None)));
        }
        let last = content_at(&store, None);
        for (revision, then) in moments {
            prop_assert_eq!(&content_at(&store, Some(revision)), &then);
            let changes = store.state().history.since(revision, usize::MAX).unwrap();
            prop_assert_eq!(&replay(then, &changes), &last);
        }
    }

    #[test]
    fn pages_of_any_size_make_up_the_list(names in vec("[a-e]{1,2}", 0..10), most in 1..5_usize) {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let fill = |batch: &mut Batch<'_>| names.iter().try_for_each(|name| batch.put(key(name), json!({"metadata": {"name": name}})).map(drop));
        store.write_blocking(false, fill).unwrap();
        let at = store.state().revision;
        let pages = std::iter::successors(Some(page_after(&store, None, most, at)), |page| {
            // Something else goes on meanwhile, and must not show.
            put(&store, "zz", 1);
            let last = page.objects.last().filter(|_| page.remaining > 0)?;
            Some(page_after(&store, Some(&last.key), most, at))
        });
        let found: Vec<String> = pages.flat_map(|page| page.objects).map(|object| object.text("name").to_owned()).collect();
        let wanted: Vec<String> = names.iter().cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        prop_assert_eq!(found, wanted);
    }
}
