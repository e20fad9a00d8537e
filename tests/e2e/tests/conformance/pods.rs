//! Machines' pods: what reaches them, what reaches the guest by them, and what becomes of them. On a real node, by the chart.

use rvm_e2e::guest::{self, NAME};
use rvm_e2e::installed::Installed;
use rvm_e2e::machines;
use rvm_harness::Manifest;
use rvm_harness::patience::{Look, eventually};
use serde_json::{Value, json};

/// Where the guest serves, and what.
const PORT: u16 = 8080;
const PAGE: &str = "from the guest";

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap()
}

/// The demo guest behind its pod's address.
pub fn masqueraded() -> Manifest {
    Manifest::demo().unwrap().with(|vmi| {
        vmi["metadata"]["labels"] = json!({"app": "guest"});
        vmi["spec"]["networks"] = json!([{"name": "default", "pod": {}}]);
        let interface =
            json!({"name": "default", "masquerade": {}, "ports": [{"name": "web", "port": PORT}]});
        vmi["spec"]["domain"]["devices"]["interfaces"] = json!([interface]);
    })
}

/// Has the guest serve its page.
fn serve(installed: &Installed) {
    let mut console = installed.console().unwrap();
    console.ask("mkdir -p /w").unwrap();
    console.ask(&format!("echo {PAGE} >/w/index.html")).unwrap();
    console.ask(&format!("httpd -p {PORT} -h /w")).unwrap();
    console.leave().unwrap();
}

/// Asks for the page at an address of the cluster's, until it is there.
fn await_page(installed: &Installed, address: &str) {
    eventually("guest's page", || {
        let said = installed.page(address)?;
        Ok(Look::of(said.contains(PAGE).then_some(()), || said.clone()))
    })
    .unwrap();
}

pub fn case_11_annotations_reach_the_pod(installed: &Installed) {
    let annotated = Manifest::demo().unwrap();
    let annotated =
        annotated.with(|vmi| vmi["metadata"]["annotations"]["kubernetes.io/test"] = "test".into());
    installed.kubectl().apply(&[annotated]).unwrap();
    installed.await_running(NAME).unwrap();
    let pod = installed.pod().unwrap();
    assert_eq!(pod["metadata"]["annotations"]["kubernetes.io/test"], "test");
}

pub fn case_12_who_has_an_external_strategy_is_not_evicted_but_told(installed: &Installed) {
    let kubectl = installed.kubectl();
    let external = Manifest::demo().unwrap();
    let external = external.with(|vmi| vmi["spec"]["evictionStrategy"] = "External".into());
    kubectl.apply(&[external]).unwrap();
    installed.await_running(NAME).unwrap();
    let pod = installed.pod().unwrap();
    let path = format!("/api/v1/namespaces/default/pods/{}/eviction", name(&pod));
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name(&pod), "namespace": "default"},
    });
    let refused = kubectl
        .feed(&["create", "--raw", &path, "-f", "-"], &eviction.to_string())
        .unwrap();
    assert_ne!(refused.status(), Some(0));
    let told = "Eviction triggered evacuation of VMI \"default/vmi-alpine\"";
    assert!(refused.error_text().contains(told), "{}", refused.error_text());
    let vmi = kubectl.vmi(NAME).unwrap();
    assert_eq!(vmi["status"]["evacuationNodeName"], pod["spec"]["nodeName"]);
    assert_eq!(vmi["status"]["phase"], "Running");
    assert_eq!(
        installed.pod().unwrap()["metadata"]["uid"],
        pod["metadata"]["uid"]
    );
}

pub fn case_31_a_vm_makes_another_vmi_of_one_whose_pod_is_deleted(installed: &Installed) {
    let kubectl = installed.kubectl();
    kubectl.apply(&[machines::machine("Always").unwrap()]).unwrap();
    machines::await_word(kubectl, "Running").unwrap();
    let (vmi, pod) = (kubectl.vmi(NAME).unwrap(), installed.pod().unwrap());
    kubectl
        .ok(&["delete", "pod", name(&pod), "--timeout=120s"])
        .unwrap();
    let again = eventually("another instance that runs", || {
        let said = kubectl.run(&["get", "vmi", NAME, "-o", "json"])?;
        let now: Value = serde_json::from_str(&said.text()).unwrap_or_default();
        let is_other = now["metadata"]["uid"] != vmi["metadata"]["uid"];
        let runs = now["status"]["phase"] == "Running";
        Ok(Look::of((is_other && runs).then_some(now.clone()), || {
            now["status"].to_string()
        }))
    })
    .unwrap();
    assert_ne!(again["metadata"]["uid"], vmi["metadata"]["uid"]);
    assert_ne!(
        installed.pod().unwrap()["metadata"]["uid"],
        pod["metadata"]["uid"]
    );
}

pub fn case_42_a_service_reaches_a_vmi_by_its_labels(installed: &Installed) {
    let kubectl = installed.kubectl();
    kubectl.apply(&[masqueraded()]).unwrap();
    installed.await_running(NAME).unwrap();
    serve(installed);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "guest"},
        "spec": {"clusterIP": "198.18.2.42", "selector": {"app": "guest"}, "ports": [{"port": 80, "targetPort": PORT}]},
    });
    kubectl
        .feed(&["apply", "-f", "-"], &service.to_string())
        .unwrap()
        .ok()
        .unwrap();
    await_page(installed, "198.18.2.42:80");
}

pub fn case_45_masquerade_connects_the_guest_both_ways(installed: &Installed) {
    let kubectl = installed.kubectl();
    kubectl.apply(&[masqueraded()]).unwrap();
    let vmi = installed.await_running(NAME).unwrap();
    serve(installed);
    let pod = installed.pod().unwrap();
    let address = pod["status"]["podIP"].as_str().unwrap();
    assert_eq!(vmi["status"]["interfaces"][0]["ipAddress"], address);
    await_page(installed, &format!("{address}:{PORT}"));
    // Out of it: the node's registry, which answers an empty object.
    let mut console = installed.console().unwrap();
    let answer = console
        .ask("wget -q -T 60 -O - http://198.18.0.1:5000/v2/")
        .unwrap();
    assert_eq!(answer.trim(), "{}");
    console.leave().unwrap();
}

pub fn case_46_a_pod_s_process_has_no_capability(installed: &Installed) {
    installed.kubectl().apply(&[Manifest::demo().unwrap()]).unwrap();
    installed.await_running(NAME).unwrap();
    guest::answers(
        installed
            .kubectl()
            .on_terminal(&["rvm", "console", NAME], &[])
            .unwrap(),
    )
    .unwrap();
    let context = &installed.pod().unwrap()["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    let look = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -q '^rvmm --await' && grep ^Cap $p/status; done";
    let said = installed
        .cluster()
        .node()
        .unwrap()
        .run(&["sh", "-c", look])
        .unwrap()
        .text();
    let sets: Vec<&str> = said
        .split_whitespace()
        .filter(|word| !word.starts_with("Cap"))
        .collect();
    assert!(
        sets.len() >= 5 && sets.iter().all(|set| set.trim_matches('0').is_empty()),
        "{said}"
    );
}
