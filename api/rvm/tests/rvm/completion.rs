//! What shells offer: names by asking the server, the rest by the definition.

use std::os::unix::fs::symlink;
use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::lab::{Lab, PATIENCE, stderr, stdout};

/// Presses Tab behind these words, in a shell that has loaded our script as users do; prints what is offered.
const TAB: &str = r#"
source <(rvm completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
$(complete -p rvm | sed 's/.*-F \([^ ]*\) .*/\1/') rvm "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

impl Lab {
    async fn with_machines() -> Self {
        let lab = Self::with_kubernetes().await;
        for (namespace, name) in [
            ("default", "alpine"),
            ("default", "albatross"),
            ("default", "debian"),
            ("lab", "other"),
        ] {
            lab.api.put(json!({
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"domain": {"devices": {}}}, "status": {"phase": "Running"},
            }));
        }
        lab
    }

    /// A program in the lab's surroundings, with ours on its path.
    fn beside(&self, program: &str) -> Command {
        let ours = self.command(&[]);
        let folder = std::path::Path::new(env!("CARGO_BIN_EXE_rvm"))
            .parent()
            .expect("it is in a folder");
        let mut command = Command::new(program);
        for (name, value) in ours.as_std().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", folder.display()));
        command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn offered(&self, words: &[&str]) -> Vec<String> {
        let mut bash = self.beside("bash");
        bash.args(["--norc", "--noprofile", "-c", TAB, "bash"])
            .args(words);
        lines(bash).await
    }
}

async fn lines(mut command: Command) -> Vec<String> {
    let output = timeout(PATIENCE, command.output())
        .await
        .expect("it ends")
        .expect("it starts");
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_offers_the_names_of_machines() {
    let lab = Lab::with_machines().await;
    assert_eq!(
        lab.offered(&["rvm", "console", "al"]).await,
        ["albatross", "alpine"]
    );
    assert_eq!(lab.offered(&["rvm", "console", "vmi/d"]).await, ["vmi/debian"]);
    assert_eq!(lab.offered(&["rvm", "-n", "lab", "logs", ""]).await[0], "other");
    assert_eq!(
        lab.offered(&["rvm", "ssh", "root@vmi/a"]).await,
        ["root@vmi/albatross", "root@vmi/alpine"]
    );
    let by_kubernetes = ["rvm", "--kubeconfig", "state/kubeconfig", "get", "vmi", "al"];
    assert_eq!(lab.offered(&by_kubernetes).await, ["albatross", "alpine"]);
    assert_eq!(lab.offered(&["rvm", "images", "rm", "r.ex"]).await.len(), 1);
}

#[tokio::test]
async fn bash_offers_verbs_kinds_and_namespaces() {
    let lab = Lab::with_machines().await;
    assert_eq!(lab.offered(&["rvm", "soft"]).await, ["soft-reboot"]);
    assert_eq!(lab.offered(&["rvm", "pause", "vm"]).await, ["vm", "vmi"]);
    assert_eq!(lab.offered(&["rvm", "get", "-n", "l"]).await, ["lab"]);
    let kinds = lab.offered(&["rvm", "get", "vm"]).await;
    assert_eq!(kinds, ["vm", "vmi", "vmirs"]);
    assert_eq!(lab.offered(&["rvm", "--context", ""]).await, [""]);
}

#[tokio::test]
async fn who_cannot_be_asked_offers_nothing_and_says_nothing() {
    let lab = Lab::with_machines().await;
    let gone = ["rvm", "--server", "unix:///nowhere", "console", "a"];
    assert_eq!(lab.offered(&gone).await, [""]);
}

#[tokio::test]
async fn other_shells_ask_for_the_same_names() {
    let lab = Lab::with_machines().await;
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = lab.ok(&["completion", shell]).await;
        assert!(script.contains("RVM_COMPLETE"), "{script}");
        let mut rvm = lab.command(&["--", "rvm", "console", "alp"]);
        let offered = lines({
            rvm.env("RVM_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", "2");
            rvm
        })
        .await;
        assert!(
            offered.len() == 1 && offered[0].starts_with("alpine"),
            "{shell}: {offered:?}"
        );
    }
}

#[tokio::test]
async fn kubectl_is_told_what_its_plugins_would_offer() {
    let lab = Lab::with_machines().await;
    let program = lab.folder.path().join("kubectl_complete-virt");
    symlink(env!("CARGO_BIN_EXE_rvm"), &program).expect("a link");
    let mut command = lab.beside(program.to_str().expect("plain"));
    command
        .env("KUBECONFIG", "state/kubeconfig")
        .args(["console", "alp"]);
    assert_eq!(lines(command).await, ["alpine", ":4"]);
}
