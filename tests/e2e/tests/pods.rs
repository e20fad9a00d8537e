//! A pod for each machine, on a real node: made, placed, filled, served, refused and ended as KubeVirt's are.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rvm_e2e::guest::{self, NAME, condition};
use rvm_guests::Cache;
use rvm_guests::oci::{About, Layer, write_platform};
use rvm_guests::toolbox::Toolbox;
use rvm_harness::node::NODE;
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Api, Cluster, Handler, HandlerSetup, Kubectl, Manifest, Tools};
use serde_json::{Value, json};

/// The image of machines' pods in the node's registry, and as pods name it.
const IMAGE: &str = "rvmm-tcg:1";
const LAUNCHER: [&str; 5] = [
    "--launcher",
    "pod",
    "--launcher-image",
    "198.18.0.1:5000/rvmm-tcg:1",
    "--use-emulation",
];
/// What the guest serves.
const PAGE: &str = "from the guest";

/// QEMU and what it needs, and rvmm, as one file system: nothing else is in a machine's pod.
fn image(tools: &Tools, into: &Path) -> Result<()> {
    let toolbox = Toolbox::open(&Cache::open()?)?;
    let root = toolbox.unpacked();
    let mut layer = Layer::new();
    let mut folders = BTreeSet::new();
    let mut put = |layer: &mut Layer, path: &str, file: &Path| -> Result<()> {
        let mut above = String::new();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            if !above.is_empty() {
                above.push('/');
            }
            above.push_str(&part.as_os_str().to_string_lossy());
            if folders.insert(above.clone()) {
                layer.folder(&above, 0o755)?;
            }
        }
        let bytes = fs::read(file).with_context(|| file.display().to_string())?;
        layer.file(path, 0o755, &bytes)?;
        Ok(())
    };
    let qemu = root.join("usr/bin/qemu-system-riscv64");
    let rvmm = tools.own("rvmm")?;
    put(&mut layer, "usr/bin/qemu-system-riscv64", &qemu)?;
    put(&mut layer, "usr/bin/rvmm", &rvmm)?;
    let data = root.join("usr/share/qemu");
    for entry in fs::read_dir(&data)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("opensbi-riscv64") || name.starts_with("efi-virtio") {
            put(&mut layer, &format!("usr/share/qemu/{name}"), &entry.path())?;
        }
    }
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    for name in needed(root, &[&qemu, &rvmm])? {
        put(
            &mut layer,
            &format!("usr/lib/x86_64-linux-gnu/{name}"),
            &libraries.join(&name),
        )?;
    }
    put(
        &mut layer,
        "usr/lib64/ld-linux-x86-64.so.2",
        &root.join("usr/lib64/ld-linux-x86-64.so.2"),
    )?;
    layer.link("lib64", "usr/lib64")?.link("lib", "usr/lib")?;
    let about = About {
        tag: "1",
        command: &["/usr/bin/rvmm"],
        made_by: "a test",
    };
    write_platform(into, &about, "amd64", vec![layer])
}

/// The names of the libraries that programs are linked with, as the loader of this root finds them there.
fn needed(root: &Path, programs: &[&Path]) -> Result<BTreeSet<String>> {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut names = BTreeSet::new();
    for program in programs {
        let mut loader = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
        loader
            .arg("--library-path")
            .arg(&libraries)
            .arg("--list")
            .arg(program);
        let said = String::from_utf8(loader.output()?.stdout)?;
        let found = said
            .lines()
            .filter_map(|line| line.trim().split_once(" => "))
            .map(|(name, _)| name.to_owned())
            // The loader itself.
            .filter(|name| !name.starts_with('/'));
        names.extend(found);
    }
    ensure!(!names.is_empty(), "the loader lists no libraries");
    Ok(names)
}

/// A cluster with one real node, our API and the node's handler, whose machines are in pods.
struct Stage {
    handler: Handler,
    _api: Api,
    cluster: Cluster,
}

