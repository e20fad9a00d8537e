//! A Kubernetes API of one resource, VirtualMachineInstance, in memory: enough of create, read, list, merge patch,
//! delete and watch for `kube::Client` to work with, and a way to play the handler's part. Nodes can be read, too.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tower::ServiceExt;

const ONE: &str = "/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}";
const SOME: &str = "/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances";
const NODE: &str = "/api/v1/nodes/{name}";
const ALL: &str = "/apis/kubevirt.io/v1/virtualmachineinstances";
/// What server-side apply sends.
const APPLY: &str = "application/apply-patch+yaml";
/// Events that a slow watcher may be behind before it has to list again.
const BACKLOG: usize = 256;

type Key = (String, String);

/// The API. Clones share their objects.
#[derive(Clone)]
pub struct FakeApi {
    store: Arc<Mutex<Store>>,
    events: broadcast::Sender<Value>,
}

#[derive(Default)]
struct Store {
    objects: BTreeMap<Key, Value>,
    nodes: BTreeMap<String, Value>,
    version: u64,
}

impl Default for FakeApi {
    fn default() -> Self {
        Self {
            store: Arc::default(),
            events: broadcast::channel(BACKLOG).0,
        }
    }
}

impl FakeApi {
    /// A client of this API.
    pub fn client(&self) -> kube::Client {
        let service = self
            .router()
            .map_request(|request: http::Request<kube::client::Body>| request.map(Body::new));
        kube::Client::new(service, "default")
    }

    /// The API as others serve it.
    pub fn router(&self) -> Router {
        Router::new()
            .route(ONE, get(read).patch(merge).delete(delete))
            .route(SOME, get(list).post(create))
            .route(ALL, get(list))
            .route(NODE, get(node))
            // Of other kinds there are none.
            .fallback(|uri: http::Uri| async move { not_found(uri.path()) })
            .with_state(self.clone())
    }

    /// Puts an object there, or another in its place.
    pub fn put(&self, object: Value) {
        self.write(object);
    }

    /// Puts a node there.
    pub fn put_node(&self, node: Value) {
        let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.lock().nodes.insert(name, node);
    }

    /// Merges this into an object, as a handler does with a status.
    pub fn merge(&self, namespace: &str, name: &str, patch: &Value) {
        let mut object = self.object(namespace, name).expect("the object is there");
        json_patch::merge(&mut object, patch);
        self.write(object);
    }

    /// The object as it is.
    pub fn object(&self, namespace: &str, name: &str) -> Option<Value> {
        self.lock()
            .objects
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Takes an object away; returns it as it was.
    pub fn remove(&self, namespace: &str, name: &str) -> Option<Value> {
        let gone = self
            .lock()
            .objects
            .remove(&(namespace.to_owned(), name.to_owned()))?;
        let _ = self.events.send(json!({ "type": "DELETED", "object": gone }));
        Some(gone)
    }

    fn write(&self, mut object: Value) -> Value {
        let mut store = self.lock();
        store.version += 1;
        object["metadata"]["resourceVersion"] = store.version.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
        }
        let change = match store.objects.insert(key(&object), object.clone()) {
            None => "ADDED",
            Some(_) => "MODIFIED",
        };
        let _ = self.events.send(json!({ "type": change, "object": object }));
        object
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(State(api): State<FakeApi>, Path((namespace, name)): Path<Key>) -> Response {
    api.object(&namespace, &name)
        .map_or_else(|| not_found(&name), |object| Json(object).into_response())
}

async fn node(State(api): State<FakeApi>, Path(name): Path<String>) -> Response {
    let node = api.lock().nodes.get(&name).cloned();
    node.map_or_else(|| not_found(&name), |node| Json(node).into_response())
}

async fn create(
    State(api): State<FakeApi>,
    Path(namespace): Path<String>,
    Json(mut object): Json<Value>,
) -> Response {
    object["metadata"]["namespace"] = namespace.into();
    (StatusCode::CREATED, Json(api.write(object))).into_response()
}

async fn merge(
    State(api): State<FakeApi>,
    Path((namespace, name)): Path<Key>,
    headers: http::HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(mut patch) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // Server-side apply, as far as a merge is the same: of one manager, who takes nothing away.
    let is_apply = headers.get("content-type").is_some_and(|kind| kind == APPLY);
    let mut object = match api.object(&namespace, &name) {
        Some(object) => object,
        None if is_apply => {
            patch["metadata"]["namespace"] = namespace.into();
            return (StatusCode::CREATED, Json(api.write(patch))).into_response();
        }
        None => return not_found(&name),
    };
    let before = object.clone();
    json_patch::merge(&mut object, &patch);
    if is_apply && object == before {
        return Json(object).into_response();
    }
    Json(api.write(object)).into_response()
}

async fn delete(State(api): State<FakeApi>, Path((namespace, name)): Path<Key>) -> Response {
    api.remove(&namespace, &name)
        .map_or_else(|| not_found(&name), |object| Json(object).into_response())
}

async fn list(
    State(api): State<FakeApi>,
    namespace: Option<Path<String>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let namespace = namespace.map(|Path(namespace)| namespace);
    let name = query
        .get("fieldSelector")
        .and_then(|selector| selector.strip_prefix("metadata.name="))
        .map(str::to_owned);
    let fits = move |object: &Value| {
        namespace
            .as_ref()
            .is_none_or(|namespace| object["metadata"]["namespace"] == *namespace)
            && name
                .as_ref()
                .is_none_or(|name| object["metadata"]["name"] == *name)
    };
    let events = api.events.subscribe();
    let store = api.lock();
    let items: Vec<_> = store
        .objects
        .values()
        .filter(|object| fits(object))
        .cloned()
        .collect();
    if query.get("watch").is_none_or(|watch| watch != "true") {
        let metadata = json!({ "resourceVersion": store.version.to_string() });
        let kind = "VirtualMachineInstanceList";
        let list =
            json!({ "apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": metadata, "items": items });
        return Json(list).into_response();
    }
    // What was written between the list and this watch comes first, then what is written from now on.
    let since = query
        .get("resourceVersion")
        .and_then(|version| version.parse().ok())
        .unwrap_or(0);
    let missed = items.into_iter().filter(move |object| version(object) > since);
    let missed = futures::stream::iter(missed.map(|object| json!({ "type": "MODIFIED", "object": object })));
    let live = futures::stream::unfold(events, |mut events| async {
        Some((events.recv().await.ok()?, events))
    });
    let lines = missed
        .chain(live)
        .filter(move |event| std::future::ready(fits(&event["object"])));
    Body::from_stream(lines.map(|event| Ok::<_, Infallible>(Bytes::from(format!("{event}\n")))))
        .into_response()
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

fn key(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn not_found(name: &str) -> Response {
    let message = format!("virtualmachineinstances.kubevirt.io {name:?} not found");
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": message,
    });
    (StatusCode::NOT_FOUND, Json(status)).into_response()
}
