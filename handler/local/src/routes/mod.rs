//! The HTTP side: from a request to an answer.
//!
//! `resources` reads the path and picks the verb; `read`, `change` and `delete` do what it says; `documents` answers
//! what is asked about the server itself. Every refusal is a Status, also for a path that is not there.

mod change;
mod delete;
mod documents;
mod read;
mod resources;
mod scale;

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get};

use crate::discovery::{Discovery, Neighbour};
use crate::openapi::OpenApi;
use crate::resource::Resource;
use crate::status::Failure;
use crate::store::Store;

/// What every request needs: the store, and what is served from it.
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) resources: Vec<Arc<Resource>>,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
}

impl Api {
    pub(crate) fn new(store: Arc<Store>, resources: Vec<Arc<Resource>>, neighbours: &[Neighbour]) -> Self {
        let every = || resources.iter().map(AsRef::as_ref);
        let (discovery, openapi) = (Discovery::of(&every(), neighbours), OpenApi::of(every()));
        Self {
            store,
            resources,
            discovery,
            openapi,
        }
    }
}

/// The whole API as one service.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(documents::healthy))
        .route("/livez", get(documents::healthy))
        .route("/readyz", get(documents::healthy))
        .route("/version", get(documents::version))
        .route("/api", get(documents::core))
        .route("/api/", get(documents::core))
        .route("/apis", get(documents::groups))
        .route("/apis/", get(documents::groups))
        .route("/openapi/v2", get(documents::openapi_v2))
        .route("/openapi/v3", get(documents::openapi_index))
        .route("/openapi/v3/{*path}", get(documents::openapi_document))
        .route("/api/{*path}", any(resources::serve))
        .route("/apis/{*path}", any(resources::serve))
        .fallback(|| async { Failure::no_such_path() })
        .method_not_allowed_fallback(|| async { Failure::method_not_allowed("this method") })
        .with_state(api)
}