impl Stage {
    fn new() -> Result<Self> {
        let tools = Tools::open()?;
        let cluster = Cluster::start_on_node(&tools)?;
        let node = cluster.node()?;
        let folder = tempfile::tempdir()?;
        image(&tools, folder.path())?;
        node.push(folder.path(), IMAGE)?;
        // Nothing is asked of it by kube-apiserver, whose network this machine's loopback is not.
        let services = tools.source("deploy/api").display().to_string();
        cluster.kubectl().ok(&["create", "-f", &services])?;
        let api = Api::one(&tools, &cluster, &LAUNCHER)?;
        // The node's root, as it is seen from here.
        let kubelet = format!("/proc/{}/root/var/lib/kubelet", node.pid());
        let setup = HandlerSetup::on_node(&cluster, NODE);
        let setup = setup.with(&["--launcher", "pod", "--kubelet-dir", &kubelet]);
        Ok(Self {
            handler: setup.start(&tools)?,
            _api: api,
            cluster,
        })
    }

    fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// The pods of machines.
    fn pods(&self) -> Vec<Value> {
        let pods = self
            .kubectl()
            .get(&["pods", "-l", "kubevirt.io=virt-launcher"])
            .unwrap();
        pods["items"].as_array().unwrap().clone()
    }

    /// Waits until a VMI runs; the logs of all who take part, where it does not.
    fn await_running(&self, name: &str) -> Value {
        let running = self.kubectl().await_phase(name, "Running");
        let story = || {
            let pods = self.kubectl().run(&["describe", "pods"]).map(|said| said.text());
            let logs = self
                .kubectl()
                .run(&["logs", "-l", "kubevirt.io=virt-launcher"])
                .map(|said| said.text());
            format!("{pods:?}\n{logs:?}\n{}", self.handler.log())
        };
        running.with_context(story).unwrap()
    }
}

/// The demo guest with a web server's port let in, behind its pod's address.
fn served() -> Manifest {
    Manifest::demo().unwrap().with(|vmi| {
        vmi["metadata"]["labels"] = json!({"app": "guest"});
        vmi["metadata"]["annotations"]["mine"] = "kept".into();
        vmi["spec"]["networks"] = json!([{"name": "default", "pod": {}}]);
        let interface =
            json!({"name": "default", "masquerade": {}, "ports": [{"name": "web", "port": 8080}]});
        vmi["spec"]["domain"]["devices"]["interfaces"] = json!([interface]);
    })
}

