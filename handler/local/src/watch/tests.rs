//! A watch's promises: the state first where asked for, then every change that is in sight, and an end that says why.

use std::collections::BTreeMap;
use std::path::Path;

use futures::StreamExt;

use super::*;
use crate::batch::Batch;

fn nodes() -> Arc<Resource> {
    let resources = crate::builtin::resources();
    Arc::new(
        resources
            .into_iter()
            .find(|resource| resource.plural == "nodes")
            .unwrap(),
    )
}

fn open(folder: &Path) -> Arc<Store> {
    Arc::new(Store::open(&folder.join("store")).unwrap())
}

fn put(store: &Store, name: &str, label: &str) {
    let value = json!({"metadata": {"name": name, "labels": {"l": label}}});
    let key = Key::new(&nodes().prefix(), None, name);
    store
        .write_blocking(false, |batch| batch.put(key, value))
        .unwrap();
}

fn remove(store: &Store, name: &str) {
    let key = Key::new(&nodes().prefix(), None, name);
    store
        .write_blocking(false, |batch| Ok(batch.remove(&key, None)))
        .unwrap();
}

fn wish(labels: &str, beginning: Beginning, lasts: Duration) -> Wish {
    let resource = nodes();
    let selection = Selection {
        prefix: resource.prefix(),
        labels: LabelSelector::parse(labels).unwrap(),
        fields: FieldSelector::default(),
        resource,
    };
    Wish {
        selection,
        form: Form::Whole,
        beginning,
        bookmarks: true,
        lasts,
    }
}

fn lines(piece: &Bytes) -> Vec<Value> {
    piece
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect()
}

/// All that a watch shows which ends as soon as nothing is left to show: type and name of each event.
async fn shown(store: &Arc<Store>, labels: &str, beginning: Beginning) -> Vec<(String, String)> {
    let pieces: Vec<Bytes> = watch(Arc::clone(store), wish(labels, beginning, Duration::ZERO))
        .collect()
        .await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let event = |line: Value| (text(&line["type"]), text(&line["object"]["metadata"]["name"]));
    pieces.iter().flat_map(lines).map(event).collect()
}

fn events(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(what, name)| ((*what).to_owned(), (*name).to_owned()))
        .collect()
}

#[tokio::test]
async fn watch_without_a_revision_begins_with_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, "b", "1");
    put(&store, "a", "1");
    let state = Beginning::State { marked: false };
    assert_eq!(
        shown(&store, "", state).await,
        events(&[("ADDED", "a"), ("ADDED", "b")])
    );
    let marked = shown(&store, "", Beginning::State { marked: true }).await;
    assert_eq!(
        marked,
        events(&[("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "")])
    );
}

#[tokio::test]
async fn long_state_comes_whole_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let many = limits::WATCH_BATCH * 3 + 1;
    let fill = |batch: &mut Batch<'_>| {
        (0..many).try_for_each(|index| {
            let name = format!("n{index:04}");
            batch
                .put(
                    Key::new(&nodes().prefix(), None, &name),
                    json!({"metadata": {"name": name}}),
                )
                .map(drop)
        })
    };
    store.write_blocking(false, fill).unwrap();
    let names: Vec<String> = (0..many).map(|index| format!("n{index:04}")).collect();
    let seen = shown(&store, "", Beginning::State { marked: false }).await;
    assert_eq!(seen.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), names);
}

#[tokio::test]
async fn objects_come_into_sight_and_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, "a", "no");
    put(&store, "a", "yes");
    put(&store, "a", "yes2");
    put(&store, "a", "no");
    put(&store, "a", "yes");
    remove(&store, "a");
    let seen = shown(&store, "l in (yes, yes2)", Beginning::After(0)).await;
    let names = ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"];
    assert_eq!(seen, events(&names.map(|name| (name, "a"))));
}

#[tokio::test]
async fn change_wakes_a_waiting_watcher() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut stream = Box::pin(watch(
        Arc::clone(&store),
        wish("", Beginning::After(0), limits::WATCH_DEFAULT),
    ));
    let (piece, ()) = tokio::join!(stream.next(), async { put(&store, "a", "1") });
    assert_eq!(lines(&piece.unwrap())[0]["type"], "ADDED");
}

#[tokio::test]
async fn watcher_that_falls_behind_is_told_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut stream = Box::pin(watch(
        Arc::clone(&store),
        wish("", Beginning::After(0), limits::WATCH_DEFAULT),
    ));
    let flood = |batch: &mut Batch<'_>| {
        (0..=limits::HISTORY_CHANGES).try_for_each(|_| {
            batch
                .put(Key::new(&nodes().prefix(), None, "a"), json!({}))
                .map(drop)
        })
    };
    store.write_blocking(false, flood).unwrap();
    let last = lines(&stream.next().await.unwrap());
    assert_eq!(
        (&last[0]["type"], &last[0]["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(last[0]["object"]["reason"], "Expired");
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn quiet_watch_gets_bookmarks_that_move_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut stream = Box::pin(watch(
        Arc::clone(&store),
        wish("l=never", Beginning::After(0), limits::WATCH_DEFAULT),
    ));
    put(&store, "a", "1");
    let bookmark = lines(&stream.next().await.unwrap());
    assert_eq!(bookmark[0]["type"], "BOOKMARK");
    assert_eq!(bookmark[0]["object"]["metadata"]["resourceVersion"], "1");
}

#[tokio::test]
async fn table_names_its_columns_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, "a", "1");
    put(&store, "b", "1");
    let table = Wish {
        form: Form::Table(Include::Metadata),
        ..wish("", Beginning::After(0), Duration::ZERO)
    };
    let pieces: Vec<Bytes> = watch(store, table).collect().await;
    let tables: Vec<Value> = pieces
        .iter()
        .flat_map(lines)
        .map(|line| line["object"].clone())
        .collect();
    assert_eq!(tables[0]["columnDefinitions"][1]["name"], "Status");
    assert_eq!(tables[1]["columnDefinitions"], Value::Null);
    assert_eq!(tables[1]["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn watching_from_any_revision_gives_the_last_state() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    put(&store, "a", "1");
    put(&store, "b", "1");
    remove(&store, "a");
    put(&store, "c", "1");
    put(&store, "a", "2");
    let wanted: BTreeMap<String, bool> = ["a", "b", "c"].map(|name| (name.to_owned(), true)).into();
    let known = |events: Vec<(String, String)>| -> BTreeMap<String, bool> {
        let last: BTreeMap<String, bool> = events
            .into_iter()
            .map(|(what, name)| (name, what != "DELETED"))
            .collect();
        last.into_iter().filter(|(_, there)| *there).collect()
    };
    assert_eq!(known(shown(&store, "", Beginning::After(0)).await), wanted);
    assert_eq!(
        known(shown(&store, "", Beginning::State { marked: false }).await),
        wanted
    );
}
