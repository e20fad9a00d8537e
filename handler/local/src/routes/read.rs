//! get, list, watch.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::resources::Call;
use crate::object::Object;
use crate::params::Continue;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{Answer, Failure, json};
use crate::store::Page;
use crate::table;
use crate::watch::{self, Beginning, Form, Selection, Wish};

/// A list on the wire; its items are not copied for it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    kind: String,
    api_version: String,
    metadata: Value,
    items: Vec<Cow<'a, Value>>,
}

pub(super) fn get(call: &Call, name: &str) -> Answer<Response> {
    let form = call.params.form(&call.headers)?;
    let key = call.place.key(name);
    let found = call.api.store.state().objects.get(&key).cloned();
    let resource = &call.place.resource;
    let object = found.ok_or_else(|| Failure::not_found(&resource.group, &resource.plural, name))?;
    Ok(single(call, &object, form, StatusCode::OK))
}

/// One object in the wanted form.
pub(super) fn single(call: &Call, object: &Object, form: Form, code: StatusCode) -> Response {
    let resource = &call.place.resource;
    match form {
        Form::Whole => json(code, &resource.show(&object.value)),
        Form::Metadata => json(code, &table::metadata_only(&object.value)),
        Form::Table(include) => {
            let metadata = json!({"resourceVersion": object.revision.to_string()});
            json(
                code,
                &table::table(resource, std::iter::once(&object.value), &metadata, include, true),
            )
        }
    }
}

pub(super) fn list_or_watch(call: &Call) -> Answer<Response> {
    let selection = selection(call, "")?;
    if call.params.flag("watch") {
        follow(call, selection)
    } else {
        list(call, &selection)
    }
}

/// `GET .../NAME?watch=true`: the watch of a list with one name in it.
pub(super) fn watch_one(call: &Call, name: &str) -> Answer<Response> {
    follow(call, selection(call, &format!("metadata.name={name}"))?)
}

pub(super) fn selection(call: &Call, more_fields: &str) -> Answer<Selection> {
    let resource = Arc::clone(&call.place.resource);
    let fields = format!(
        "{more_fields},{}",
        call.params.text("fieldSelector").unwrap_or_default()
    );
    Ok(Selection {
        prefix: resource.prefix().within(call.place.namespace.as_deref()),
        labels: LabelSelector::parse(call.params.text("labelSelector").unwrap_or_default())?,
        fields: FieldSelector::parse(&fields, &resource.selectable)?,
        resource,
    })
}

fn list(call: &Call, selection: &Selection) -> Answer<Response> {
    let form = call.params.form(&call.headers)?;
    let limit = call.params.limit()?;
    let page = page(call, selection, limit.unwrap_or(usize::MAX))?;
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(last) = page.objects.last().filter(|_| page.remaining > 0) {
        let next = Continue {
            revision: page.revision,
            after: last.key.clone(),
        };
        metadata["continue"] = json!(next.token());
        if selection.labels.is_empty() && selection.fields.is_empty() {
            metadata["remainingItemCount"] = json!(page.remaining);
        }
    }
    let resource = &selection.resource;
    let values = page.objects.iter().map(|object| &object.value);
    let (kind, api_version, items) = match form {
        Form::Table(include) => {
            return Ok(json(
                StatusCode::OK,
                &table::table(resource, values, &metadata, include, true),
            ));
        }
        Form::Whole => {
            let items = values.map(|value| resource.show(value)).collect();
            (format!("{}List", resource.kind), resource.api_version(), items)
        }
        Form::Metadata => {
            let items = values
                .map(|value| Cow::Owned(table::metadata_only(value)))
                .collect();
            (
                "PartialObjectMetadataList".to_owned(),
                "meta.k8s.io/v1".to_owned(),
                items,
            )
        }
    };
    let list = List {
        kind,
        api_version,
        metadata,
        items,
    };
    let body = serde_json::to_string(&list).map_err(|error| Failure::internal(error.to_string()))?;
    Ok(plain_json(Body::from(body)))
}

fn page(call: &Call, selection: &Selection, most: usize) -> Answer<Page> {
    let state = call.api.store.state();
    let next = call.params.page()?;
    let (at, after) = match &next {
        Some(next) if selection.prefix.covers(&next.after) => (Some(next.revision), Some(&next.after)),
        Some(_) => return Err(Failure::bad_request("continue key is not valid for this list")),
        None => {
            let known = call.params.revision()?.unwrap_or(0);
            let exact = call.params.text("resourceVersionMatch") == Some("Exact");
            (
                exact
                    .then_some(known)
                    .or((known > state.revision).then_some(known)),
                None,
            )
        }
    };
    if let Some(at) = at.filter(|at| *at > state.revision) {
        return Err(Failure::version_too_large(at, state.revision));
    }
    state.page(&selection.prefix, after, most, at, |object| selection.wants(object)).map_err(|_| {
        Failure::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.")
    })
}

fn follow(call: &Call, selection: Selection) -> Answer<Response> {
    let store = &call.api.store;
    let bookmarks = call.params.flag("allowWatchBookmarks");
    let known = call.params.revision()?.unwrap_or(0);
    let newest = store.state().revision;
    if known > newest {
        return Err(Failure::version_too_large(known, newest));
    }
    let beginning = match (call.params.text("sendInitialEvents"), known) {
        (Some("true"), _) => Beginning::State { marked: bookmarks },
        (Some("false"), 0) => Beginning::After(newest),
        (_, 0) => Beginning::State { marked: false },
        (_, known) => Beginning::After(known),
    };
    let form = call.params.form(&call.headers)?;
    let wish = Wish {
        selection,
        form,
        beginning,
        bookmarks,
        lasts: call.params.lasts()?,
    };
    let pieces = watch::watch(Arc::clone(store), wish).map(Ok::<_, std::convert::Infallible>);
    Ok(plain_json(Body::from_stream(pieces)))
}

fn plain_json(body: Body) -> Response {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
