//! Consoles and ports by the Kubernetes API that a kubeconfig leads to, with no more than kubectl has.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Child;
use tokio::time::timeout;

use crate::lab::{Lab, MANIFEST, PATIENCE, stderr, stdout};
use crate::ports::{announced, echo};

/// Says that the Kubernetes API is meant, and not this machine's rvm.v1.
const BY: [&str; 2] = ["--kubeconfig", "state/kubeconfig"];

impl Lab {
    fn by_kubernetes(&self, args: &[&str]) -> Child {
        self.command(&[args, &BY].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    }
}

#[tokio::test]
async fn a_console_is_bytes_both_ways_and_ends_at_the_text() {
    let mut lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let mut viewer = lab.by_kubernetes(&["console", "alpine", "--until", "login:"]);
    let mut machine = lab.console().await;
    let mut keyboard = viewer.stdin.take().expect("it is piped");
    keyboard.write_all(b"root\n").await.expect("it is typed");
    let mut typed = [0; 5];
    machine.read_exact(&mut typed).await.expect("it arrives");
    assert_eq!(&typed, b"root\n");
    machine.write_all(b"alpine login: ").await.expect("it is printed");
    let output = timeout(PATIENCE, viewer.wait_with_output())
        .await
        .expect("it ends");
    let output = output.expect("it can be waited for");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "alpine login: ");
    assert!(stderr(&output).contains("Successfully connected to alpine console."));
}

#[tokio::test]
async fn the_escape_key_leaves_when_what_was_typed_has_arrived() {
    let mut lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let mut viewer = lab.by_kubernetes(&["console", "alpine"]);
    let mut machine = lab.console().await;
    let mut keyboard = viewer.stdin.take().expect("it is piped");
    keyboard.write_all(b"last words\x1d").await.expect("it is typed");
    let mut typed = Vec::new();
    timeout(PATIENCE, machine.read_to_end(&mut typed))
        .await
        .expect("it ends")
        .expect("well");
    assert_eq!(typed, b"last words");
    let status = timeout(PATIENCE, viewer.wait()).await.expect("it ends");
    assert!(status.expect("it can be waited for").success());
}

#[tokio::test]
async fn a_machine_that_has_yet_to_start_is_waited_for() {
    let mut lab = Lab::with_kubernetes().await;
    lab.machine_in("Scheduling");
    let mut viewer = lab.by_kubernetes(&["console", "alpine", "--until", "here"]);
    let mut said = tokio::io::BufReader::new(viewer.stderr.take().expect("it is piped"));
    let mut line = String::new();
    timeout(
        PATIENCE,
        tokio::io::AsyncBufReadExt::read_line(&mut said, &mut line),
    )
    .await
    .expect("it says something")
    .expect("it can be read");
    assert_eq!(line, "Waiting for alpine: Scheduling\n");
    lab.machine_in("Running");
    lab.console()
        .await
        .write_all(b"here")
        .await
        .expect("it is printed");
    let status = timeout(PATIENCE, viewer.wait()).await.expect("it ends");
    assert!(status.expect("it can be waited for").success());
}

