//! VirtualMachines in local mode: what their run strategies promise, by a real kubectl, with real guests that are emulated.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::guest::{self, NAME};
use rvm_e2e::machines::{self, SUBRESOURCES};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{HandlerSetup, Kubectl, Manifest, Plain, Tools};
use serde_json::{Value, json};

/// A console as virtctl opens it, which answers, and which the next viewer takes over.
fn shown_by_websocket(kubectl: &Kubectl) -> Plain {
    let versions = kubectl.ok(&["api-versions"]).unwrap();
    assert!(versions.contains("subresources.kubevirt.io/v1\n"), "{versions}");
    let path = format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/console");
    let mut first = Plain::open(kubectl, &path).unwrap();
    first.expect(guest::PROMPT).unwrap();
    first.send(b"echo answer=$((6 * 7))\r").unwrap();
    first.expect("answer=42\r\n").unwrap();
    let mut second = Plain::open(kubectl, &path).unwrap();
    assert_eq!(first.end().unwrap(), None);
    // What was said before is said again to whoever comes.
    second.expect("answer=42\r\n").unwrap();
    second
}

/// A machine of the demo's name, whose template is the demo.
fn machine(strategy: &str) -> Manifest {
    machines::machine(strategy).unwrap()
}

fn await_word(kubectl: &Kubectl, word: &str) -> Value {
    machines::await_word(kubectl, word).unwrap()
}

