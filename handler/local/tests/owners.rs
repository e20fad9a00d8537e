//! Objects that own others: what goes with an owner, what before it, and what stays.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use rvm_local::LocalApi;
use serde_json::{Value, json};

struct Local {
    maps: Api<ConfigMap>,
    _api: LocalApi,
    _state: tempfile::TempDir,
}

fn local() -> Local {
    let state = tempfile::tempdir().unwrap();
    let api = LocalApi::open(state.path(), vec![], &[]).unwrap();
    let client: Client = api.client();
    Local {
        maps: Api::default_namespaced(client),
        _api: api,
        _state: state,
    }
}

impl Local {
    /// Makes an object that these own, and which keeps them where they wait.
    async fn make(&self, name: &str, owners: &[&ConfigMap], finalizers: &[&str]) -> ConfigMap {
        let reference = |owner: &&ConfigMap| -> Value {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid().unwrap(),
                "blockOwnerDeletion": true,
            })
        };
        let owners: Vec<Value> = owners.iter().map(reference).collect();
        let metadata = json!({"name": name, "ownerReferences": owners, "finalizers": finalizers});
        let object = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        self.maps.create(&PostParams::default(), &object).await.unwrap()
    }

    async fn delete(&self, name: &str, how: DeleteParams) {
        self.maps.delete(name, &how).await.unwrap();
    }

    async fn names(&self) -> Vec<String> {
        let all = self.maps.list(&Default::default()).await.unwrap();
        all.iter().map(ResourceExt::name_any).collect()
    }

    async fn let_go(&self, name: &str) {
        let patch = json!({"metadata": {"finalizers": null}});
        let params = PatchParams::default();
        self.maps
            .patch(name, &params, &Patch::Merge(patch))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_an_object_owns_goes_with_it_and_so_on() {
    let local = local();
    let owner = local.make("a", &[], &[]).await;
    let middle = local.make("b", &[&owner], &[]).await;
    local.make("c", &[&middle], &[]).await;
    local.make("d", &[], &[]).await;
    local.delete("a", DeleteParams::default()).await;
    assert_eq!(local.names().await, ["d"]);
}

#[tokio::test]
async fn whoever_has_another_owner_stays_with_that() {
    let local = local();
    let (one, other) = (local.make("a", &[], &[]).await, local.make("b", &[], &[]).await);
    local.make("c", &[&one, &other], &[]).await;
    local.delete("a", DeleteParams::default()).await;
    assert_eq!(local.names().await, ["b", "c"]);
    let left = local.maps.get("c").await.unwrap();
    assert_eq!(left.owner_references()[0].uid, other.uid().unwrap());
    assert_eq!(left.owner_references().len(), 1);
    local.delete("b", DeleteParams::default()).await;
    assert_eq!(local.names().await, [""; 0]);
}

#[tokio::test]
async fn orphans_stay_and_forget_their_owner() {
    let local = local();
    let owner = local.make("a", &[], &[]).await;
    local.make("b", &[&owner], &[]).await;
    local.delete("a", DeleteParams::orphan()).await;
    assert_eq!(local.names().await, ["b"]);
    assert!(local.maps.get("b").await.unwrap().owner_references().is_empty());
}

#[tokio::test]
async fn an_owner_goes_after_what_it_owns_where_that_is_wished() {
    let local = local();
    let owner = local.make("a", &[], &[]).await;
    local.make("b", &[&owner], &["example.com/busy"]).await;
    local.make("c", &[&owner], &[]).await;
    local.delete("a", DeleteParams::foreground()).await;
    assert_eq!(local.names().await, ["a", "b"]);
    let waiting = local.maps.get("a").await.unwrap();
    assert_eq!(waiting.finalizers(), ["foregroundDeletion"]);
    assert!(waiting.metadata.deletion_timestamp.is_some());
    local.let_go("b").await;
    assert_eq!(local.names().await, [""; 0]);
}

#[tokio::test]
async fn an_owner_of_nothing_does_not_wait() {
    let local = local();
    local.make("a", &[], &[]).await;
    local.delete("a", DeleteParams::foreground()).await;
    assert_eq!(local.names().await, [""; 0]);
}