#[tokio::test]
async fn who_loses_a_console_is_told_in_one_line() {
    let mut lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let first = lab.by_kubernetes(&["console", "alpine"]);
    let _first = lab.console().await;
    let _second = lab.by_kubernetes(&["console", "alpine"]);
    let _machine = lab.console().await;
    let output = timeout(PATIENCE, first.wait_with_output())
        .await
        .expect("it ends");
    let output = output.expect("it can be waited for");
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(
        error.ends_with("error: the connection was lost, or another viewer has taken it\n"),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_be_had_is_the_servers_own_line() {
    let lab = Lab::with_kubernetes().await;
    let error = |name: &'static str| {
        let lab = &lab;
        async move {
            lab.error(&[&["console", name, "--timeout", "0"], &BY[..]].concat())
                .await
        }
    };
    assert!(error("nobody").await.ends_with("\"nobody\" not found"));
    lab.machine_in("Succeeded");
    assert_eq!(error("alpine").await, "error: VMI is not running");
    lab.machine_in("Failed");
    assert!(error("alpine").await.ends_with("VMI is in failed status"));
}

#[tokio::test]
async fn a_local_port_leads_into_the_guest() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let port = format!("0:{}", echo().await);
    let mut forwarder = lab.by_kubernetes(&["port-forward", "vmi/alpine", &port]);
    let (address, _errors) = announced(&mut forwarder).await;
    let mut stream = TcpStream::connect(&address).await.expect("it listens");
    // More than one message.
    let much = vec![b'x'; 100_000];
    stream.write_all(&much).await.expect("it takes it");
    let mut back = vec![0; much.len()];
    timeout(PATIENCE, stream.read_exact(&mut back))
        .await
        .expect("it comes back")
        .expect("all of it");
    assert!(back == much);
    let asked = lab.asked.lock().expect("nobody panics").clone();
    assert!(
        asked[0].ends_with("/tcp") && asked[0].contains("virtualmachineinstances/alpine/portforward/"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn datagrams_are_messages() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let guest = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let port = format!("udp/0:{}", guest.local_addr().expect("it has one").port());
    let mut forwarder = lab.by_kubernetes(&["port-forward", "alpine", &port]);
    let (address, _errors) = announced(&mut forwarder).await;
    let local = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    local.send_to(b"question", &address).await.expect("it goes");
    let mut datagram = [0; 100];
    let heard = timeout(PATIENCE, guest.recv_from(&mut datagram))
        .await
        .expect("a datagram");
    let (length, from) = heard.expect("it is good");
    assert_eq!(&datagram[..length], b"question");
    guest.send_to(b"answer", from).await.expect("it goes");
    let heard = timeout(PATIENCE, local.recv(&mut datagram))
        .await
        .expect("a datagram");
    assert_eq!(&datagram[..heard.expect("it is good")], b"answer");
}

#[tokio::test]
async fn standard_input_and_output_are_a_connection() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let port = echo().await.to_string();
    let mut caller = lab.by_kubernetes(&["port-forward", "--stdio", "vmi/alpine", &port]);
    let (mut input, mut output) = (
        caller.stdin.take().expect("piped"),
        caller.stdout.take().expect("piped"),
    );
    input.write_all(b"there and back").await.expect("it takes it");
    let mut back = [0; 14];
    timeout(PATIENCE, output.read_exact(&mut back))
        .await
        .expect("it comes back")
        .expect("all of it");
    assert_eq!(&back, b"there and back");
    drop(input);
    let status = timeout(PATIENCE, caller.wait()).await.expect("it ends");
    assert!(status.expect("it can be waited for").success());
}

#[tokio::test]
async fn objects_are_read_with_kubectls_requests() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let get = |args: &[&'static str]| [&["get"], args, &BY[..]].concat();
    let name = lab.ok(&get(&["vmi", "alpine", "-o", "name"])).await;
    assert_eq!(name, "virtualmachineinstance.kubevirt.io/alpine\n");
    lab.ok(&get(&["-o", "json", "-l", "a=b,c!=d"])).await;
    lab.ok(&get(&["-o", "name", "-A"])).await;
    let nobody = lab.error(&get(&["vm/nobody"])).await;
    assert!(nobody.ends_with("not found"), "{nobody}");
    let asked = lab.asked.lock().expect("nobody panics").clone();
    let (all, here) = ("/apis/kubevirt.io/v1", "/apis/kubevirt.io/v1/namespaces/default");
    assert_eq!(asked[0], format!("GET {here}/virtualmachineinstances/alpine"));
    assert!(
        asked[1].starts_with(&format!("GET {here}/virtualmachineinstances?")),
        "{asked:?}"
    );
    assert!(asked[1].contains("labelSelector=a%3Db%2Cc%21%3Dd"), "{asked:?}");
    assert!(
        asked[2].starts_with(&format!("GET {all}/virtualmachineinstances?")),
        "{asked:?}"
    );
    assert_eq!(asked[3], format!("GET {here}/virtualmachines/nobody"));
}

#[tokio::test]
async fn what_a_server_of_rvm_v1_does_not_have_is_refused_with_what_to_do() {
    let lab = Lab::new().await;
    let server = format!("unix://{}", lab.folder.path().join("run/rvm.sock").display());
    let refused = |args: &'static [&'static str]| {
        let (lab, server) = (&lab, &server);
        async move { lab.error(&[&["--server", server, "get"], args].concat()).await }
    };
    let advice = "name a kubeconfig (--kubeconfig, KUBECONFIG) instead of a server";
    assert_eq!(
        refused(&["vm"]).await,
        format!("error: rvm.v1 has no virtualmachines; {advice}")
    );
    assert_eq!(
        refused(&["-l", "a=b"]).await,
        format!("error: rvm.v1 has no selectors; {advice}")
    );
}

