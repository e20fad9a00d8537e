//! Traces: a collector gets a machine's start as one trace that its uid names, and a user's request in the user's own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use rvm_e2e::guest::NAME;
use rvm_e2e::machines::SUBRESOURCES;
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{HandlerSetup, Manifest, Tools};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// How long anything may take that will come if it comes at all.
const PATIENCE: Duration = Duration::from_secs(120);

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    /// Serves on a port of loopback until the runtime ends.
    fn start(&self, runtime: &tokio::runtime::Runtime) -> SocketAddr {
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone());
        let served = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(served);
        address
    }

    /// Spans of a trace by name, each with its program's.
    fn of(&self, trace: &str) -> Vec<(String, Span)> {
        let number =
            |span: &Span| -> String { span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect() };
        let all = self.0.lock().unwrap();
        all.iter()
            .filter(|(_, span)| number(span) == trace)
            .cloned()
            .collect()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_program in request.into_inner().resource_spans {
            let attributes = of_program.resource.unwrap_or_default().attributes;
            let program = attributes
                .into_iter()
                .find(|attribute| attribute.key == "service.name");
            let program = format!("{:?}", program.unwrap().value);
            let spans = of_program.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let named = spans.map(|span| (program.clone(), span));
            self.0.lock().unwrap().extend(named);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[test]
fn a_machines_start_is_one_trace_that_its_uid_names() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.start(&runtime));
    let tools = Tools::open().unwrap();
    let setup = HandlerSetup::local().with(&["--otlp-endpoint", &endpoint, "--pod-network", "none"]);
    let handler = setup.start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    let vmi = kubectl.await_phase(NAME, "Running").unwrap();
    let uid = vmi["metadata"]["uid"].as_str().unwrap().replace('-', "");
    let spans = eventually("the machine's spans are there", || {
        let spans = collector.of(&uid);
        let names: Vec<_> = spans.iter().map(|(_, span)| span.name.clone()).collect();
        let wanted = ["claim", "prepare", "make disks", "hand over", "start"];
        let all = wanted
            .iter()
            .all(|wanted| names.iter().any(|name| name == wanted));
        Ok(if all {
            Look::Here(spans)
        } else {
            Look::NotYet(format!("{names:?}"))
        })
    })
    .unwrap();
    let named = |name: &str| spans.iter().rfind(|(_, span)| span.name == name).unwrap();
    let ((program, prepare), (_, disks)) = (named("prepare"), named("make disks"));
    assert!(program.contains("rvm-handler"), "{program}");
    assert_eq!(disks.parent_span_id, prepare.span_id);
    assert!(prepare.start_time_unix_nano <= disks.start_time_unix_nano);
    assert!(disks.end_time_unix_nano <= prepare.end_time_unix_nano);
    assert!(
        prepare
            .events
            .iter()
            .any(|event| event.name == "its files are made")
            || !disks.events.is_empty(),
        "{prepare:?}"
    );

    // A caller that is in a trace finds the request there.
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let caller = format!("00-{trace}-b7ad6b7169203331-01");
    let mut proxy = kubectl.follow(&["proxy", "--port=0"]).unwrap();
    let address = proxy.expect("\n", PATIENCE).unwrap();
    let (_, address) = address.trim_end().rsplit_once(' ').unwrap();
    let path = format!("http://{address}{SUBRESOURCES}/virtualmachineinstances/{NAME}/usage");
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    agent.get(path).header("traceparent", &caller).call().unwrap();
    let request = eventually("the request's span is there", || {
        let found = collector.of(trace).pop();
        Ok(Look::of(found, || "no span".to_owned()))
    })
    .unwrap();
    assert!(
        request.1.name.starts_with("GET /apis/subresources.kubevirt.io/"),
        "{}",
        request.1.name
    );
    assert!(request.1.name.ends_with("/usage"), "{}", request.1.name);
}