/// Waits for an instance that runs and is another than `before`; its UID.
fn await_another(kubectl: &Kubectl, before: &str) -> String {
    eventually("another instance", || {
        let found = kubectl.get(&["vmi"])?["items"][0].clone();
        let uid = found["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let runs = found["status"]["phase"] == "Running" && uid != before;
        Ok(Look::of(runs.then_some(uid), || found["status"].to_string()))
    })
    .unwrap()
}

#[test]
fn a_machine_follows_its_run_strategy_from_its_first_start_to_its_deletion() {
    let tools = Tools::open().unwrap();
    let handler = HandlerSetup::local().start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();

    kubectl.apply(&[machine("Halted")]).unwrap();
    let vm = await_word(&kubectl, "Stopped");
    assert_eq!(vm["status"]["created"], false);
    assert_eq!(kubectl.get(&["vmi"]).unwrap()["items"], json!([]));

    let put_with = |what: &str, action: &str, options: &str| {
        let path = format!("{SUBRESOURCES}/{what}/{NAME}/{action}");
        kubectl.feed(&["replace", "--raw", &path, "-f", "-"], options)
    };
    let put = |what: &str, action: &str| put_with(what, action, "{}");
    let act = |action: &str| put("virtualmachines", action);
    let refused = act("stop").unwrap();
    assert!(
        refused.error_text().contains("VM is not running"),
        "{}",
        refused.error_text()
    );

    // It may start paused: then its guest begins when it is unpaused.
    let paused = put_with("virtualmachines", "start", r#"{"paused": true}"#);
    paused.unwrap().ok().unwrap();
    await_word(&kubectl, "Paused");
    put("virtualmachineinstances", "unpause").unwrap().ok().unwrap();
    let vm = await_word(&kubectl, "Running");
    let table = kubectl.ok(&["get", "vms"]).unwrap();
    assert!(table.starts_with("NAME") && table.contains("Running"), "{table}");
    let first = kubectl.vmi(NAME).unwrap();
    assert_eq!(
        first["metadata"]["ownerReferences"][0]["uid"],
        vm["metadata"]["uid"]
    );
    assert_eq!(first["metadata"]["annotations"]["kubevirt.io/vm-generation"], "2");
    let first = first["metadata"]["uid"].as_str().unwrap().to_owned();

    // A guest that switches itself off comes back, as another instance.
    let mut console = guest::answers(handler.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap();
    console.send("poweroff\n").unwrap();
    let second = await_another(&kubectl, &first);

    // So does one that somebody deletes.
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=120s"]).unwrap();
    let third = await_another(&kubectl, &second);

    // One that is paused stands still, and says so.
    put("virtualmachineinstances", "pause").unwrap().ok().unwrap();
    await_word(&kubectl, "Paused");
    put("virtualmachineinstances", "unpause").unwrap().ok().unwrap();
    await_word(&kubectl, "Running");

    // One that is to be restarted comes back as another; its console ends.
    let viewer = shown_by_websocket(&kubectl);
    act("restart").unwrap().ok().unwrap();
    viewer.end().unwrap();
    await_another(&kubectl, &third);

    act("stop").unwrap().ok().unwrap();
    await_word(&kubectl, "Stopped");
    kubectl.ok(&["delete", "vm", NAME, "--timeout=60s"]).unwrap();
    let left = kubectl.get(&["vm,vmi,controllerrevisions"]).unwrap();
    assert_eq!(left["items"], json!([]));
    // The same thing again is counted, not told anew.
    let events = kubectl.events(NAME).unwrap();
    let told = |reason: &str| events.contains(&("Normal".to_owned(), reason.to_owned()));
    assert!(told("SuccessfulCreate") && told("SuccessfulDelete"), "{events:?}");
    assert!(events.iter().all(|(kind, _)| kind == "Normal"), "{events:?}");
}

#[test]
fn a_machine_that_could_not_run_is_refused_by_the_field_of_its_template() {
    let tools = Tools::open().unwrap();
    let handler = HandlerSetup::local().start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    let refused = |manifest: Manifest| {
        let output = kubectl.feed(&["apply", "-f", "-"], &manifest.text()).unwrap();
        assert_eq!(output.status(), Some(1), "{}", output.text());
        output.error_text()
    };
    let both = machine("Always").with(|vm| vm["spec"]["running"] = json!(true));
    assert!(refused(both).contains("spec.running"));
    let gpu = machine("Always").with(|vm| {
        vm["spec"]["template"]["spec"]["domain"]["devices"]["gpus"] =
            json!([{"name": "a", "deviceName": "b"}]);
    });
    assert!(refused(gpu).contains("spec.template.spec.domain.devices.gpus"));
}

#[test]
fn a_guest_tells_of_itself_and_boots_again_when_it_is_asked() {
    let tools = Tools::open().unwrap();
    let handler = HandlerSetup::local().start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    // By the Kubernetes API, as in a cluster: its console is a websocket there.
    let kubeconfig = handler.state_dir().join("kubeconfig");
    let by_kubernetes = ["console", NAME, "--kubeconfig", kubeconfig.to_str().unwrap()];
    let mut console = guest::answers(handler.rvm_on_terminal(&by_kubernetes).unwrap()).unwrap();
    kubectl
        .ok(&[
            "wait",
            "vmi",
            NAME,
            "--for=condition=AgentConnected",
            "--timeout=120s",
        ])
        .unwrap();
    let rvm = |verb: &str| handler.rvm(&[verb, NAME]).unwrap();
    let ask = |verb: &str| -> Value { serde_json::from_str(&rvm(verb).ok().unwrap()).unwrap() };
    let told = ask("guestosinfo");
    assert_eq!(
        (&told["hostname"], &told["os"]["id"]),
        (&json!(NAME), &json!("rvm-demo"))
    );
    let kernel = console.ask("uname -r").unwrap();
    assert_eq!(told["os"]["kernelRelease"], kernel);
    assert_eq!(ask("fslist")["items"], json!([]), "it has no disk");

    rvm("freeze").ok().unwrap();
    rvm("unfreeze").ok().unwrap();
    console.ask("touch /before").unwrap();
    let rebooted = rvm("soft-reboot").ok().unwrap();
    assert_eq!(rebooted, format!("VMI {NAME} was scheduled to soft-reboot\n"));
    console.expect(guest::PROMPT).unwrap();
    assert_eq!(console.ask("ls /before 2>/dev/null | wc -l").unwrap(), "0");
    let vmi = kubectl.vmi(NAME).unwrap();
    assert_eq!(vmi["status"]["phase"], "Running");
    assert!(console.leave().unwrap().status() == Some(0));
}
