//! The verbs against a server, as a user types them.

use crate::lab::{Lab, MANIFEST, stderr, stdout};
use serde_json::{Value, json};

#[tokio::test]
async fn apply_says_what_it_did() {
    let lab = Lab::new().await;
    lab.write("vmi.yaml", MANIFEST);
    let apply = ["apply", "-f", "vmi.yaml"];
    assert_eq!(
        lab.ok(&apply).await,
        "virtualmachineinstance.kubevirt.io/alpine created\n"
    );
    assert_eq!(
        lab.ok(&apply).await,
        "virtualmachineinstance.kubevirt.io/alpine unchanged\n"
    );
    lab.write("vmi.yaml", &MANIFEST.replace("128Mi", "256Mi"));
    assert_eq!(
        lab.ok(&apply).await,
        "virtualmachineinstance.kubevirt.io/alpine configured\n"
    );
}

#[tokio::test]
async fn apply_takes_several_documents_and_a_namespace() {
    let lab = Lab::new().await;
    lab.write(
        "two.yaml",
        &format!(
            "{MANIFEST}---{}",
            MANIFEST.replace("name: alpine", "name: second")
        ),
    );
    lab.ok(&["apply", "-f", "two.yaml", "-n", "lab"]).await;
    assert!(lab.api.object("lab", "alpine").is_some());
    assert!(lab.api.object("lab", "second").is_some());
}

