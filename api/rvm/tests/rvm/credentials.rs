//! Keys and passwords in the Secrets of a machine.

use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::lab::{Lab, kubeconfig};

/// A VirtualMachine and a Secret, as they are kept.
type Kept = Arc<Mutex<(Value, Value)>>;

fn merged(mut kept: Value, patch: &Value) -> Value {
    let version = kept["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse::<u32>().ok());
    assert_eq!(
        patch["metadata"]["resourceVersion"],
        kept["metadata"]["resourceVersion"]
    );
    for (field, value) in patch["data"].as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(kept["data"].as_object_mut().and_then(|data| data.remove(field))),
            value => kept["data"][field] = value.clone(),
        }
    }
    if !patch["spec"].is_null() {
        kept["spec"] = patch["spec"].clone();
    }
    kept["metadata"]["resourceVersion"] = (version.unwrap_or_default() + 1).to_string().into();
    kept
}

/// An API with a machine `vm`, and a Secret once one is made.
async fn lab() -> (Lab, Kept) {
    let vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"name": "vm", "namespace": "default", "uid": "u1", "resourceVersion": "1"},
        "spec": {"template": {"spec": {}}},
    });
    let kept: Kept = Arc::new(Mutex::new((vm, Value::Null)));
    let machine = get(|State(kept): State<Kept>| async move { Json(kept.lock().expect("whole").0.clone()) })
        .patch(|State(kept): State<Kept>, body: String| async move {
            let mut kept = kept.lock().expect("whole");
            kept.0 = merged(kept.0.clone(), &serde_json::from_str(&body).expect("JSON"));
            Json(kept.0.clone())
        });
    let secrets = post(
        |State(kept): State<Kept>, Json(mut secret): Json<Value>| async move {
            secret["metadata"]["name"] = "made".into();
            secret["metadata"]["resourceVersion"] = "1".into();
            kept.lock().expect("whole").1 = secret.clone();
            Json(secret)
        },
    );
    let secret = get(|State(kept): State<Kept>, Path(_): Path<String>| async move {
        Json(kept.lock().expect("whole").1.clone())
    })
    .patch(
        |State(kept): State<Kept>, Path(_): Path<String>, body: String| async move {
            let mut kept = kept.lock().expect("whole");
            kept.1 = merged(kept.1.clone(), &serde_json::from_str(&body).expect("JSON"));
            Json(kept.1.clone())
        },
    );
    let router = Router::new()
        .route(
            "/apis/kubevirt.io/v1/namespaces/default/virtualmachines/vm",
            machine,
        )
        .route("/api/v1/namespaces/default/secrets", secrets)
        .route("/api/v1/namespaces/default/secrets/{name}", secret)
        .with_state(Arc::clone(&kept));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has one").to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let lab = Lab::new().await;
    std::fs::create_dir(lab.folder.path().join("state")).expect("a folder");
    lab.write("state/kubeconfig", &kubeconfig(&address));
    (lab, kept)
}

/// What a Secret holds, in order.
fn held(kept: &Kept) -> Vec<String> {
    let kept = kept.lock().expect("whole");
    let data = kept.1["data"].as_object().expect("data").values();
    let decoded = data.map(|value| {
        BASE64_STANDARD
            .decode(value.as_str().expect("text"))
            .expect("base64")
    });
    let mut texts: Vec<_> = decoded
        .map(|bytes| String::from_utf8(bytes).expect("text"))
        .collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn a_key_is_let_in_and_let_in_no_more() {
    let (lab, kept) = lab().await;
    let key = ["--user", "ann", "--value", "ssh-ed25519 AAAA ann", "vm"];
    let credentials = |verb: &'static str, key: &[&'static str]| [&["credentials", verb], key].concat();
    let none = lab
        .error(&credentials(
            "add-ssh-key",
            &[&key[..], &["--update-secret"]].concat(),
        ))
        .await;
    assert_eq!(none, "error: no secrets specified for user: ann");
    // The machine names no Secret, so one is made that it owns.
    assert_eq!(lab.ok(&credentials("add-ssh-key", &key)).await, "");
    assert_eq!(held(&kept), ["ssh-ed25519 AAAA ann"]);
    {
        let (vm, secret) = &*kept.lock().expect("whole");
        assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "u1");
        assert_eq!(
            vm["spec"]["template"]["spec"]["accessCredentials"],
            json!([{"sshPublicKey": {
                "source": {"secret": {"secretName": "made"}},
                "propagationMethod": {"qemuGuestAgent": {"users": ["ann"]}},
            }}])
        );
    }
    let again = lab.ok(&credentials("add-ssh-key", &key)).await;
    assert_eq!(again, "Secret \"made\" already contains this SSH key.\n");
    lab.write("key.pub", "ssh-rsa BBBB bob\n");
    let other = ["-u", "ann", "-f", "key.pub", "vm"];
    let added = lab.ok(&credentials("add-ssh-key", &other)).await;
    assert_eq!(added, "Successfully added the key to secret \"made\"\n");
    assert_eq!(held(&kept), ["ssh-ed25519 AAAA ann", "ssh-rsa BBBB bob"]);
    assert_eq!(lab.ok(&credentials("remove-ssh-key", &key)).await, "");
    assert_eq!(held(&kept), ["ssh-rsa BBBB bob"]);
    let nobody = ["--user", "eve", "--value", "ssh-rsa BBBB", "vm"];
    let said = lab.ok(&credentials("remove-ssh-key", &nobody)).await;
    assert_eq!(said, "No secrets associated with user eve\n");
}

#[tokio::test]
async fn a_password_is_set_in_the_machines_own_secret_and_in_others_by_force() {
    let (lab, kept) = lab().await;
    let set = [
        "credentials",
        "set-password",
        "--user",
        "ann",
        "-p",
        "geheim",
        "vm",
    ];
    let none = lab.error(&set).await;
    assert_eq!(
        none,
        "error: no secrets assigned to UserPassword AccessCredentials"
    );
    {
        let mut kept = kept.lock().expect("whole");
        kept.0["spec"]["template"]["spec"]["accessCredentials"] = json!([{"userPassword": {
            "source": {"secret": {"secretName": "shared"}}, "propagationMethod": {"qemuGuestAgent": {}},
        }}]);
        kept.1 = json!({"metadata": {"name": "shared", "resourceVersion": "7"}});
    }
    let foreign = lab.error(&set).await;
    assert!(
        foreign.contains("secret shared does not have an owner reference pointing to VM vm"),
        "{foreign}"
    );
    let done = lab.ok(&[&set[..], &["--force"]].concat()).await;
    assert_eq!(done, "Successfully set password in secret \"shared\"\n");
    assert_eq!(held(&kept), ["geheim"]);
    let odd = lab
        .error(&["credentials", "set-password", "-u", "a/b", "-p", "x", "vm"])
        .await;
    assert!(
        odd.contains("is no name under which a Secret can keep a password"),
        "{odd}"
    );
}
