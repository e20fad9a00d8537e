//! Refusals as Kubernetes gives them: a code, and a `Status` whose message is what the user reads.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use rvm_proto::reasons;
use serde_json::json;

use crate::reach::Unreachable;

/// What a refusal is about, as it is named there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A VirtualMachine.
    Machine,
    /// A VirtualMachineInstance.
    Instance,
}

/// Why there is nothing else to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub code: StatusCode,
    pub reason: String,
    pub message: String,
    /// Why, as rvm.v1 tells programs, where that has a word for it.
    pub because: Option<&'static str>,
}

// === impl Kind ===

impl Kind {
    fn singular(self) -> &'static str {
        match self {
            Self::Machine => "virtualmachine.kubevirt.io",
            Self::Instance => "virtualmachineinstance.kubevirt.io",
        }
    }
}

// === impl Refused ===

impl Refused {
    fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            because: None,
        }
    }

    /// With the word that rvm.v1 has for it.
    #[must_use]
    pub(super) fn because(self, reason: &'static str) -> Self {
        Self {
            because: Some(reason),
            ..self
        }
    }

    /// The request is wrong, or comes too early: virtctl's console asks again.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// The object could not be what it would be then.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// Nobody knows who asks.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    /// The object is in no state for this.
    pub(super) fn conflict(kind: Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let kind = kind.singular();
        let message = format!("Operation cannot be fulfilled on {kind} {name:?}: {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).because(reasons::WRONG_STATE)
    }

    /// There is no such object.
    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.singular());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// There is no such path.
    pub(crate) fn no_such_path() -> Self {
        Self::without("the server could not find the requested resource")
    }

    /// There is nothing of that kind here.
    pub(super) fn without(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// It is our fault, or that of a part of ours.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let message = format!("Internal error occurred: {}", message.into());
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// The instance cannot be spoken to.
    pub(super) fn unreachable(why: &Unreachable) -> Self {
        match why {
            Unreachable::NotRunningYet { .. } | Unreachable::NotRunning => {
                Self::bad_request("VMI is not running").because(reasons::NOT_RUNNING_YET)
            }
            Unreachable::Ended { .. } => Self::bad_request("VMI is not running").because(reasons::ENDED),
            Unreachable::AnotherNode { .. } => Self::internal(why.to_string()),
            Unreachable::Unavailable(source) => Self::internal(format!("{why}: {source}")),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        (self.code, Json(status)).into_response()
    }
}

/// What the cluster refuses is passed on as it is.
impl From<kube::Error> for Refused {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self {
                code: StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                reason: status.reason.clone(),
                message: status.message.clone(),
                because: None,
            },
            other => Self::internal(other.to_string()),
        }
    }
}
