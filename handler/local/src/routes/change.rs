//! create, update, patch.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use rvm_types::manifest;
use serde_json::Value;

use super::read::single;
use super::resources::Call;
use crate::batch::Batch;
use crate::fields::{self, Config};
use crate::object::metadata_mut;
use crate::patch::Patch;
use crate::status::{Answer, Cause, Failure};
use crate::sweep::sweep;
use crate::write::{Manner, Part, Written};

/// The media type of what is applied.
const APPLY: &str = "application/apply-patch+yaml";

/// How a request wants to write.
pub(super) fn manner(call: &Call) -> Answer<Manner> {
    Ok(Manner {
        unknown: call.params.unknown_fields()?,
        manager: call.params.manager(&call.headers)?,
        config: None,
    })
}

pub(super) async fn create(call: Call, body: Bytes) -> Answer<Response> {
    let (dry, manner) = (call.params.dry_run()?, manner(&call)?);
    let form = call.params.form(&call.headers)?;
    let object = call.json(&body)?;
    let place = call.place.clone();
    let decide = move |batch: &mut Batch<'_>| {
        sweep(batch, &place.resource, Instant::now());
        place.create(batch, object, &manner)
    };
    let written = call.api.store.write(dry, decide).await?;
    Ok(answered(
        &written,
        single(&call, &written.object, form, StatusCode::CREATED),
    ))
}

pub(super) async fn replace(call: Call, name: String, body: Bytes) -> Answer<Response> {
    let (dry, manner) = (call.params.dry_run()?, manner(&call)?);
    let form = call.params.form(&call.headers)?;
    let object = call.json(&body)?;
    let place = call.place.clone();
    let blind = place.resource.blind_update;
    let decide = move |batch: &mut Batch<'_>| place.update(batch, &name, &manner, blind, |_| Ok(object));
    let written = call.api.store.write(dry, decide).await?;
    Ok(answered(
        &written,
        single(&call, &written.object, form, StatusCode::OK),
    ))
}

pub(super) async fn patch(call: Call, name: String, body: Bytes) -> Answer<Response> {
    if call.media() == APPLY && fields::is_noted(&call.place.resource) {
        return apply(call, name, &body).await;
    }
    if call.params.text("force").is_some() {
        let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(Failure::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
    }
    let (dry, manner) = (call.params.dry_run()?, manner(&call)?);
    let form = call.params.form(&call.headers)?;
    let patch = Patch::read(call.media(), &body, call.place.resource.merged)?;
    let place = call.place.clone();
    // The patch is applied to what is stored at that moment: without a resourceVersion in it, it cannot conflict.
    let decide =
        move |batch: &mut Batch<'_>| place.update(batch, &name, &manner, true, |object| patch.apply(object));
    let written = call.api.store.write(dry, decide).await?;
    Ok(answered(
        &written,
        single(&call, &written.object, form, StatusCode::OK),
    ))
}

/// Server-side apply.
async fn apply(call: Call, name: String, body: &[u8]) -> Answer<Response> {
    let (dry, form) = (call.params.dry_run()?, call.params.form(&call.headers)?);
    let (manager, force) = call.params.apply(&call.headers)?;
    let config = Config::new(&call.place.resource, applied(&call, body)?, force)?;
    let manner = Manner {
        unknown: call.params.unknown_fields()?,
        manager,
        config: Some(Arc::new(config)),
    };
    let place = call.place.clone();
    let decide = move |batch: &mut Batch<'_>| place.apply(batch, &name, &manner);
    let (written, made) = call.api.store.write(dry, decide).await?;
    let code = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answered(&written, single(&call, &written.object, form, code)))
}

/// What is applied: one object, as YAML (which JSON is, too), without what belongs to another part of it.
fn applied(call: &Call, body: &[u8]) -> Answer<Value> {
    let unreadable =
        |why: &dyn std::fmt::Display| Failure::bad_request(format!("error decoding YAML: {why}"));
    let mut objects = manifest::parse(body).map_err(|error| unreadable(&error))?;
    let (Some(mut object), true) = (objects.pop(), objects.is_empty()) else {
        return Err(unreadable(&"there has to be one object"));
    };
    let resource = &call.place.resource;
    for (field, wanted) in [
        ("apiVersion", resource.api_version()),
        ("kind", resource.kind.clone()),
    ] {
        if object[field] != wanted {
            let message = format!(
                "the {field} of what is applied has to be {wanted}, not {}",
                object[field]
            );
            return Err(Failure::bad_request(message));
        }
    }
    if object
        .pointer("/metadata/managedFields")
        .is_some_and(|noted| !noted.is_null())
    {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let part = call.place.part;
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|name, _| match name.as_str() {
            "apiVersion" | "kind" => true,
            "status" => part == Part::Status || !resource.has_status,
            _ => part == Part::Whole || name == "metadata",
        });
    }
    if part == Part::Status {
        let known = ["name", "namespace", "uid", "resourceVersion"];
        metadata_mut(&mut object).retain(|name, _| known.contains(&name.as_str()));
    }
    Ok(object)
}

/// The answer, with what the client should be warned about in its headers.
fn answered(written: &Written, mut response: Response) -> Response {
    const MOST_WARNINGS: usize = 16;
    for warning in written.warnings.iter().take(MOST_WARNINGS) {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}
