//! delete, one object or all that are selected.

use axum::body::Bytes;
use axum::response::Response;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde::Deserialize;
use serde_json::{Value, json};

use super::read::selection;
use super::resources::Call;
use crate::batch::Batch;
use crate::deletion::{Deleted, Propagation};
use crate::object::Object;
use crate::resource::Resource;
use crate::status::{Answer, Failure, json};

pub(super) async fn one(call: Call, name: String, body: Bytes) -> Answer<Response> {
    let Wish {
        options,
        propagation,
        dry,
    } = wish(&call, &body)?;
    let place = call.place.clone();
    let decide = move |batch: &mut Batch<'_>| place.delete(batch, &name, &options, propagation);
    let deleted = call.api.store.write(dry, decide).await?;
    let resource = &call.place.resource;
    Ok(match deleted {
        Deleted::Gone(object) => json(StatusCode::OK, &success(resource, &object)),
        Deleted::Marked(object) => json(StatusCode::OK, &resource.show(&object.value)),
    })
}

pub(super) async fn selected(call: Call, body: Bytes) -> Answer<Response> {
    let Wish {
        options,
        propagation,
        dry,
    } = wish(&call, &body)?;
    let selection = selection(&call, "")?;
    let place = call.place.clone();
    let decide = move |batch: &mut Batch<'_>| {
        let found = batch.list(&selection.prefix);
        let wanted: Vec<_> = found
            .into_iter()
            .filter(|object| selection.wants(object))
            .collect();
        for object in &wanted {
            // It may have gone with its owner.
            if batch.get(&object.key).is_some() {
                place.delete(batch, object.text("name"), &options, propagation)?;
            }
        }
        Ok(wanted)
    };
    let deleted = call.api.store.write(dry, decide).await?;
    let resource = &call.place.resource;
    let items: Vec<Value> = deleted
        .iter()
        .map(|object| resource.show(&object.value).into_owned())
        .collect();
    let list = json!({
        "kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(), "metadata": {}, "items": items,
    });
    Ok(json(StatusCode::OK, &list))
}

/// What a client wants of a deletion.
struct Wish {
    options: DeleteOptions,
    propagation: Propagation,
    dry: bool,
}

/// It, from the body or else the query.
fn wish(call: &Call, body: &[u8]) -> Answer<Wish> {
    let unreadable = |error: serde_json::Error| Failure::bad_request(format!("DeleteOptions: {error}"));
    let mut options = DeleteOptions::default();
    if !body.is_empty() {
        let value = call.json(body)?;
        let kind = value
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or("DeleteOptions");
        if kind != "DeleteOptions" {
            return Err(Failure::bad_request(format!(
                "a DELETE takes DeleteOptions, not {kind:?}"
            )));
        }
        options = DeleteOptions::deserialize(&value).map_err(unreadable)?;
    }
    let policy = options
        .propagation_policy
        .as_deref()
        .or_else(|| call.params.text("propagationPolicy"));
    let propagation = policy.map(Propagation::of).transpose()?.unwrap_or_default();
    let dry = match options.dry_run.as_deref() {
        None | Some([]) => call.params.dry_run()?,
        Some(list) if list.iter().all(|entry| entry == "All") => true,
        Some(_) => {
            return Err(Failure::bad_request(
                "dryRun: Unsupported value: supported values: \"All\"",
            ));
        }
    };
    Ok(Wish {
        options,
        propagation,
        dry,
    })
}

fn success(resource: &Resource, object: &Object) -> Value {
    let mut details =
        json!({"name": object.text("name"), "kind": resource.plural, "uid": object.text("uid")});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
