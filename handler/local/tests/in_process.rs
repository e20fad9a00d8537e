//! `kube::Client` on the local API, in process: what the handler relies on.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Event, Namespace, Node};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams,
};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::events::{EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use rvm_local::LocalApi;
use serde_json::{Value, json};

const FINALIZER: &str = "kubevirt.io/foregroundDeleteVirtualMachine";

struct Local {
    api: LocalApi,
    _state: tempfile::TempDir,
}

fn local() -> Local {
    let state = tempfile::tempdir().unwrap();
    let api = LocalApi::open(state.path(), rvm_local::kubevirt().unwrap(), &[]).unwrap();
    Local { api, _state: state }
}

fn vmis(client: Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachineInstance");
    Api::namespaced_with(client, "default", &ApiResource::from_gvk(&kind))
}

fn vmi(name: &str) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"domain": {"devices": {}, "memory": {"guest": "256Mi"}, "firmware": {
            "kernelBoot": {"container": {"image": "example/kernel:1", "kernelPath": "/boot/vmlinuz"}}}}},
    }))
    .unwrap()
}

/// Code and reason of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.reason),
        other => panic!("{other}"),
    }
}

fn code(number: u16, reason: &str) -> (u16, String) {
    (number, reason.to_owned())
}

fn merge(patch: Value) -> Patch<Value> {
    Patch::Merge(patch)
}

#[tokio::test]
async fn object_gets_its_identity_from_the_server() {
    let local = local();
    let vmis = vmis(local.api.client());
    let made = vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some() && made.resource_version().is_some());
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.data["spec"]["architecture"], "riscv64");
    let again = vmis.create(&PostParams::default(), &vmi("a")).await;
    assert_eq!(refusal(again), code(409, "AlreadyExists"));
    assert_eq!(refusal(vmis.get("b").await), code(404, "NotFound"));
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec_alone() {
    let local = local();
    let vmis = vmis(local.api.client());
    let made = vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    let params = PatchParams::default();
    let status = vmis
        .patch("a", &params, &merge(json!({"status": {"phase": "Running"}})))
        .await
        .unwrap();
    assert_eq!(status.metadata.generation, Some(1));
    assert_ne!(status.resource_version(), made.resource_version());
    let grace = merge(json!({"spec": {"terminationGracePeriodSeconds": 5}}));
    let another = vmis.patch("a", &params, &grace).await;
    assert_eq!(refusal(another), code(422, "Invalid"));
    // All that can change.
    let plugged = json!({"name": "d", "persistentVolumeClaim": {"claimName": "d", "hotpluggable": true}});
    let plugged = merge(json!({"spec": {"volumes": [plugged]}}));
    assert_eq!(
        vmis.patch("a", &params, &plugged)
            .await
            .unwrap()
            .metadata
            .generation,
        Some(2)
    );
    let same = vmis.patch("a", &params, &plugged).await.unwrap();
    assert_eq!(
        same.resource_version(),
        vmis.get("a").await.unwrap().resource_version()
    );
}

#[tokio::test]
async fn claim_with_a_stale_version_conflicts() {
    let local = local();
    let vmis = vmis(local.api.client());
    let first = vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    let claim = |node: &str| {
        merge(
            json!({"metadata": {"resourceVersion": first.resource_version()}, "status": {"nodeName": node}}),
        )
    };
    let params = PatchParams::default();
    vmis.patch("a", &params, &claim("n1")).await.unwrap();
    assert_eq!(
        refusal(vmis.patch("a", &params, &claim("n2")).await),
        code(409, "Conflict")
    );
    assert_eq!(vmis.get("a").await.unwrap().data["status"]["nodeName"], "n1");
    let mut stale = first.clone();
    stale.labels_mut().insert("x".into(), "y".into());
    assert_eq!(
        refusal(vmis.replace("a", &PostParams::default(), &stale).await),
        code(409, "Conflict")
    );
    stale.metadata.resource_version = None;
    assert_eq!(
        refusal(vmis.replace("a", &PostParams::default(), &stale).await),
        code(422, "Invalid")
    );
}

#[tokio::test]
async fn of_many_claims_at_once_one_wins() {
    let local = local();
    let vmis = vmis(local.api.client());
    let made = vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    let claims = (0..20).map(|node| {
        let (vmis, version) = (vmis.clone(), made.resource_version());
        async move {
            let patch =
                json!({"metadata": {"resourceVersion": version}, "status": {"nodeName": format!("n{node}")}});
            vmis.patch("a", &PatchParams::default(), &merge(patch))
                .await
                .is_ok()
        }
    });
    let won = futures::future::join_all(claims).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}