#[tokio::test]
async fn a_manifest_is_applied_by_server_side_apply() {
    let lab = Lab::with_kubernetes().await;
    lab.write("vmi.yaml", MANIFEST);
    let apply = [&["apply", "-f", "vmi.yaml"], &BY[..]].concat();
    let outcome = |outcome: &str| format!("virtualmachineinstance.kubevirt.io/alpine {outcome}\n");
    assert_eq!(lab.ok(&apply).await, outcome("created"));
    assert_eq!(lab.ok(&apply).await, outcome("unchanged"));
    lab.write("vmi.yaml", &MANIFEST.replace("128Mi", "256Mi"));
    assert_eq!(lab.ok(&apply).await, outcome("configured"));
    let alpine = lab.api.object("default", "alpine").expect("it is there");
    assert_eq!(alpine["spec"]["domain"]["memory"]["guest"], "256Mi");
    let asked = lab.asked.lock().expect("nobody panics").clone();
    let path = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances/alpine";
    let request = format!("PATCH {path}?fieldManager=rvm&fieldValidation=Strict ");
    assert!(asked[1].starts_with(&request), "{asked:?}");
}

#[tokio::test]
async fn what_is_applied_by_kubernetes_is_waited_for() {
    let lab = Lab::with_kubernetes().await;
    lab.write("vmi.yaml", MANIFEST);
    let applying = lab.by_kubernetes(&["apply", "-f", "vmi.yaml", "--wait", "-n", "lab"]);
    let started = async {
        while lab.api.object("lab", "alpine").is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let status = serde_json::json!({"status": {"phase": "Running"}});
        lab.api.merge("lab", "alpine", &status);
    };
    let (output, ()) = tokio::join!(timeout(PATIENCE, applying.wait_with_output()), started);
    let output = output.expect("it ends").expect("it can be waited for");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).ends_with("alpine: Running\n"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn objects_of_a_cluster_are_deleted_and_not_this_machines_own() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let deleted = lab.ok(&[&["delete", "vmi/alpine"], &BY[..]].concat()).await;
    assert_eq!(deleted, "virtualmachineinstance.kubevirt.io \"alpine\" deleted\n");
    assert!(lab.api.object("default", "alpine").is_none());
    let here = "/apis/kubevirt.io/v1/namespaces/default";
    let path = format!("{here}/virtualmachineinstances/alpine");
    let asked = std::mem::take(&mut *lab.asked.lock().expect("nobody panics"));
    assert_eq!(asked, [format!("DELETE {path}"), format!("GET {path}")]);
    // Kinds that rvm.v1 has not go there in any case.
    let nobody = lab.error(&["delete", "vm/nobody"]).await;
    assert!(nobody.ends_with("not found"), "{nobody}");
    assert_eq!(lab.ok(&["delete", "vm/nobody", "--ignore-not-found"]).await, "");
    let asked = lab.asked.lock().expect("nobody panics").clone();
    assert_eq!(asked[0], format!("DELETE {here}/virtualmachines/nobody"));
}

