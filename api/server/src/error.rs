//! From what went wrong to a gRPC status: the right code, a sentence, and details for programs.

use std::collections::HashMap;
use std::error::Error as _;

use kube::core::Status as ApiStatus;
use rvm_proto::ERROR_DOMAIN;
use rvm_types::Cause;
use rvm_types::admission::summary;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::subresources::Refused;

/// A request or a manifest that is wrong in these fields.
pub(crate) fn invalid(what: &str, causes: &[Cause]) -> Status {
    let violations = causes
        .iter()
        .map(|cause| violation(&cause.field, &cause.message, cause.reason.as_str()));
    refuse_fields(format!("{what}: {}", summary(causes)), violations.collect())
}

/// A request that is wrong, and no field to point at.
pub(crate) fn invalid_argument(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// A machine that is not in a state for this.
pub(crate) fn precondition(reason: &str, message: impl Into<String>, metadata: &[(&str, &str)]) -> Status {
    let metadata: HashMap<_, _> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// What the cluster answered, or that it did not.
pub(crate) fn from_kube(error: &kube::Error) -> Status {
    match error {
        kube::Error::Api(status) => from_api(status),
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
            let cause = error
                .source()
                .map(|source| format!(": {source}"))
                .unwrap_or_default();
            Status::unavailable(format!("the cluster does not answer{cause}"))
        }
        other => Status::internal(other.to_string()),
    }
}

fn from_api(status: &ApiStatus) -> Status {
    let message = status.message.clone();
    match (status.code, status.reason.as_str()) {
        (404, _) => Status::not_found(message),
        (_, "AlreadyExists") => Status::already_exists(message),
        (409, _) => Status::aborted(message),
        (401, _) => Status::unauthenticated(message),
        (403, _) => Status::permission_denied(message),
        (422, _) => from_causes(status, message),
        (400 | 405 | 413 | 415, _) => Status::invalid_argument(message),
        (410, _) => Status::out_of_range(message),
        (429, _) => Status::resource_exhausted(message),
        (502..=504, _) => Status::unavailable(message),
        _ => Status::internal(message),
    }
}

/// What is refused over REST, in the same words.
impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let Refused {
            code,
            reason,
            message,
            because,
        } = refused;
        match because {
            Some(reason) => precondition(reason, message, &[]),
            None => from_api(&ApiStatus::failure(&message, &reason).with_code(code.as_u16())),
        }
    }
}

fn from_causes(status: &ApiStatus, message: String) -> Status {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let violations = causes.map(|cause| violation(&cause.field, &cause.message, &cause.reason));
    refuse_fields(message, violations.collect())
}

fn refuse_fields(message: String, violations: Vec<FieldViolation>) -> Status {
    Status::with_error_details(
        Code::InvalidArgument,
        message,
        ErrorDetails::with_bad_request(violations),
    )
}

fn violation(field: &str, description: &str, reason: &str) -> FieldViolation {
    let mut violation = FieldViolation::new(field, description);
    reason.clone_into(&mut violation.reason);
    violation
}