#[tokio::test]
async fn json_patch_test_guards_a_change() {
    let local = local();
    let vmis = vmis(local.api.client());
    vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    vmis.patch(
        "a",
        &PatchParams::default(),
        &merge(json!({"status": {"phase": "Pending"}})),
    )
    .await
    .unwrap();
    let step = |from: &str| -> Patch<()> {
        let steps = json!([
            {"op": "test", "path": "/status/phase", "value": from},
            {"op": "replace", "path": "/status/phase", "value": "Scheduled"},
        ]);
        Patch::Json(serde_json::from_value(steps).unwrap())
    };
    vmis.patch("a", &PatchParams::default(), &step("Pending"))
        .await
        .unwrap();
    assert_eq!(
        refusal(vmis.patch("a", &PatchParams::default(), &step("Pending")).await),
        code(422, "Invalid")
    );
}

#[tokio::test]
async fn finalizer_keeps_a_deleted_object_until_it_is_let_go() {
    let local = local();
    let vmis = vmis(local.api.client());
    let mut held = vmi("a");
    held.metadata.finalizers = Some(vec![FINALIZER.into()]);
    vmis.create(&PostParams::default(), &held).await.unwrap();
    let marked = vmis
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    let again = vmis
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(
        again.metadata.deletion_timestamp,
        marked.metadata.deletion_timestamp
    );
    let more = merge(json!({"metadata": {"finalizers": [FINALIZER, "example.com/more"]}}));
    assert_eq!(
        refusal(vmis.patch("a", &PatchParams::default(), &more).await),
        code(422, "Invalid")
    );
    let none = merge(json!({"metadata": {"finalizers": null}}));
    vmis.patch("a", &PatchParams::default(), &none).await.unwrap();
    assert_eq!(refusal(vmis.get("a").await), code(404, "NotFound"));
}

#[tokio::test]
async fn deletion_of_another_incarnation_is_refused() {
    let local = local();
    let vmis = vmis(local.api.client());
    vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    let other = Preconditions {
        uid: Some("6a7f1ac1-0000-0000-0000-000000000000".into()),
        ..Preconditions::default()
    };
    let params = DeleteParams {
        preconditions: Some(other),
        ..DeleteParams::default()
    };
    assert_eq!(refusal(vmis.delete("a", &params).await), code(409, "Conflict"));
    vmis.delete("a", &DeleteParams::background().grace_period(0))
        .await
        .unwrap();
}

#[tokio::test]
async fn watch_shows_a_life_in_order() {
    let local = local();
    let vmis = vmis(local.api.client());
    let mut stream = vmis.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    vmis.patch(
        "a",
        &PatchParams::default(),
        &merge(json!({"status": {"phase": "Running"}})),
    )
    .await
    .unwrap();
    vmis.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(matches!(
        stream.try_next().await.unwrap(),
        Some(WatchEvent::Added(_))
    ));
    assert!(matches!(
        stream.try_next().await.unwrap(),
        Some(WatchEvent::Modified(_))
    ));
    assert!(matches!(
        stream.try_next().await.unwrap(),
        Some(WatchEvent::Deleted(_))
    ));
}

#[tokio::test]
async fn watcher_of_the_runtime_lists_and_follows() {
    let local = local();
    let vmis = vmis(local.api.client());
    vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    let mut lists = watcher(vmis.clone(), watcher::Config::default())
        .applied_objects()
        .boxed();
    assert_eq!(lists.try_next().await.unwrap().unwrap().name_any(), "a");
    let mut streams = watcher(vmis.clone(), watcher::Config::default().streaming_lists())
        .applied_objects()
        .boxed();
    assert_eq!(streams.try_next().await.unwrap().unwrap().name_any(), "a");
    vmis.create(&PostParams::default(), &vmi("b")).await.unwrap();
    assert_eq!(lists.try_next().await.unwrap().unwrap().name_any(), "b");
    assert_eq!(streams.try_next().await.unwrap().unwrap().name_any(), "b");
}