#[tokio::test]
async fn apply_with_wait_returns_when_the_machine_runs() {
    let lab = Lab::new().await;
    lab.write("vmi.yaml", MANIFEST);
    let applied = lab.command(&["apply", "-f", "vmi.yaml", "--wait"]).output();
    let started = async {
        while lab.api.object("default", "alpine").is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        lab.api
            .merge("default", "alpine", &json!({ "status": { "phase": "Running" } }));
    };
    let (output, ()) = tokio::join!(applied, started);
    let output = output.unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).ends_with("alpine: Running\n"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn apply_with_wait_says_why_a_machine_has_failed() {
    let lab = Lab::new().await;
    lab.write("vmi.yaml", MANIFEST);
    lab.ok(&["apply", "-f", "vmi.yaml"]).await;
    let condition = json!({ "type": "Synchronized", "status": "False", "message": "no such image" });
    let status = json!({ "status": { "phase": "Failed", "conditions": [condition] } });
    lab.api.merge("default", "alpine", &status);
    let error = lab.error(&["apply", "-f", "vmi.yaml", "--wait"]).await;
    assert_eq!(error, "error: alpine has failed: no such image");
}

#[tokio::test]
async fn apply_says_in_one_line_what_is_wrong_with_a_manifest() {
    let lab = Lab::new().await;
    lab.write(
        "bad.yaml",
        &MANIFEST
            .replace("spec:", "spec:\n  architecture: amd64")
            .replace("128Mi", "4Mi"),
    );
    let error = lab.error(&["apply", "-f", "bad.yaml"]).await;
    assert_eq!(
        error,
        "error: VirtualMachineInstance \"alpine\" is not valid: spec.architecture is \"amd64\"; rvm runs riscv64 \
         only; spec.domain.memory.guest is 4Mi; the least is 32Mi"
    );
    lab.write("broken.yaml", "a: [");
    assert!(
        lab.error(&["apply", "-f", "broken.yaml"])
            .await
            .starts_with("error: broken.yaml: the manifest is not")
    );
}

#[tokio::test]
async fn get_shows_machines_as_a_table() {
    let lab = Lab::new().await;
    assert_eq!(
        stderr(&lab.rvm(&["get"]).await),
        "No machines found in namespace \"default\".\n"
    );
    lab.machine_in("Running");
    let table = lab.ok(&["get", "vmi"]).await;
    assert_eq!(
        table,
        "NAME     AGE         PHASE     IP   NODENAME   READY\nalpine   <unknown>   Running        n1\n"
    );
    assert!(lab.ok(&["get", "-A"]).await.starts_with("NAMESPACE   NAME "));
}

#[tokio::test]
async fn get_shows_one_machine_in_every_form_and_spelling() {
    let lab = Lab::new().await;
    lab.machine_in("Running");
    let json: Value = serde_json::from_str(&lab.ok(&["get", "alpine", "-o", "json"]).await).unwrap();
    assert_eq!(json, lab.api.object("default", "alpine").unwrap());
    assert!(
        lab.ok(&["get", "vmi", "alpine", "-o", "yaml"])
            .await
            .starts_with("---\napiVersion: kubevirt.io/v1\n")
    );
    let name = lab.ok(&["get", "vmi/alpine", "-o", "name"]).await;
    assert_eq!(name, "virtualmachineinstance.kubevirt.io/alpine\n");
    let list: Value = serde_json::from_str(&lab.ok(&["get", "-o", "json"]).await).unwrap();
    assert_eq!(list["items"][0], json);
}

#[tokio::test]
async fn a_machine_that_is_not_there_is_one_line() {
    let lab = Lab::new().await;
    let line = "error: virtualmachineinstances.kubevirt.io \"nobody\" not found";
    assert_eq!(lab.error(&["get", "nobody"]).await, line);
    assert_eq!(lab.error(&["console", "nobody"]).await, line);
    assert_eq!(lab.error(&["stop", "nobody"]).await, line);
    assert_eq!(lab.error(&["delete", "nobody"]).await, line);
    assert_eq!(lab.ok(&["delete", "nobody", "--ignore-not-found"]).await, "");
}

#[tokio::test]
async fn delete_returns_when_the_machine_is_gone() {
    let lab = Lab::new().await;
    lab.machine_in("Running");
    let deleted = "virtualmachineinstance.kubevirt.io \"alpine\" deleted\n";
    assert_eq!(lab.ok(&["delete", "alpine"]).await, deleted);
    lab.write("vmi.yaml", MANIFEST);
    lab.ok(&["apply", "-f", "vmi.yaml"]).await;
    assert_eq!(lab.ok(&["delete", "-f", "vmi.yaml"]).await, deleted);
    assert_eq!(lab.api.object("default", "alpine"), None);
}

#[tokio::test]
async fn stop_returns_when_the_machine_has_ended() {
    let lab = Lab::new().await;
    lab.machine_in("Running");
    let stopped = lab.command(&["stop", "alpine", "--grace-period", "3"]).output();
    let ends = async {
        while lab.machines.stopped().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        lab.machine_in("Succeeded");
    };
    let (output, ()) = tokio::join!(stopped, ends);
    assert_eq!(
        stdout(&output.unwrap()),
        "virtualmachineinstance.kubevirt.io/alpine stopped (Succeeded)\n"
    );
}

#[tokio::test]
async fn version_tells_both_ends() {
    let lab = Lab::new().await;
    let versions: Value = serde_json::from_str(&lab.ok(&["version", "-o", "json"]).await).unwrap();
    assert_eq!(versions["client"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        versions["server"],
        json!({ "version": env!("CARGO_PKG_VERSION"), "apiVersions": ["v1"] })
    );
}

#[tokio::test]
async fn the_kubeconfig_is_found_or_its_absence_is_explained() {
    let lab = Lab::new().await;
    assert!(
        lab.error(&["kubeconfig"])
            .await
            .ends_with("is not there; `rvm-handler --local` writes it when it starts")
    );
    std::fs::create_dir(lab.folder.path().join("state")).unwrap();
    let kubeconfig = lab.write("state/kubeconfig", "");
    assert_eq!(
        lab.ok(&["kubeconfig"]).await,
        format!("{}\n", kubeconfig.display())
    );
}

#[tokio::test]
async fn a_plugins_help_says_how_kubectl_calls_it() {
    let lab = Lab::new().await;
    let plugin = lab.folder.path().join("kubectl-rvm");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rvm"), &plugin).unwrap();
    let help = std::process::Command::new(plugin)
        .args(["console", "--help"])
        .output()
        .unwrap();
    assert!(
        stdout(&help).contains("Usage: kubectl rvm console "),
        "{}",
        stdout(&help)
    );
}