#[test]
fn full_a_machine_lives_in_a_pod_from_its_making_to_its_end() {
    let mut stage = Stage::new().unwrap();
    stage.kubectl().apply(&[served()]).unwrap();
    let vmi = stage.await_running(NAME);
    let [pod] = stage.pods().try_into().unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("virt-launcher-vmi-alpine-"), "{name}");
    // Its VMI's annotations and labels have reached it.
    assert_eq!(pod["metadata"]["annotations"]["mine"], "kept");
    assert_eq!(pod["metadata"]["labels"]["app"], "guest");
    assert_eq!(pod["metadata"]["labels"]["vmi.kubevirt.io/id"], NAME);
    assert_eq!(
        vmi["status"]["activePods"],
        json!({pod["metadata"]["uid"].as_str().unwrap(): NODE})
    );
    assert_eq!(vmi["status"]["nodeName"], NODE);
    assert_eq!(
        vmi["status"]["interfaces"][0]["ipAddress"],
        pod["status"]["podIP"]
    );
    // Nobody there is root, or may become it.
    let status = stage.kubectl().ok(&[
        "get",
        "pod",
        &name,
        "-o",
        "jsonpath={.spec.containers[0].securityContext}",
    ]);
    assert!(status.unwrap().contains("\"drop\":[\"ALL\"]"));

    // At its console, and in the pod's logs.
    let viewer = stage.handler.rvm_on_terminal(&["console", NAME]).unwrap();
    let mut console = guest::answers(viewer).unwrap();
    eventually("guest's console in the pod's logs", || {
        let logs = stage.kubectl().ok(&["logs", &name])?;
        Ok(Look::of(logs.contains("echo $((6 * 7))").then_some(()), || logs))
    })
    .unwrap();
    eventually("condition Ready", || {
        let ready = condition(stage.kubectl(), "Ready")?;
        Ok(Look::of((ready.as_deref() == Some("True")).then_some(()), || {
            format!("{ready:?}")
        }))
    })
    .unwrap();

    // A page, and a Service that leads to it.
    // A line that is longer than the terminal is not shown as it was typed.
    console.ask("mkdir -p /w").unwrap();
    console.ask(&format!("echo {PAGE} >/w/index.html")).unwrap();
    console.ask("httpd -p 8080 -h /w").unwrap();
    is_reached_by_a_service(&stage);

    // The handler goes and comes back; the machine knows nothing of it.
    let before = guest::uptime(&mut console).unwrap();
    console.leave().unwrap();
    stage.handler.kill().unwrap();
    stage.handler.start().unwrap();
    let viewer = stage.handler.rvm_on_terminal(&["console", NAME]).unwrap();
    let mut console = guest::answers(viewer).unwrap();
    assert!(guest::uptime(&mut console).unwrap() >= before);
    console.leave().unwrap();
    assert_eq!(stage.kubectl().phase(NAME).unwrap().as_deref(), Some("Running"));

    // Who deletes the VMI ends the pod, and nothing stays.
    stage
        .kubectl()
        .ok(&["delete", "vmi", NAME, "--timeout=120s"])
        .unwrap();
    eventually("end of the pod", || {
        let pods = stage.pods();
        Ok(Look::of(pods.is_empty().then_some(()), || format!("{pods:?}")))
    })
    .unwrap();
    assert_eq!(stage.handler.leavings().unwrap(), Vec::<String>::new());
    let events = stage.kubectl().events(NAME).unwrap();
    let reasons: BTreeSet<&str> = events.iter().map(|(_, reason)| reason.as_str()).collect();
    for expected in ["SuccessfulCreate", "Created", "Started", "SuccessfulDelete"] {
        assert!(reasons.contains(expected), "{events:?}");
    }
}

#[test]
fn full_a_quota_refuses_a_pod_and_who_deletes_a_pod_ends_its_machine() {
    let stage = Stage::new().unwrap();
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}},
    });
    let fed = stage.kubectl().feed(&["apply", "-f", "-"], &quota.to_string());
    fed.unwrap().ok().unwrap();
    stage.kubectl().apply(&[Manifest::demo().unwrap()]).unwrap();
    stage.await_running(NAME);
    stage
        .kubectl()
        .apply(&[Manifest::demo().unwrap().named("second")])
        .unwrap();
    let told = eventually("refusal of the second pod", || {
        let vmi = stage.kubectl().vmi("second")?;
        let conditions = vmi["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let told = conditions.iter().find(|one| one["reason"] == "FailedCreate");
        let message = told.and_then(|told| told["message"].as_str()).map(str::to_owned);
        Ok(Look::of(message, || vmi["status"].to_string()))
    });
    assert!(told.unwrap().contains("exceeded quota: one"));
    assert_eq!(stage.pods().len(), 1);

    eventually("guest's agent", || {
        let agent = condition(stage.kubectl(), "AgentConnected")?;
        Ok(Look::of((agent.as_deref() == Some("True")).then_some(()), || {
            format!("{agent:?}")
        }))
    })
    .unwrap();
    let name = stage.pods()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    stage
        .kubectl()
        .ok(&["delete", "pod", &name, "--timeout=120s"])
        .unwrap();
    // Its guest was asked to end, and did.
    stage.kubectl().await_phase(NAME, "Succeeded").unwrap();
    // Its place is free by now.
    stage.await_running("second");
}

