//! From a path and a method to a verb on a resource.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, header};
use serde_json::Value;

use super::{Api, change, delete, documents, read, scale};
use crate::limits;
use crate::params::Params;
use crate::path;
use crate::resource::Resource;
use crate::status::{Answer, Failure};
use crate::write::{Part, Place};

/// A request, understood so far that only its verb is left to do.
pub(super) struct Call {
    pub(super) api: Arc<Api>,
    pub(super) place: Place,
    pub(super) params: Params,
    pub(super) headers: HeaderMap,
}

pub(super) async fn serve(State(api): State<Arc<Api>>, request: Request) -> Answer<Response> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::GET
        && let Some(document) = documents::plain_discovery(&api, parts.uri.path())
    {
        return Ok(document);
    }
    let target = path::parse(parts.uri.path()).ok_or_else(Failure::no_such_path)?;
    let mut served = api.resources.iter();
    let wanted = |resource: &Arc<Resource>| {
        resource.group == target.group
            && resource.version == target.version
            && resource.plural == target.resource
    };
    let resource = served
        .find(|resource| wanted(resource))
        .ok_or_else(Failure::no_such_path)?;
    let part = match target.subresource {
        None => Part::Whole,
        Some("status") if resource.has_status => Part::Status,
        Some("scale") if resource.scale.is_some() => Part::Scale,
        Some(_) => return Err(Failure::no_such_path()),
    };
    // One namespace, or a look over all of them.
    let complete = target.namespace.is_some() || (target.name.is_none() && parts.method == Method::GET);
    if target.namespace.is_some_and(|_| !resource.namespaced) || (resource.namespaced && !complete) {
        return Err(Failure::no_such_path());
    }
    let place = Place {
        resource: Arc::clone(resource),
        namespace: target.namespace.map(str::to_owned),
        part,
    };
    let params = Params::of(&parts.uri)?;
    let call = Call {
        api: Arc::clone(&api),
        place,
        params,
        headers: parts.headers.clone(),
    };
    verb(call, &parts, target.name, body).await
}

async fn verb(call: Call, parts: &Parts, name: Option<&str>, body: Body) -> Answer<Response> {
    match (&parts.method, name) {
        (method, Some(name)) if call.place.part == Part::Scale => {
            let name = name.to_owned();
            match *method {
                Method::GET => scale::get(&call, &name),
                Method::PUT => scale::replace(call, name, collect(body).await?).await,
                Method::PATCH => scale::patch(call, name, collect(body).await?).await,
                _ => Err(Failure::method_not_allowed(method.as_str())),
            }
        }
        (&Method::GET, None) => read::list_or_watch(&call),
        (&Method::GET, Some(name)) if call.params.flag("watch") => read::watch_one(&call, name),
        (&Method::GET, Some(name)) => read::get(&call, name),
        (&Method::POST, None) => change::create(call, collect(body).await?).await,
        (&Method::PUT, Some(name)) => change::replace(call, name.to_owned(), collect(body).await?).await,
        (&Method::PATCH, Some(name)) => change::patch(call, name.to_owned(), collect(body).await?).await,
        (&Method::DELETE, Some(name)) if call.place.part == Part::Whole => {
            delete::one(call, name.to_owned(), collect(body).await?).await
        }
        (&Method::DELETE, None) => delete::selected(call, collect(body).await?).await,
        (method, _) => Err(Failure::method_not_allowed(method.as_str())),
    }
}

/// The body, no longer and for no longer than allowed.
async fn collect(body: Body) -> Answer<Bytes> {
    let read = axum::body::to_bytes(body, limits::BODY_BYTES);
    match tokio::time::timeout(limits::REQUEST_BODY, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // The body's error does not tell a cut connection from a body that is too long; the first has no reader anyway.
        Ok(Err(_)) => Err(Failure::too_large(format!(
            "limit is {} bytes",
            limits::BODY_BYTES
        ))),
        Err(_) => Err(Failure::bad_request(
            "the body of the request did not come in time",
        )),
    }
}

impl Call {
    /// The media type of the body, without parameters.
    pub(super) fn media(&self) -> &str {
        let value = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        value
            .and_then(|value| value.split(';').next())
            .unwrap_or_default()
            .trim()
    }

    /// The body as JSON, whatever it holds.
    pub(super) fn json(&self, body: &[u8]) -> Answer<Value> {
        // Without a type it is taken for what it should be, as kube-apiserver does.
        if !matches!(self.media(), "" | "application/json") {
            return Err(Failure::unsupported_media(self.media(), &["application/json"]));
        }
        serde_json::from_slice(body)
            .map_err(|error| Failure::bad_request(format!("the object provided is unrecognized: {error}")))
    }
}