#[tokio::test]
async fn what_is_no_single_object_of_the_namespace_is_not_touched() {
    let lab = Lab::with_kubernetes().await;
    let manifest = |kind: &str, name: &str, namespace: &str| {
        let text = format!(
            "apiVersion: kubevirt.io/v1\nkind: {kind}\nmetadata: {{name: '{name}', namespace: {namespace}}}\n"
        );
        lab.write("object.yaml", &text);
    };
    let refused = |verb: &'static str| {
        let lab = &lab;
        async move {
            lab.error(&[&[verb, "-f", "object.yaml", "-n", "lab"], &BY[..]].concat())
                .await
        }
    };
    for verb in ["apply", "delete"] {
        manifest("VirtualMachine", "", "lab");
        assert_eq!(refused(verb).await, "error: \"\" is not the name of an object");
        manifest("VirtualMachine", "../kubevirts/rvm", "lab");
        assert!(refused(verb).await.ends_with("is not the name of an object"));
        manifest("VirtualMachine", "a", "other");
        let elsewhere = refused(verb).await;
        assert!(
            elsewhere.ends_with("\"other\" does not match the namespace \"lab\""),
            "{elsewhere}"
        );
        manifest("KubeVirt", "rvm", "lab");
        assert!(refused(verb).await.contains("is not a kind of machine; kubectl"));
    }
    assert_eq!(lab.asked.lock().expect("nobody panics").len(), 0);
}

#[tokio::test]
async fn the_users_own_kubeconfig_is_asked_where_this_machine_runs_no_handler() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    // Nothing listens on this machine, nothing is named, and local mode has left no file.
    let kubeconfig =
        std::fs::read_to_string(lab.folder.path().join("state/kubeconfig")).expect("it is there");
    std::fs::remove_file(lab.folder.path().join("state/kubeconfig")).expect("it was there");
    std::fs::create_dir(lab.folder.path().join(".kube")).expect("a folder");
    lab.write(".kube/config", &kubeconfig);
    let here = lab.folder.path().join("elsewhere");
    let run = |args: &'static [&'static str]| {
        let mut command = lab.command(args);
        command.env("RVM_RUN", &here);
        async move { command.output().await.expect("it starts") }
    };
    let output = run(&["get", "-o", "name"]).await;
    assert_eq!(
        stdout(&output),
        "virtualmachineinstance.kubevirt.io/alpine\n",
        "{}",
        stderr(&output)
    );
    let asked = std::mem::take(&mut *lab.asked.lock().expect("nobody panics"));
    assert!(
        asked[0].starts_with("GET /apis/kubevirt.io/v1/namespaces/default/"),
        "{asked:?}"
    );
    // A server that is named is asked alone.
    let output = run(&["--server", "unix:///nowhere/rvm.sock", "get"]).await;
    assert!(
        stderr(&output).contains("nothing listens on /nowhere/rvm.sock"),
        "{}",
        stderr(&output)
    );
    // Without that file it is said what is missing here.
    std::fs::remove_file(lab.folder.path().join(".kube/config")).expect("it was there");
    let output = run(&["get"]).await;
    assert!(
        stderr(&output).contains("start `rvm-handler --local`"),
        "{}",
        stderr(&output)
    );
    assert_eq!(lab.asked.lock().expect("nobody panics").len(), 0);
}

#[tokio::test]
async fn a_virtual_machine_is_named_as_virtctl_names_it() {
    let lab = Lab::with_kubernetes().await;
    let port = echo().await.to_string();
    let named = ["port-forward", "--stdio", "vm/alpine/lab", &port];
    let refused = lab.error(&[&named, &BY[..]].concat()).await;
    assert!(refused.ends_with("not found"), "{refused}");
    let asked = std::mem::take(&mut *lab.asked.lock().expect("nobody panics"));
    let base = "/apis/subresources.kubevirt.io/v1/namespaces/lab/virtualmachines/alpine";
    assert_eq!(asked, [format!("GET {base}/portforward/{port}/tcp")]);
    // Its instance, which has its name, has the console.
    lab.machine_in("Failed");
    let ended = lab.error(&[&["console", "vm/alpine"], &BY[..]].concat()).await;
    assert!(ended.ends_with("VMI is in failed status"), "{ended}");
    let set = lab.error(&[&["console", "vmirs/alpine"], &BY[..]].concat()).await;
    assert_eq!(set, "error: \"vmirs\" is not a kind of machine; use vmi or vm");
}
