//! get, update and patch of the scale subresource: an object by its numbers alone.

use axum::body::Bytes;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::change::manner;
use super::resources::Call;
use crate::batch::Batch;
use crate::patch::Patch;
use crate::scale::Scale;
use crate::status::{Answer, Failure, json};

fn scale(call: &Call) -> Answer<&Scale> {
    call.place
        .resource
        .scale
        .as_ref()
        .ok_or_else(Failure::no_such_path)
}

pub(super) fn get(call: &Call, name: &str) -> Answer<Response> {
    let found = call.api.store.state().objects.get(&call.place.key(name)).cloned();
    let resource = &call.place.resource;
    let object = found.ok_or_else(|| Failure::not_found(&resource.group, &resource.plural, name))?;
    Ok(json(StatusCode::OK, &scale(call)?.show(&object.value)?))
}

pub(super) async fn replace(call: Call, name: String, body: Bytes) -> Answer<Response> {
    let wanted = call.json(&body)?;
    change(call, name, move |_| Ok(wanted)).await
}

pub(super) async fn patch(call: Call, name: String, body: Bytes) -> Answer<Response> {
    let patch = Patch::read(call.media(), &body, Some(&[]))?;
    change(call, name, move |scale| patch.apply(&scale)).await
}

async fn change(
    call: Call,
    name: String,
    change: impl FnOnce(Value) -> Answer<Value> + Send + 'static,
) -> Answer<Response> {
    let (dry, manner) = (call.params.dry_run()?, manner(&call)?);
    let place = call.place.clone();
    let decide = move |batch: &mut Batch<'_>| {
        let resource = std::sync::Arc::clone(&place.resource);
        let scale = resource.scale.as_ref().ok_or_else(Failure::no_such_path)?;
        place.update(batch, &name, &manner, true, |object| {
            scale.store(object, &change(scale.show(object)?)?)
        })
    };
    let written = call.api.store.write(dry, decide).await?;
    Ok(json(StatusCode::OK, &scale(&call)?.show(&written.object.value)?))
}
