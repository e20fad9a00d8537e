//! What goes along with a PUT: virtctl sends `{}`, or nothing, where it has no options.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::Deserialize;

use super::answer::Refused;

/// The options of all of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Options {
    /// Of a start.
    pub paused: bool,
    dry_run: Vec<String>,
    grace_period: Option<i64>,
    grace_period_seconds: Option<i64>,
}

// === impl Options ===

impl Options {
    pub(super) fn read(body: &[u8]) -> Result<Self, Refused> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let options: Self = serde_json::from_slice(body).map_err(|error| {
            Refused::bad_request(format!("Can not unmarshal Request body to struct: {error}"))
        })?;
        match options.dry_run.as_slice() {
            [] => Ok(options),
            [all] if all == "All" => Ok(options),
            _ => Err(Refused::bad_request("dryRun is All, or not there")),
        }
    }

    /// Whether it is a rehearsal.
    pub(super) fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// The seconds of a stop.
    pub(super) fn stop_grace(&self) -> Result<Option<u64>, Refused> {
        grace(self.grace_period)
    }

    /// The seconds of a restart, which can only be none.
    pub(super) fn restart_grace(&self) -> Result<Option<u64>, Refused> {
        match grace(self.grace_period_seconds)? {
            Some(1..) => Err(Refused::bad_request(
                "For force restart, only gracePeriod=0 is supported for now",
            )),
            seconds => Ok(seconds),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Options {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| Refused::bad_request(error.to_string()))?;
        Self::read(&body)
    }
}

fn grace(seconds: Option<i64>) -> Result<Option<u64>, Refused> {
    let seconds = seconds.map(u64::try_from).transpose();
    seconds.map_err(|_| Refused::bad_request("gracePeriod has to be greater or equal to 0"))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn options_that_are_no_options_are_a_bad_request() {
        let code = |body: &[u8]| Options::read(body).expect_err("it is none").code;
        assert_eq!(code(b"["), StatusCode::BAD_REQUEST);
        assert_eq!(code(br#"{"dryRun":["Some"]}"#), StatusCode::BAD_REQUEST);
        assert!(Options::read(b"").is_ok_and(|options| !options.is_dry_run()));
        let options = Options::read(br#"{"dryRun":["All"],"paused":true}"#);
        assert!(options.is_ok_and(|options| options.paused && options.is_dry_run()));
        assert_eq!(
            grace(Some(-1)).expect_err("negative").code,
            StatusCode::BAD_REQUEST
        );
    }

    #[test]
    fn a_restart_can_only_be_forced_at_once() {
        let grace = |body: &[u8]| Options::read(body).expect("options").restart_grace();
        assert_eq!(grace(br#"{"gracePeriodSeconds":0}"#), Ok(Some(0)));
        assert_eq!(grace(b"{}"), Ok(None));
        let refused = grace(br#"{"gracePeriodSeconds":5}"#).expect_err("it waits");
        assert_eq!(refused.code, StatusCode::BAD_REQUEST);
    }
}
