//! The service over a real gRPC connection, with a cluster and machines in memory.

use std::time::Duration;

use futures::StreamExt;
use rvm_proto::reasons;
use rvm_proto::v1::apply_response::Outcome;
use rvm_proto::v1::machines_client::MachinesClient;
use rvm_proto::v1::watch_response::Change;
use rvm_proto::v1::{
    ApplyRequest, DeleteRequest, GetRequest, ListRequest, StopRequest, VersionRequest, WatchRequest,
    WatchResponse,
};
use rvm_server::MachinesService;
use rvm_server::fake::{FakeApi, FakeMachines};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Streaming};
use tonic_types::StatusExt;

const MANIFEST: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: alpine
  annotations: {rvm/root-filesystem: root}
spec:
  domain: {devices: {}, memory: {guest: 128Mi}}
  volumes: [{name: root, containerDisk: {image: alpine:3.23}}]
";

/// A server of this cluster, and a client of the server.
async fn serve(api: &FakeApi, machines: &FakeMachines) -> MachinesClient<Channel> {
    let machines = std::sync::Arc::new(machines.clone());
    let service = MachinesService::new(api.client(), machines);
    let (client, server) = tokio::io::duplex(64 << 10);
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(server));
    tokio::spawn(
        Server::builder()
            .add_service(service.into_server())
            .serve_with_incoming(incoming),
    );
    let mut client = Some(hyper_util::rt::TokioIo::new(client));
    let connector = tower::service_fn(move |_| {
        std::future::ready(
            client
                .take()
                .ok_or_else(|| std::io::Error::other("one connection is enough")),
        )
    });
    let channel = Endpoint::from_static("http://local")
        .connect_with_connector(connector)
        .await;
    MachinesClient::new(channel.expect("the server is there"))
}

async fn fresh() -> (FakeApi, FakeMachines, MachinesClient<Channel>) {
    let (api, machines) = (FakeApi::default(), FakeMachines::new().0);
    let client = serve(&api, &machines).await;
    (api, machines, client)
}

fn manifest(text: &str) -> ApplyRequest {
    ApplyRequest {
        manifest: text.to_owned().into(),
        namespace: String::new(),
    }
}

async fn next(watch: &mut Streaming<WatchResponse>) -> (Change, Value) {
    let response = watch.next().await.expect("the watch goes on").expect("no error");
    (
        response.change(),
        serde_json::from_slice(&response.object).expect("JSON"),
    )
}