#[tokio::test]
async fn lists_come_in_pages_and_by_selector() {
    let local = local();
    let vmis = vmis(local.api.client());
    for name in ["a", "b", "c"] {
        vmis.create(&PostParams::default(), &vmi(name)).await.unwrap();
    }
    let first = vmis.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(
        (first.items.len(), first.metadata.remaining_item_count),
        (2, Some(1))
    );
    vmis.delete("c", &DeleteParams::default()).await.unwrap();
    let next = ListParams::default()
        .limit(2)
        .continue_token(&first.metadata.continue_.unwrap());
    assert_eq!(vmis.list(&next).await.unwrap().items[0].name_any(), "c");
    let labelled = vmis
        .list(&ListParams::default().labels("app in (b, x)"))
        .await
        .unwrap();
    assert_eq!(labelled.items[0].name_any(), "b");
    let named = vmis
        .list(&ListParams::default().fields("metadata.name=a"))
        .await
        .unwrap();
    assert_eq!((named.items.len(), named.items[0].name_any()), (1, "a".into()));
    assert_eq!(
        refusal(vmis.list(&ListParams::default().fields("spec.x=1")).await),
        code(400, "BadRequest")
    );
}

#[tokio::test]
async fn dry_run_answers_and_stores_nothing() {
    let local = local();
    let vmis = vmis(local.api.client());
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    assert!(vmis.create(&params, &vmi("a")).await.unwrap().uid().is_some());
    assert_eq!(refusal(vmis.get("a").await), code(404, "NotFound"));
}

#[tokio::test]
async fn unsupported_patches_are_415() {
    let local = local();
    let vmis = vmis(local.api.client());
    vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    let events: Api<Event> = Api::default_namespaced(local.api.client());
    let event = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {}});
    let apply = events
        .patch("a", &PatchParams::apply("test"), &Patch::Apply(event))
        .await;
    assert_eq!(refusal(apply), code(415, "UnsupportedMediaType"));
    let strategic = vmis
        .patch("a", &PatchParams::default(), &Patch::Strategic(json!({})))
        .await;
    assert_eq!(refusal(strategic), code(415, "UnsupportedMediaType"));
}

#[tokio::test]
async fn who_applies_makes_what_is_not_there_and_says_who_they_are() {
    let local = local();
    let vmis = vmis(local.api.client());
    let nameless = vmis
        .patch("a", &PatchParams::default(), &Patch::Apply(vmi("a")))
        .await;
    assert_eq!(refusal(nameless), code(422, "Invalid"));
    let params = PatchParams::apply("test");
    let made = vmis.patch("a", &params, &Patch::Apply(vmi("a"))).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let noted = made.metadata.managed_fields.unwrap();
    assert_eq!(noted[0].manager.as_deref(), Some("test"));
    let mut stale = vmi("a");
    stale.metadata.resource_version = Some("1".to_owned());
    let stale = vmis.patch("a", &params, &Patch::Apply(stale)).await;
    assert_eq!(refusal(stale), code(409, "Conflict"));
    let elsewhere = vmis.patch("b", &params, &Patch::Apply(vmi("a"))).await;
    assert_eq!(refusal(elsewhere), code(400, "BadRequest"));
    // A status is applied by itself where it has a path of its own, and nowhere else.
    let unknown = vmis.patch_status("a", &params, &Patch::Apply(vmi("a"))).await;
    assert_eq!(refusal(unknown), code(404, "NotFound"));
    let sets = GroupVersionKind::gvk("kubevirt.io", "v1", "KubeVirt");
    let sets: Api<DynamicObject> =
        Api::namespaced_with(local.api.client(), "default", &ApiResource::from_gvk(&sets));
    let object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "spec": {"imageTag": "x"}, "status": {"phase": "Deployed"},
    });
    let made = sets.patch("k", &params, &Patch::Apply(&object)).await.unwrap();
    assert_eq!(made.data["status"], Value::Null);
    let told = sets
        .patch_status("k", &params, &Patch::Apply(&object))
        .await
        .unwrap();
    assert_eq!(told.data["status"]["phase"], "Deployed");
    let noted = told.metadata.managed_fields.unwrap();
    let parts: Vec<_> = noted.iter().map(|entry| entry.subresource.as_deref()).collect();
    assert_eq!(parts, [None, Some("status")]);
}

