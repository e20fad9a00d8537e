//! Machines by the chart, on a real node: what an operator's users do with what was installed, and what upgrades and an end do to it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::guest::{self, NAME, condition};
use rvm_e2e::installed::{Installed, RELEASE, UNINSTALL};
use rvm_e2e::machines;
use rvm_harness::Manifest;
use rvm_harness::node::NODE;
use rvm_harness::patience::{Look, eventually};
use serde_json::{Value, json};

/// What rvm's own Services say through kube-apiserver.
fn service(installed: &Installed, name: &str, path: &str) -> anyhow::Result<String> {
    let path = format!("/api/v1/namespaces/{RELEASE}/services/{name}/proxy/{path}");
    installed.kubectl().ok(&["get", "--raw", &path])
}

#[test]
fn a_machine_runs_in_a_pod_by_the_chart_and_its_console_page_and_figures_are_there() {
    let installed = Installed::start(&[]).unwrap();
    let kubectl = installed.kubectl();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    let vmi = installed.await_running(NAME).unwrap();
    let pod = installed.pod().unwrap();
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["spec"]["containers"][0]["securityContext"]["runAsUser"], 107);
    assert_eq!(vmi["status"]["nodeName"], pod["spec"]["nodeName"]);
    // The node has no KVM for riscv64, and says so, and so does the machine.
    let node = kubectl.get(&["node", "n1"]).unwrap();
    assert_eq!(node["metadata"]["labels"]["rvm/accelerator"], "tcg");
    assert_eq!(node["status"]["allocatable"]["rvm/accelerator"], "1k");
    assert_eq!(
        node["status"]["allocatable"]["devices.kubevirt.io/kvm"],
        Value::Null
    );
    assert_eq!(
        condition(kubectl, "SoftwareEmulation").unwrap().as_deref(),
        Some("True")
    );
    assert_eq!(
        condition(kubectl, "LiveMigratable").unwrap().as_deref(),
        Some("False")
    );

    // At its console through the aggregated API; it is in the pod's logs, too.
    installed.console().unwrap().leave().unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    eventually("guest's console in the pod's logs", || {
        let logs = kubectl.ok(&["logs", &name])?;
        Ok(Look::of(logs.contains("echo $((6 * 7))").then_some(()), || logs))
    })
    .unwrap();

    // The web console's page, and nothing of the cluster's for who has no token.
    let page = service(&installed, "https:rvm-web:https", "").unwrap();
    assert!(page.contains("<title>"), "{page}");
    let path = "apis/kubevirt.io/v1/virtualmachineinstances";
    let refused = service(&installed, "https:rvm-web:https", path).unwrap_err();
    assert!(
        format!("{refused:#}").contains("a bearer token is needed"),
        "{refused:#}"
    );

    let figures = service(&installed, "rvm-handler-metrics:metrics", "metrics").unwrap();
    let info = figures
        .lines()
        .find(|line| line.starts_with("kubevirt_vmi_info{"));
    let info = info.unwrap_or_else(|| panic!("{figures}"));
    for word in ["name=\"vmi-alpine\"", "node=\"n1\"", "accelerator=\"tcg\""] {
        assert!(info.contains(word), "{info}");
    }
    let figures = service(&installed, "rvm-api-metrics:metrics", "metrics").unwrap();
    assert!(figures.contains("rvm_api_ready_status 1"), "{figures}");

    kubectl.ok(&["delete", "vmi", NAME, "--timeout=120s"]).unwrap();
    installed.await_no_pods().unwrap();
}