#[tokio::test]
async fn the_server_says_who_it_is() {
    let (_, _, mut client) = fresh().await;
    let version = client.version(VersionRequest {}).await.unwrap().into_inner();
    assert_eq!(version.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(version.api_versions, ["v1"]);
}

#[tokio::test]
async fn apply_creates_then_leaves_alone_then_changes() {
    let (api, _, mut client) = fresh().await;
    let first = client.apply(manifest(MANIFEST)).await.unwrap().into_inner();
    assert_eq!(first.outcome(), Outcome::Created);
    assert_eq!(
        api.object("default", "alpine").unwrap()["spec"]["domain"]["memory"]["guest"],
        "128Mi"
    );
    let again = client.apply(manifest(MANIFEST)).await.unwrap().into_inner();
    assert_eq!(again.outcome(), Outcome::Unchanged);
    let changed = client
        .apply(manifest(&MANIFEST.replace("128Mi", "256Mi")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(changed.outcome(), Outcome::Configured);
    let object: Value = serde_json::from_slice(&changed.object).unwrap();
    assert_eq!(object["spec"]["domain"]["memory"]["guest"], "256Mi");
}

#[tokio::test]
async fn a_manifest_that_cannot_run_is_refused_with_its_fields_and_leaves_nothing() {
    let (api, _, mut client) = fresh().await;
    let bad = MANIFEST
        .replace("spec:", "spec:\n  architecture: amd64")
        .replace("128Mi", "4Mi");
    let error = client.apply(manifest(&bad)).await.unwrap_err();
    let violations = error
        .get_details_bad_request()
        .expect("the fields")
        .field_violations;
    let fields: Vec<_> = violations
        .iter()
        .map(|field| (field.field.as_str(), field.reason.as_str()))
        .collect();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(
        fields,
        [
            ("spec.architecture", "FieldValueNotSupported"),
            ("spec.domain.memory.guest", "FieldValueInvalid")
        ]
    );
    assert!(error.message().contains("rvm runs riscv64 only"), "{error}");
    assert_eq!(api.object("default", "alpine"), None);
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_refused_by_its_path() {
    let (_, _, mut client) = fresh().await;
    let bad = MANIFEST.replace("devices: {}", "devices: {disks: [{name: 7}]}");
    let error = client.apply(manifest(&bad)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(
        error.message().contains("spec.domain.devices.disks[0].name"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_vmi_is_refused() {
    let (_, _, mut client) = fresh().await;
    let pod = client
        .apply(manifest("{apiVersion: v1, kind: Pod, metadata: {name: a}}"))
        .await
        .unwrap_err();
    assert_eq!(pod.code(), Code::InvalidArgument);
    assert!(pod.message().contains("\"Pod\""), "{pod}");
    let two = client
        .apply(manifest(&format!("{MANIFEST}---{MANIFEST}")))
        .await
        .unwrap_err();
    assert_eq!(
        two.message(),
        "the manifest holds several objects; apply them one by one"
    );
    let none = client.apply(manifest("# nothing")).await.unwrap_err();
    assert_eq!(none.message(), "the manifest is empty");
}

#[tokio::test]
async fn two_namespaces_that_differ_are_refused() {
    let (_, _, mut client) = fresh().await;
    let elsewhere = MANIFEST.replace("name: alpine", "name: alpine\n  namespace: here");
    let request = ApplyRequest {
        namespace: "there".to_owned(),
        ..manifest(&elsewhere)
    };
    assert_eq!(
        client.apply(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn an_unknown_machine_is_not_found() {
    let (_, _, mut client) = fresh().await;
    let name = || "nobody".to_owned();
    let get = client
        .get(GetRequest {
            namespace: String::new(),
            name: name(),
        })
        .await
        .unwrap_err();
    let delete = client
        .delete(DeleteRequest {
            namespace: String::new(),
            name: name(),
        })
        .await
        .unwrap_err();
    let watch = client
        .watch(WatchRequest {
            namespace: String::new(),
            name: name(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(get.code(), Code::NotFound);
    assert_eq!(delete.code(), Code::NotFound);
    assert_eq!(
        watch.collect::<Vec<_>>().await[0].as_ref().unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_name_that_leaves_its_path_is_refused() {
    let (_, _, mut client) = fresh().await;
    let request = GetRequest {
        namespace: String::new(),
        name: "../../secrets".to_owned(),
    };
    assert_eq!(
        client.get(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn machines_are_listed_in_order_of_namespace_and_name() {
    let (api, _, mut client) = fresh().await;
    for (namespace, name) in [("b", "x"), ("a", "y"), ("a", "x")] {
        api.put(json!({ "metadata": { "namespace": namespace, "name": name } }));
    }
    let all = client
        .list(ListRequest::default())
        .await
        .unwrap()
        .into_inner()
        .objects;
    let names: Vec<_> = all
        .iter()
        .map(|object| serde_json::from_slice::<Value>(object).unwrap())
        .map(|object| {
            format!(
                "{}/{}",
                object["metadata"]["namespace"], object["metadata"]["name"]
            )
            .replace('"', "")
        })
        .collect();
    assert_eq!(names, ["a/x", "a/y", "b/x"]);
    let some = client
        .list(ListRequest {
            namespace: "b".to_owned(),
        })
        .await
        .unwrap()
        .into_inner()
        .objects;
    assert_eq!(some.len(), 1);
}

#[tokio::test]
async fn a_watch_tells_what_is_there_what_changes_and_what_goes() {
    let (api, _, mut client) = fresh().await;
    client.apply(manifest(MANIFEST)).await.unwrap();
    let request = WatchRequest {
        namespace: String::new(),
        name: "alpine".to_owned(),
    };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await.0, Change::Applied);
    api.merge("default", "alpine", &json!({ "status": { "phase": "Running" } }));
    let (change, object) = next(&mut watch).await;
    assert_eq!(
        (change, &object["status"]["phase"]),
        (Change::Applied, &json!("Running"))
    );
    api.remove("default", "alpine");
    assert_eq!(next(&mut watch).await.0, Change::Deleted);
}

#[tokio::test]
async fn stop_asks_the_handler_and_keeps_the_object() {
    let (api, machines, mut client) = fresh().await;
    client.apply(manifest(MANIFEST)).await.unwrap();
    api.merge("default", "alpine", &json!({ "status": { "phase": "Running" } }));
    let request = StopRequest {
        namespace: String::new(),
        name: "alpine".to_owned(),
        grace_period_seconds: Some(5),
    };
    client.stop(request).await.unwrap();
    assert_eq!(
        machines.stopped(),
        [("alpine".to_owned(), Some(Duration::from_secs(5)))]
    );
    assert!(api.object("default", "alpine").is_some());
}

#[tokio::test]
async fn a_machine_that_has_ended_cannot_be_stopped() {
    let (api, machines, mut client) = fresh().await;
    client.apply(manifest(MANIFEST)).await.unwrap();
    api.merge(
        "default",
        "alpine",
        &json!({ "status": { "phase": "Succeeded" } }),
    );
    let request = StopRequest {
        name: "alpine".to_owned(),
        ..StopRequest::default()
    };
    let error = client.stop(request).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(error.get_details_error_info().unwrap().reason, reasons::ENDED);
    assert_eq!(machines.stopped(), []);
}

#[tokio::test]
async fn delete_takes_the_object_away_and_tells_its_uid() {
    let (api, _, mut client) = fresh().await;
    client.apply(manifest(MANIFEST)).await.unwrap();
    let uid = api.object("default", "alpine").unwrap()["metadata"]["uid"].clone();
    let request = DeleteRequest {
        namespace: String::new(),
        name: "alpine".to_owned(),
    };
    assert_eq!(uid, client.delete(request).await.unwrap().into_inner().uid);
    assert_eq!(api.object("default", "alpine"), None);
}
