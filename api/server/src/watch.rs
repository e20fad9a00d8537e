//! Watching machines: what is there, then what changes, also across a cluster that loses its thread.
//!
//! kube's watcher lists anew after such a loss and then says nothing of what was deleted meanwhile. Whoever waits
//! for a deletion would wait for ever, so we keep the names of what was there and compare.

use std::collections::BTreeMap;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use rvm_proto::v1::WatchResponse;
use rvm_proto::v1::watch_response::Change;
use tonic::Status;

use crate::error::from_kube;
use crate::objects::{resource, to_json};

type Key = (Option<String>, String);
type Events = BoxStream<'static, watcher::Result<Event<DynamicObject>>>;

/// The watch of one caller.
struct Watch {
    events: Events,
    /// The one object that is watched, where it is one.
    name: Option<String>,
    /// What was there when it was last seen.
    known: BTreeMap<Key, ObjectMeta>,
    /// What an unfinished list has found so far.
    listed: Option<BTreeMap<Key, ObjectMeta>>,
    /// Whether the first list is done.
    started: bool,
    /// What a list has found to be gone, still to be told.
    gone: Vec<ObjectMeta>,
    ended: bool,
}

/// Each machine as it is, then each change, until nobody listens.
pub(crate) fn watch(
    api: Api<DynamicObject>,
    name: Option<String>,
) -> impl Stream<Item = Result<WatchResponse, Status>> + Send {
    let config = match &name {
        Some(name) => Config::default().fields(&format!("metadata.name={name}")),
        None => Config::default(),
    };
    let watch = Watch {
        events: watcher(api, config).default_backoff().boxed(),
        name,
        known: BTreeMap::new(),
        listed: None,
        started: false,
        gone: Vec::new(),
        ended: false,
    };
    stream::unfold(watch, |mut watch| async move {
        let response = watch.next().await?;
        watch.ended = response.is_err();
        Some((response, watch))
    })
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        while !self.ended {
            if let Some(metadata) = self.gone.pop() {
                let mut object = DynamicObject::new("", &resource());
                object.metadata = metadata;
                return Some(response(Change::Deleted, object));
            }
            let event = self.events.next().await?;
            if let Some(response) = self.take(event) {
                return Some(response);
            }
        }
        None
    }

    /// What one event has to tell the caller, if anything.
    fn take(
        &mut self,
        event: watcher::Result<Event<DynamicObject>>,
    ) -> Option<Result<WatchResponse, Status>> {
        match event {
            Ok(Event::Init) => {
                self.listed = Some(BTreeMap::new());
                None
            }
            Ok(Event::InitApply(object)) => {
                let (key, metadata) = (key(&object), object.metadata.clone());
                let is_news = self
                    .known
                    .get(&key)
                    .is_none_or(|old| old.resource_version != metadata.resource_version);
                self.listed.get_or_insert_default().insert(key, metadata);
                is_news.then(|| response(Change::Applied, object))
            }
            Ok(Event::InitDone) => self.finish_list(),
            Ok(Event::Apply(object)) => {
                self.known.insert(key(&object), object.metadata.clone());
                Some(response(Change::Applied, object))
            }
            Ok(Event::Delete(object)) => {
                self.known.remove(&key(&object));
                Some(response(Change::Deleted, object))
            }
            Err(error) => self.judge(&error),
        }
    }

    fn finish_list(&mut self) -> Option<Result<WatchResponse, Status>> {
        let known = std::mem::replace(&mut self.known, self.listed.take().unwrap_or_default());
        self.gone.extend(
            known
                .into_iter()
                .filter(|(key, _)| !self.known.contains_key(key))
                .map(|(_, gone)| gone),
        );
        let is_first = !std::mem::replace(&mut self.started, true);
        match &self.name {
            Some(name) if is_first && self.known.is_empty() => {
                let message = format!("virtualmachineinstances.kubevirt.io {name:?} not found");
                Some(Err(Status::not_found(message)))
            }
            _ => None,
        }
    }

    /// A watch that has begun goes on as long as it makes sense to ask again; one that never began says why.
    fn judge(&self, error: &watcher::Error) -> Option<Result<WatchResponse, Status>> {
        let status = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => from_kube(error),
            watcher::Error::WatchError(status) => from_kube(&kube::Error::Api(status.clone())),
            other => Status::internal(other.to_string()),
        };
        let hopeless = matches!(
            status.code(),
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated
        );
        if self.started && !hopeless {
            tracing::debug!(%error, "the watch is begun again");
            return None;
        }
        Some(Err(status))
    }
}

fn key(object: &DynamicObject) -> Key {
    (object.namespace(), object.name_any())
}

fn response(change: Change, object: DynamicObject) -> Result<WatchResponse, Status> {
    Ok(WatchResponse {
        change: change.into(),
        object: to_json(object)?,
    })
}