#[test]
fn full_machines_go_on_while_rvm_is_upgraded_to_other_images() {
    let installed = Installed::start(&[]).unwrap();
    let kubectl = installed.kubectl();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    installed.await_running(NAME).unwrap();
    let mut console = installed.console().unwrap();
    let before = guest::uptime(&mut console).unwrap();
    console.leave().unwrap();
    let pod = installed.pod().unwrap();
    let handlers = || {
        kubectl
            .get(&["pods", "-n", RELEASE, "-l", "app=rvm-handler"])
            .unwrap()
    };
    let first = handlers()["items"][0]["metadata"]["uid"].clone();

    installed.push_again("next").unwrap();
    installed.upgrade(&["images.tag=next"]).unwrap();
    assert_ne!(handlers()["items"][0]["metadata"]["uid"], first);
    // It is the same machine in the same pod, which has the image that it was started with.
    let after = installed.pod().unwrap();
    assert_eq!(after["metadata"]["uid"], pod["metadata"]["uid"]);
    assert!(image(&after).ends_with(":test"), "{}", image(&after));
    assert_eq!(kubectl.phase(NAME).unwrap().as_deref(), Some("Running"));
    let mut console = installed.console().unwrap();
    assert!(guest::uptime(&mut console).unwrap() >= before);
    console.leave().unwrap();

    // One that is made now has the new one.
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=120s"]).unwrap();
    installed.await_no_pods().unwrap();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    installed.await_running(NAME).unwrap();
    let pod = installed.pod().unwrap();
    assert!(image(&pod).ends_with(":next"), "{}", image(&pod));
}

/// The demo guest with this strategy, which runs.
fn run_with_strategy(installed: &Installed, strategy: Option<&str>) {
    let vmi = Manifest::demo().unwrap();
    let vmi = vmi.with(|vmi| vmi["spec"]["evictionStrategy"] = strategy.map_or(Value::Null, Value::from));
    installed.kubectl().apply(&[vmi]).unwrap();
    installed.await_running(NAME).unwrap();
}

#[test]
fn full_a_node_is_drained_of_machines_as_their_eviction_strategies_say() {
    let installed = Installed::start(&[]).unwrap();
    let kubectl = installed.kubectl();
    let budgets = || kubectl.get(&["pdb"]).unwrap()["items"].as_array().unwrap().len();
    for strategy in [None, Some("None"), Some("LiveMigrateIfPossible")] {
        run_with_strategy(&installed, strategy);
        assert_eq!(budgets(), 0, "{strategy:?}");
        let (is_drained, said) = installed.drain(NODE).unwrap();
        assert!(is_drained, "{strategy:?}: {said}");
        installed.await_no_pods().unwrap();
        let phase = kubectl.phase(NAME).unwrap().unwrap_or_default();
        assert!(
            ["Succeeded", "Failed"].contains(&phase.as_str()),
            "{strategy:?}: {phase}"
        );
        kubectl.ok(&["delete", "vmi", NAME, "--timeout=120s"]).unwrap();
    }
    let stays = "VMI vmi-alpine is configured with an eviction strategy but is not live-migratable";
    let told = "Eviction triggered evacuation of VMI \"default/vmi-alpine\"";
    for (strategy, why, node) in [
        ("LiveMigrate", stays, Value::Null),
        ("External", told, "n1".into()),
    ] {
        run_with_strategy(&installed, Some(strategy));
        assert_eq!(budgets(), 1, "{strategy}");
        let (is_drained, said) = installed.drain(NODE).unwrap();
        assert!(!is_drained && said.contains(why), "{strategy}: {said}");
        let vmi = kubectl.vmi(NAME).unwrap();
        assert_eq!(vmi["status"]["phase"], "Running", "{strategy}");
        assert_eq!(vmi["status"]["evacuationNodeName"], node, "{strategy}");
        kubectl.ok(&["delete", "vmi", NAME, "--timeout=120s"]).unwrap();
        installed.await_no_pods().unwrap();
        eventually("end of the machine's budget", || {
            let left = budgets();
            Ok(Look::of((left == 0).then_some(()), || left.to_string()))
        })
        .unwrap();
    }
    // Where rvm-api does not answer, the budget keeps who is to stay.
    run_with_strategy(&installed, Some("External"));
    kubectl
        .ok(&["scale", "-n", RELEASE, "deploy/rvm-api", "--replicas=0"])
        .unwrap();
    kubectl
        .ok(&[
            "wait",
            "-n",
            RELEASE,
            "--for=delete",
            "pod",
            "-l",
            "app=rvm-api",
            "--timeout=120s",
        ])
        .unwrap();
    let (is_drained, said) = installed.drain(NODE).unwrap();
    assert!(
        !is_drained && said.contains("violate the pod's disruption budget"),
        "{said}"
    );
    assert_eq!(kubectl.phase(NAME).unwrap().as_deref(), Some("Running"));
}

