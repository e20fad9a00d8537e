//! create, update, patch.

use std::time::Instant;

use axum::body::Bytes;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use super::read::single;
use super::resources::Call;
use crate::batch::Batch;
use crate::patch::Patch;
use crate::status::Answer;
use crate::sweep::sweep;
use crate::write::Written;

pub(super) async fn create(call: Call, body: Bytes) -> Answer<Response> {
    let (dry, unknown) = (call.params.dry_run()?, call.params.unknown_fields()?);
    let form = call.params.form(&call.headers)?;
    let object = call.json(&body)?;
    let place = call.place.clone();
    let decide = move |batch: &mut Batch<'_>| {
        sweep(batch, &place.resource, Instant::now());
        place.create(batch, object, unknown)
    };
    let written = call.api.store.write(dry, decide).await?;
    Ok(answered(
        &written,
        single(&call, &written.object, form, StatusCode::CREATED),
    ))
}

pub(super) async fn replace(call: Call, name: String, body: Bytes) -> Answer<Response> {
    let (dry, unknown) = (call.params.dry_run()?, call.params.unknown_fields()?);
    let form = call.params.form(&call.headers)?;
    let object = call.json(&body)?;
    let place = call.place.clone();
    let blind = place.resource.blind_update;
    let decide = move |batch: &mut Batch<'_>| place.update(batch, &name, unknown, blind, |_| Ok(object));
    let written = call.api.store.write(dry, decide).await?;
    Ok(answered(
        &written,
        single(&call, &written.object, form, StatusCode::OK),
    ))
}

pub(super) async fn patch(call: Call, name: String, body: Bytes) -> Answer<Response> {
    let (dry, unknown) = (call.params.dry_run()?, call.params.unknown_fields()?);
    let form = call.params.form(&call.headers)?;
    let patch = Patch::read(call.media(), &body, call.place.resource.merged)?;
    let place = call.place.clone();
    // The patch is applied to what is stored at that moment: without a resourceVersion in it, it cannot conflict.
    let decide =
        move |batch: &mut Batch<'_>| place.update(batch, &name, unknown, true, |object| patch.apply(object));
    let written = call.api.store.write(dry, decide).await?;
    Ok(answered(
        &written,
        single(&call, &written.object, form, StatusCode::OK),
    ))
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
