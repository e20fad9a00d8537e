//! What a refused request gets: a Kubernetes `Status`, with the reason, and the paths of the fields at fault.
//!
//! The words are those of kube-apiserver, since people search for them and programs compare them.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use serde_json::Value;

use crate::limits;

/// Why one field was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid` and its like.
    pub reason: String,
    /// Path of the field, such as `spec.domain.memory`.
    pub field: String,
    /// What is wrong, without the path.
    pub message: String,
}

impl Cause {
    /// A cause with a reason of its own.
    pub fn new(reason: &str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            field: field.into(),
            message: message.into(),
        }
    }

    /// A value that has to be there and is not.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() {
            "Required value".into()
        } else {
            format!("Required value: {detail}")
        };
        Self::new("FieldValueRequired", field, message)
    }

    /// A value that breaks a rule.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {}: {}", shown(value), detail.as_ref()),
        )
    }

    /// A value of the wrong type.
    pub fn wrong_type(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {}: {}", shown(value), detail.as_ref());
        Self::new("FieldValueTypeInvalid", field, message)
    }

    /// A value that is none of those there are.
    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[String]) -> Self {
        let list: Vec<String> = supported.iter().map(|item| format!("{item:?}")).collect();
        let message = format!(
            "Unsupported value: {}: supported values: {}",
            shown(value),
            list.join(", ")
        );
        Self::new("FieldValueNotSupported", field, message)
    }

    /// A value that must not be there (now).
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {detail}"))
    }

    /// A value that is there twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {}", shown(value)),
        )
    }

    /// A string that is too long.
    pub fn too_long(field: impl Into<String>, longest: u64) -> Self {
        let unit = if longest == 1 { "byte" } else { "bytes" };
        Self::new(
            "FieldValueTooLong",
            field,
            format!("Too long: may not be more than {longest} {unit}"),
        )
    }

    /// A list or map with too many entries.
    pub fn too_many(field: impl Into<String>, actual: usize, most: u64) -> Self {
        let unit = if most == 1 { "item" } else { "items" };
        let message = format!("Too many: {actual}: must have at most {most} {unit}");
        Self::new("FieldValueTooMany", field, message)
    }
}

/// A value as Kubernetes prints it in messages: strings quoted, all else as JSON, and never pages of it.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 512;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A refusal, on its way to the client.
#[derive(Clone, Debug)]
pub struct Failure(Box<Status>);

/// What every step of a request gives.
pub type Answer<T> = Result<T, Failure>;

impl Failure {
    fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Status {
            code: Some(i32::from(code.as_u16())),
            message: Some(message.into()),
            reason: Some(reason.to_owned()),
            status: Some("Failure".to_owned()),
            ..Status::default()
        }))
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let details = self.0.details.get_or_insert_with(StatusDetails::default);
        details.group = some(group);
        details.kind = some(kind);
        details.name = some(name);
        self
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401: no valid client certificate.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403 on one object.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", qualified(resource, group));
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(group, resource, name)
    }

    /// 403 on the request as such.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 404: no such object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(resource, group));
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(group, resource, name)
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// 405: the resource is there, the verb is not.
    pub fn method_not_allowed(verb: &str) -> Self {
        let message = format!("{verb} is not supported on this resource");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// 406: no wanted form of the answer can be made.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(resource, group));
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(group, resource, name)
    }

    /// 409: the object is not what the client thinks it is.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            qualified(resource, group)
        );
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(group, resource, name)
    }

    /// 409: these fields cannot be changed by this client.
    pub(crate) fn conflicting(message: String, mut causes: Vec<Cause>) -> Self {
        causes.truncate(limits::CAUSES);
        let mut failure = Self::new(StatusCode::CONFLICT, "Conflict", message);
        let details = failure.0.details.get_or_insert_with(StatusDetails::default);
        details.causes = Some(causes.into_iter().map(StatusCause::from).collect());
        failure
    }

    /// 410: what the client wants to go on from is no longer known; it has to list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 413: more than this server keeps.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 415: a body of a kind that is not taken here.
    pub fn unsupported_media(got: &str, accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format ({got:?}) - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    /// 422: the object breaks rules; `kind` is the object's kind.
    pub fn invalid(group: &str, kind: &str, name: &str, mut causes: Vec<Cause>) -> Self {
        let beyond = causes.len().saturating_sub(limits::CAUSES);
        causes.truncate(limits::CAUSES);
        let mut texts: Vec<String> = causes
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        if beyond > 0 {
            texts.push(format!("and {beyond} more"));
        }
        let list = if let [only] = texts.as_slice() {
            only.clone()
        } else {
            format!("[{}]", texts.join(", "))
        };
        let message = format!("{} {name:?} is invalid: {list}", qualified(kind, group));
        let mut failure =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(group, kind, name);
        let details = failure.0.details.get_or_insert_with(StatusDetails::default);
        details.causes = Some(causes.into_iter().map(StatusCause::from).collect());
        failure
    }

    /// 422: a patch that does not fit the object.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 504: a resourceVersion that this store has not reached.
    pub fn version_too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let mut failure = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        let cause = Cause::new("ResourceVersionTooLarge", "", "Too large resource version");
        failure.0.details = Some(StatusDetails {
            causes: Some(vec![cause.into()]),
            retry_after_seconds: Some(1),
            ..StatusDetails::default()
        });
        failure
    }

    /// The Status itself, as a watch sends it.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(&self.0).expect("a Status is plain JSON")
    }

    /// The HTTP code.
    pub fn code(&self) -> StatusCode {
        let code = self.0.code.and_then(|code| u16::try_from(code).ok());
        code.and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What it says.
    pub fn message(&self) -> &str {
        self.0.message.as_deref().unwrap_or_default()
    }
}

impl From<Cause> for StatusCause {
    fn from(cause: Cause) -> Self {
        Self {
            field: Some(cause.field),
            message: Some(cause.message),
            reason: Some(cause.reason),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        json(self.code(), &self.to_value())
    }
}

/// An answer of plain JSON.
pub(crate) fn json(code: StatusCode, value: &Value) -> Response {
    let mut response = (code, value.to_string()).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `virtualmachineinstances.kubevirt.io`, or just `nodes` for the core group.
fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unsupported_value_reads_as_in_kubernetes() {
        let cause = Cause::unsupported("spec.architecture", &json!("amd64"), &["riscv64".into()]);
        let failure = Failure::invalid("kubevirt.io", "VirtualMachineInstance", "a", vec![cause]);
        assert_eq!(
            failure.message(),
            "VirtualMachineInstance.kubevirt.io \"a\" is invalid: spec.architecture: Unsupported value: \
             \"amd64\": supported values: \"riscv64\""
        );
        assert_eq!(
            failure.to_value()["details"]["causes"][0]["field"],
            "spec.architecture"
        );
        assert_eq!(failure.code(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn many_causes_are_cut_and_counted() {
        let causes = vec![Cause::required("spec.x", ""); limits::CAUSES + 3];
        let failure = Failure::invalid("", "Node", "a", causes);
        assert!(failure.message().ends_with("and 3 more]"));
    }

    #[test]
    fn huge_value_is_shown_short() {
        let cause = Cause::invalid("metadata.name", &json!("ä".repeat(10_000)), "too long");
        assert!(cause.message.len() < 2000);
    }
}