#[tokio::test]
async fn metadata_of_a_wrong_type_is_a_bad_request() {
    let local = local();
    let vmis = vmis(local.api.client());
    vmis.create(&PostParams::default(), &vmi("a")).await.unwrap();
    let numbers = merge(json!({"metadata": {"labels": {"app": 5}}}));
    assert_eq!(
        refusal(vmis.patch("a", &PatchParams::default(), &numbers).await),
        code(400, "BadRequest")
    );
}

#[tokio::test]
async fn unmodelled_fields_survive() {
    let local = local();
    let vmis = vmis(local.api.client());
    let mut object = vmi("a");
    object.data["spec"]["domain"]["devices"]["autoattachMemBalloon"] = json!(false);
    let made = vmis.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(
        made.data["spec"]["domain"]["devices"]["autoattachMemBalloon"],
        false
    );
}

#[tokio::test]
async fn node_status_is_written_through_its_subresource_alone() {
    let local = local();
    let nodes: Api<Node> = Api::all(local.api.client());
    let node = Node {
        metadata: kube::core::ObjectMeta {
            name: Some("n1".into()),
            ..Default::default()
        },
        ..Node::default()
    };
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let patch = merge(json!({"status": {"phase": "Running"}, "spec": {"unschedulable": true}}));
    let status = nodes
        .patch_status("n1", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(status.status.unwrap().phase.as_deref(), Some("Running"));
    assert_eq!(status.spec.unwrap_or_default().unschedulable, None);
    let spec = nodes
        .patch(
            "n1",
            &PatchParams::default(),
            &merge(json!({"status": {"phase": "Pending"}})),
        )
        .await
        .unwrap();
    assert_eq!(spec.status.unwrap().phase.as_deref(), Some("Running"));
}

#[tokio::test]
async fn recorded_event_is_seen_by_both_of_its_names() {
    let local = local();
    let client = local.api.client();
    let made = vmis(client.clone())
        .create(&PostParams::default(), &vmi("a"))
        .await
        .unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "kubevirt.io",
        "v1",
        "VirtualMachineInstance",
    ));
    let reporter = Reporter {
        controller: "rvm-handler".into(),
        instance: Some("n1".into()),
    };
    let recorder = Recorder::new(client.clone(), reporter);
    let event = kube::runtime::events::Event {
        type_: EventType::Normal,
        reason: "Started".into(),
        note: Some("VirtualMachineInstance started.".into()),
        action: "Start".into(),
        secondary: None,
    };
    let about = made.object_ref(&kind);
    recorder.publish(&event, &about).await.unwrap();
    recorder.publish(&event, &about).await.unwrap();
    let events: Api<Event> = Api::namespaced(client, "default");
    let about_it = ListParams::default().fields(&format!("involvedObject.uid={}", made.uid().unwrap()));
    let found = events.list(&about_it).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(
        found.items[0].message.as_deref(),
        Some("VirtualMachineInstance started.")
    );
    assert_eq!(found.items[0].series.as_ref().unwrap().count, Some(2));
}

#[tokio::test]
async fn namespace_goes_with_its_content_and_takes_nothing_new_meanwhile() {
    let local = local();
    let client = local.api.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "lab"}})).unwrap();
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "kubevirt.io",
        "v1",
        "VirtualMachineInstance",
    ));
    let vmis: Api<DynamicObject> = Api::namespaced_with(client, "lab", &kind);
    let mut held = vmi("a");
    held.metadata.finalizers = Some(vec![FINALIZER.into()]);
    vmis.create(&PostParams::default(), &held).await.unwrap();
    namespaces.delete("lab", &DeleteParams::default()).await.unwrap();
    assert!(vmis.get("a").await.unwrap().metadata.deletion_timestamp.is_some());
    assert_eq!(
        refusal(vmis.create(&PostParams::default(), &vmi("b")).await),
        code(403, "Forbidden")
    );
    vmis.patch(
        "a",
        &PatchParams::default(),
        &merge(json!({"metadata": {"finalizers": null}})),
    )
    .await
    .unwrap();
    assert_eq!(refusal(namespaces.get("lab").await), code(404, "NotFound"));
    assert_eq!(
        refusal(namespaces.delete("default", &DeleteParams::default()).await),
        code(403, "Forbidden")
    );
}

#[tokio::test]
async fn too_new_and_too_old_versions_are_told_apart() {
    let local = local();
    let vmis = vmis(local.api.client());
    let future = vmis.watch(&WatchParams::default(), "999999").await.map(drop);
    assert_eq!(refusal(future), code(504, "Timeout"));
}