#[test]
fn full_the_command_of_a_probe_runs_in_the_guest_and_not_in_its_pod() {
    let stage = Stage::new().unwrap();
    let probed = Manifest::demo().unwrap().with(|vmi| {
        let command = json!(["/bin/sh", "-c", "test -e /run/served && uname -m | grep -q riscv64"]);
        vmi["spec"]["readinessProbe"] =
            json!({"exec": {"command": command}, "periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": 1});
    });
    stage.kubectl().apply(&[probed]).unwrap();
    stage.await_running(NAME);
    let await_ready = |status: &str| {
        eventually("condition Ready", || {
            let ready = condition(stage.kubectl(), "Ready")?;
            Ok(Look::of((ready.as_deref() == Some(status)).then_some(()), || {
                let events = stage.kubectl().run(&["describe", "pods"]);
                events.map_or_else(|error| error.to_string(), |said| said.text())
            }))
        })
        .unwrap();
    };
    // There is no such file yet.
    eventually("probe that has failed", || {
        let unhealthy = ["get", "events", "--field-selector", "reason=Unhealthy"];
        let events = stage.kubectl().ok(&unhealthy)?;
        Ok(Look::of(
            events.contains("Readiness probe failed").then_some(()),
            || events,
        ))
    })
    .unwrap();
    await_ready("False");
    let mut console = guest::answers(stage.handler.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap();
    console.ask("mkdir -p /run && touch /run/served").unwrap();
    await_ready("True");
    console.ask("rm /run/served").unwrap();
    await_ready("False");
    console.leave().unwrap();
    assert_eq!(stage.kubectl().phase(NAME).unwrap().as_deref(), Some("Running"));
}

#[test]
fn full_a_bridged_guest_has_its_pods_addresses_and_is_reached_as_the_pod_would_be() {
    let stage = Stage::new().unwrap();
    let bridged = served().with(|vmi| {
        vmi["spec"]["domain"]["devices"]["interfaces"] = json!([{"name": "default", "bridge": {}}]);
        vmi["spec"]["readinessProbe"] =
            json!({"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1});
    });
    stage.kubectl().apply(&[bridged]).unwrap();
    let vmi = stage.await_running(NAME);
    let [pod] = stage.pods().try_into().unwrap();
    let address = pod["status"]["podIP"].as_str().unwrap().to_owned();
    assert_eq!(vmi["status"]["interfaces"][0]["ipAddress"], address);
    let mut console = guest::answers(stage.handler.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap();
    // A line that is longer than the terminal is not shown as it was typed.
    console.ask("stty cols 400").unwrap();
    let has = format!("until ip -4 addr show eth0 | grep -q ' {address}/24 '; do sleep 1; done; echo ok");
    assert_eq!(console.ask(&has).unwrap(), "ok");
    let mac = console.ask("cat /sys/class/net/eth0/address").unwrap();
    assert_eq!(vmi["status"]["interfaces"][0]["mac"], mac);
    // Its router is the node, which it reaches as itself.
    assert!(
        console
            .ask("ip route")
            .unwrap()
            .contains("default via 198.18.1.1")
    );
    console.ask("mkdir -p /w").unwrap();
    console.ask(&format!("echo {PAGE} >/w/index.html")).unwrap();
    console.ask("httpd -p 8080 -h /w").unwrap();
    eventually("condition Ready, by a probe that reaches the guest", || {
        let ready = condition(stage.kubectl(), "Ready")?;
        Ok(Look::of((ready.as_deref() == Some("True")).then_some(()), || {
            format!("{ready:?}")
        }))
    })
    .unwrap();
    is_reached_by_a_service(&stage);
    console.leave().unwrap();
    stage
        .kubectl()
        .ok(&["delete", "vmi", NAME, "--timeout=120s"])
        .unwrap();
}

/// A Service that finds the machine by its labels leads to the page that the guest serves.
fn is_reached_by_a_service(stage: &Stage) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "198.18.2.20", "selector": {"vmi.kubevirt.io/id": NAME},
                 "ports": [{"port": 80, "targetPort": 8080}]},
    });
    let fed = stage.kubectl().feed(&["apply", "-f", "-"], &service.to_string());
    fed.unwrap().ok().unwrap();
    let lead = stage.cluster.node().unwrap().lead("198.18.2.20:80").unwrap();
    eventually("guest's page by its Service", || {
        let said = ask(lead.port());
        Ok(Look::of(said.contains(PAGE).then_some(()), || said.clone()))
    })
    .unwrap();
}

fn ask(port: u16) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return "nobody listens".to_owned();
    };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    match asked.and_then(|()| stream.read_to_string(&mut answer)) {
        Ok(_) => answer,
        Err(error) => error.to_string(),
    }
}
