//! `rvm expose` and `rvm permitted-devices`: virtctl's requests and words.

use serde_json::{Value, json};

use crate::lab::Lab;

const SERVICES: &str = "POST /api/v1/namespaces/default/services ";

impl Lab {
    /// The Service that was made last.
    fn service(&self) -> Value {
        let asked = self.asked.lock().expect("nobody panics").clone();
        let last = asked.last().and_then(|line| line.strip_prefix(SERVICES));
        serde_json::from_str(last.expect("a Service was made last")).expect("as JSON")
    }
}

#[tokio::test]
async fn a_machine_is_exposed_by_virtctls_service() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let flags = "--name ssh --port 5555 --target-port 22 --type nodeport --port-name p --ip-family ipv4,ipv6";
    let args: Vec<&str> = "expose VMI alpine".split(' ').chain(flags.split(' ')).collect();
    assert_eq!(
        lab.ok(&args).await,
        "Service ssh successfully created for vmi alpine\n"
    );
    let owner = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "alpine", "uid": "u1", "controller": true,
    });
    let spec = json!({
        "type": "NodePort", "selector": {"vmi.kubevirt.io/id": "alpine"},
        "ports": [{"name": "p", "port": 5555, "protocol": "TCP", "targetPort": 22}],
        "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack",
    });
    let metadata = json!({"name": "ssh", "namespace": "default", "ownerReferences": [owner]});
    assert_eq!(
        lab.service(),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    );
}

#[tokio::test]
async fn without_a_port_those_of_the_interface_are_exposed() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let expose = ["expose", "vmi", "alpine", "--name", "all"];
    assert_eq!(
        lab.error(&expose).await,
        "error: couldn't find port via --port flag or introspection"
    );
    let interface = json!({"name": "net", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]});
    let spec =
        json!({"networks": [{"name": "net", "pod": {}}], "domain": {"devices": {"interfaces": [interface]}}});
    lab.api.merge("default", "alpine", &json!({"spec": spec}));
    lab.ok(&expose).await;
    assert_eq!(
        lab.service()["spec"]["ports"],
        json!([
            {"name": "port-1", "port": 80, "protocol": "TCP"},
            {"name": "port-2", "port": 53, "protocol": "UDP"},
        ])
    );
}

#[tokio::test]
async fn what_cannot_be_exposed_is_refused_in_virtctls_words() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let refused = |kind: &'static str, name: &'static str, flags: &'static [&'static str]| {
        let lab = &lab;
        async move {
            let args = ["expose", kind, name, "--name", "s", "--port", "1"];
            lab.error(&[&args, flags].concat()).await
        }
    };
    assert_eq!(
        refused("pod", "alpine", &[]).await,
        "error: unsupported resource type: pod"
    );
    let nobody = refused("vm", "nobody", &[]).await;
    assert!(
        nobody.starts_with("error: error fetching VirtualMachine: "),
        "{nobody}"
    );
    let flags: [(&[&str], &str); 5] = [
        (&["--type", "ExternalName"], "type: ExternalName not supported"),
        (&["--type", "x"], "unknown service type: x"),
        (&["--protocol", "x"], "unknown protocol: x"),
        (&["--ip-family", "IPv4,IPv4"], "unknown IPFamily/s: IPv4,IPv4"),
        (&["--ip-family-policy", "x"], "unknown IPFamilyPolicy/s: x"),
    ];
    for (flags, said) in flags {
        assert_eq!(refused("vmi", "alpine", flags).await, format!("error: {said}"));
    }
}

#[tokio::test]
async fn a_server_without_services_is_told_of_with_what_to_do() {
    let lab = Lab::with_kubernetes().await;
    lab.api.put(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "spec": {},
        "metadata": {"namespace": "local", "name": "alpine"},
    }));
    let expose = [
        "expose", "vmi", "alpine", "--name", "s", "--port", "1", "-n", "local",
    ];
    let line = lab.error(&expose).await;
    assert!(line.starts_with("error: service creation failed: "), "{line}");
    assert!(line.ends_with("rvm port-forward reaches a guest there"), "{line}");
}

#[tokio::test]
async fn permitted_devices_are_those_of_the_installation() {
    let lab = Lab::with_kubernetes().await;
    assert_eq!(
        lab.ok(&["permitted-devices", "-n", "rvm"]).await,
        "Permitted Devices: \nHost Devices: \na/nic, b/disk \nGPU Devices: \n\n"
    );
}
