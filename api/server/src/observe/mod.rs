//! How one of our programs is, for whoever watches over it: a port of its own that says so over HTTP.
//!
//! ```text
//!   GET /metrics   what it counts, and what the kernel counts of it, as OpenMetrics text
//!       /healthz   200 while it works; else 503 and why: starting it anew would help
//!       /readyz    200 while it can do what it is there for; else 503 and why: waiting may help
//! ```
//!
//! Nothing of it needs a login, and nothing of it is a secret: names of machines, and numbers. It is only there where an address is given.

mod process;
mod pulse;
pub mod traces;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::web::plain;
pub use pulse::Pulse;

/// The text's form, as Prometheus knows it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A program that can be watched.
#[tonic::async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Counts what it counts.
    async fn count(&self, registry: &mut Registry);

    /// Why it had better be started anew, if it had.
    async fn illness(&self) -> Option<String>;

    /// Why it cannot do what it is there for at the moment, if it cannot.
    async fn hindrance(&self) -> Option<String>;
}

/// Tells of this program at this listener until the future is dropped.
pub async fn serve(listener: TcpListener, subject: Arc<dyn Subject>) {
    plain(listener, router(subject)).await;
}

fn router(subject: Arc<dyn Subject>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route(
            "/healthz",
            get(|State(subject): State<Arc<dyn Subject>>| async move { judged(subject.illness().await) }),
        )
        .route(
            "/readyz",
            get(|State(subject): State<Arc<dyn Subject>>| async move { judged(subject.hindrance().await) }),
        )
        .with_state(subject)
}

async fn metrics(State(subject): State<Arc<dyn Subject>>) -> Response {
    let mut registry = Registry::default();
    let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    registry.register("kubevirt", "Which rvm this is", Info::new(version));
    process::count(&mut registry);
    subject.count(&mut registry).await;
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "the metrics cannot be written down");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn judged(wrong: Option<String>) -> Response {
    match wrong {
        None => "ok".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    /// One that is ill, can do nothing, and counts nothing.
    struct Poor;

    #[tonic::async_trait]
    impl Subject for Poor {
        async fn count(&self, _: &mut Registry) {}

        async fn illness(&self) -> Option<String> {
            Some("it hangs".to_owned())
        }

        async fn hindrance(&self) -> Option<String> {
            None
        }
    }

    async fn get(path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = router(Arc::new(Poor)).oneshot(request).await.expect("an answer");
        let code = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn health_and_readiness_say_what_is_wrong() {
        assert_eq!(get("/healthz").await, (503, "it hangs".to_owned()));
        assert_eq!(get("/readyz").await, (200, "ok".to_owned()));
        assert_eq!(get("/").await.0, 404);
    }

    #[tokio::test]
    async fn a_program_tells_what_it_takes_itself() {
        let (code, text) = get("/metrics").await;
        assert_eq!((code, text.ends_with("# EOF\n")), (200, true), "{text}");
        let value = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or(-1.0)
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
        assert!(
            value("process_open_fds") > 2.0 && value("process_cpu_seconds_total") >= 0.0,
            "{text}"
        );
        assert!(value("process_start_time_seconds") > 1.7e9, "{text}");
        assert!(text.contains("kubevirt_info{version="), "{text}");
    }
}