#[test]
fn full_where_the_kubevirt_says_no_emulation_a_machine_waits_for_a_node_with_kvm() {
    let installed = Installed::start(&[]).unwrap();
    let kubectl = installed.kubectl();
    installed.allow_emulation(false).unwrap();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    let why = eventually("what the machine waits for", || {
        let vmi = kubectl.vmi(NAME)?;
        let conditions = vmi["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let told = conditions.iter().find(|one| one["type"] == "PodScheduled");
        let why = told.and_then(|told| told["message"].as_str()).map(str::to_owned);
        Ok(Look::of(why, || vmi["status"].to_string()))
    });
    assert!(why.unwrap().contains("Insufficient devices.kubevirt.io/kvm"));
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=120s"]).unwrap();
    installed.await_no_pods().unwrap();
    installed.allow_emulation(true).unwrap();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    installed.await_running(NAME).unwrap();
}

#[test]
fn full_a_probe_that_fails_shows() {
    let installed = Installed::start(&[]).unwrap();
    let probed = Manifest::demo().unwrap().with(|vmi| {
        vmi["spec"]["networks"] = json!([{"name": "default", "pod": {}}]);
        vmi["spec"]["domain"]["devices"]["interfaces"] = json!([{"name": "default", "masquerade": {}}]);
        vmi["spec"]["readinessProbe"] =
            json!({"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1});
    });
    let kubectl = installed.kubectl();
    kubectl.apply(&[probed]).unwrap();
    installed.await_running(NAME).unwrap();
    let await_ready = |status: &str| {
        eventually("condition Ready", || {
            let ready = condition(kubectl, "Ready")?;
            Ok(Look::of((ready.as_deref() == Some(status)).then_some(()), || {
                installed.story()
            }))
        })
        .unwrap();
    };
    // Nobody serves there yet.
    await_ready("False");
    let mut console = installed.console().unwrap();
    console.ask("mkdir -p /w; echo x >/w/index.html").unwrap();
    console.ask("httpd -p 8080 -h /w").unwrap();
    await_ready("True");
    console.ask("killall httpd").unwrap();
    await_ready("False");
    console.leave().unwrap();
    let events = kubectl
        .ok(&["get", "events", "--field-selector", "reason=Unhealthy"])
        .unwrap();
    assert!(events.contains("Readiness probe failed"), "{events}");
    assert_eq!(kubectl.phase(NAME).unwrap().as_deref(), Some("Running"));
}

#[test]
fn full_rvm_is_not_uninstalled_from_under_its_machines_but_with_them_where_that_is_said() {
    let installed = Installed::prepare().unwrap();
    let before = installed.objects().unwrap();
    installed.install(&[]).unwrap();
    let kubectl = installed.kubectl();
    kubectl.apply(&[machines::machine("Always").unwrap()]).unwrap();
    machines::await_word(kubectl, "Running").unwrap();
    let refused = installed.helm().run(&UNINSTALL).unwrap();
    assert_ne!(refused.status(), Some(0));
    let why = kubectl.ok(&["logs", "-n", RELEASE, "job/rvm-uninstall"]).unwrap();
    assert!(
        why.contains("VirtualMachine default/vmi-alpine") && why.contains("kubectl delete vm"),
        "{why}"
    );
    // Nothing has happened to it.
    assert_eq!(kubectl.phase(NAME).unwrap().as_deref(), Some("Running"));
    installed.console().unwrap().leave().unwrap();

    // Helm takes it for half gone, until it is told otherwise.
    installed
        .helm()
        .ok(&["rollback", RELEASE, "1", "--namespace", RELEASE, "--wait"])
        .unwrap();
    installed.upgrade(&["uninstall.machines=remove"]).unwrap();
    installed.helm().ok(&UNINSTALL).unwrap();
    kubectl
        .ok(&["delete", "namespace", RELEASE, "--wait", "--timeout=120s"])
        .unwrap();
    assert!(installed.pods().unwrap().is_empty());
    eventually("cluster as it was", || {
        let left: Vec<String> = installed.objects()?.difference(&before).cloned().collect();
        Ok(Look::of(left.is_empty().then_some(()), || left.join(" ")))
    })
    .unwrap();
}

fn image(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}
