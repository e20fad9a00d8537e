//! Where time goes, for whoever collects traces: spans by OTLP over gRPC, to one address, if it is given.
//!
//! ```text
//!   a machine's life    one trace, whose number is the VMI's uid: each step that a handler takes for it is a span there
//!   a user's request    a span, in the caller's trace if its header `traceparent` names one
//! ```
//!
//! So that a machine's trace is found by its uid alone, nothing of it is kept or passed on: who works for a machine knows the uid.

use std::str::FromStr;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, Uri};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::{Instrument, Span, Subscriber, field, info_span};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

/// What tells collectors that the spans are ours.
const SCOPE: &str = "rvm";

/// A collector of traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(String);

/// Not an address of a collector.
#[derive(Debug, thiserror::Error)]
#[error(
    "a collector is http://HOST:PORT, of its OTLP over gRPC, most often port 4317; TLS is left to a collector beside this program"
)]
pub struct NoCollector;

/// A program's spans on their way to a collector; those that wait are sent when it is dropped.
#[derive(Debug, Default)]
pub struct Traces(Option<SdkTracerProvider>);

/// A request's headers.
struct Headers<'a>(&'a HeaderMap);

// === impl Collector ===

impl FromStr for Collector {
    type Err = NoCollector;

    fn from_str(text: &str) -> Result<Self, NoCollector> {
        let uri: Uri = text.parse().map_err(|_| NoCollector)?;
        let is_plain = uri.scheme_str() == Some("http") && uri.port().is_some();
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if is_plain && is_bare {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoCollector)
        }
    }
}

// === impl Traces ===

impl Traces {
    /// Spans of this program, here (a node, where there is one), to this collector; of none where there is no collector. Within a
    /// runtime of tokio, which has to be there for as long as this is.
    ///
    /// # Errors
    /// The collector cannot be used. That it does not answer is none: spans are lost then, and nobody waits.
    pub fn to(
        collector: Option<&Collector>,
        program: &'static str,
        node: Option<&str>,
    ) -> anyhow::Result<Self> {
        let Some(Collector(endpoint)) = collector else {
            return Ok(Self::default());
        };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()?;
        let node = node.map(|node| KeyValue::new("k8s.node.name", node.to_owned()));
        let resource = Resource::builder()
            .with_service_name(program)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(node)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter);
        Ok(Self(Some(provider.build())))
    }

    /// What takes spans out of the program.
    pub fn layer<S>(&self) -> Option<OpenTelemetryLayer<S, SdkTracer>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.as_ref()?.tracer(SCOPE);
        Some(tracing_opentelemetry::layer().with_tracer(tracer))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "the last traces did not reach their collector");
        }
    }
}

// === impl Headers ===

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Puts a span into the trace of the machine with this uid.
pub fn of_machine(span: &Span, uid: &str) {
    if let Some(context) = life(uid) {
        // Refused where nobody collects.
        span.set_parent(Context::new().with_remote_span_context(context))
            .ok();
    }
}

/// The span that a machine's trace hangs from: nobody sends it, as nobody sees a machine's whole life.
fn life(uid: &str) -> Option<SpanContext> {
    let uid = Uuid::parse_str(uid).ok()?.into_bytes();
    let first = uid.first_chunk::<8>()?;
    Some(SpanContext::new(
        TraceId::from_bytes(uid),
        SpanId::from_bytes(*first),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    ))
}

/// Serves a request within a span.
pub(crate) async fn traced(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str).to_owned();
    let span = info_span!(
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = %request.method(),
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = field::Empty,
    );
    let caller = TraceContextPropagator::new().extract(&Headers(request.headers()));
    span.set_parent(caller).ok();
    let answer = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", answer.status().as_u16());
    if answer.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_trace_has_its_uids_number() {
        let context = life("0af76519-16cd-43dd-8448-eb211c80319c").unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(context.is_valid() && context.is_remote() && context.is_sampled());
        assert_eq!(life("no uid"), None);
    }

    #[test]
    fn a_collector_is_a_plain_address() {
        for good in [
            "http://127.0.0.1:4317",
            "http://[::1]:4317/",
            "http://otel.obs.svc:4317",
        ] {
            assert!(good.parse::<Collector>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:4317",
            "https://a:4317",
            "http://a",
            "http://a:1/v1/traces",
            "http://a:1/?b",
        ] {
            assert!(bad.parse::<Collector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_callers_trace_is_in_its_header() {
        let mut headers = HeaderMap::new();
        let said = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert("traceparent", said.parse().unwrap());
        let caller = TraceContextPropagator::new().extract(&Headers(&headers));
        let trace = caller.span().span_context().trace_id().to_string();
        assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c");
    }
}
