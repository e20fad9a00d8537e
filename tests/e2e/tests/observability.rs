//! Those who watch over rvm: what they are told, and that the example dashboard and the example alerts speak of what is told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::TcpListener;

use regex::Regex;
use rvm_e2e::guest::{NAME, PROMPT};
use rvm_e2e::machines::SUBRESOURCES;
use rvm_guests::{Cache, promtool};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Api, Cluster, HandlerSetup, Manifest, Plain, Tools};
use serde_json::{Value, json};

const FOLDER: &str = "deploy/observability";

/// A loopback address that nobody has.
fn free() -> &'static str {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string().leak()
}

fn ask(address: &str, path: &str) -> (u16, String) {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None);
    let agent: ureq::Agent = config.build().into();
    let mut answer = agent.get(format!("http://{address}{path}")).call().unwrap();
    let code = answer.status().as_u16();
    (code, answer.body_mut().read_to_string().unwrap())
}

/// The names of metrics in a text; of a histogram and a counter that which stands in the description. Names with colons are not told
/// but recorded, by rules.
fn names(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\b([a-z]+:)?(kubevirt|rvm|process)_[a-z_]+\b").unwrap();
    let found = name.find_iter(text).map(|found| found.as_str());
    found
        .filter(|name| !name.contains(':'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_the_dashboard_and_the_alerts_speak_of_is_told() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let (of_node, of_api) = (free(), free());
    let node = HandlerSetup::on_node(&cluster, "n1");
    let node = node.with(&["--grpc-listen", "127.0.0.1:0", "--metrics-listen", of_node]);
    let node = node.with(&["--pod-network", "10.199.27.0/24"]);
    let node = node.start(&tools).unwrap();
    let api = Api::start_with(&tools, &cluster, &["--metrics-listen", of_api]).unwrap();
    let kubectl = cluster.kubectl();
    let machine = Manifest::demo().unwrap().with(|vmi| {
        let scratch = json!({"name": "scratch", "emptyDisk": {"capacity": "8Mi"}});
        vmi["spec"]["volumes"].as_array_mut().unwrap().push(scratch);
        let disk = json!({"name": "scratch", "disk": {"bus": "virtio"}});
        let disks = vmi["spec"]["domain"]["devices"]["disks"].as_array_mut();
        disks.unwrap().push(disk);
    });
    kubectl.apply(&[machine]).unwrap();
    let vmi = kubectl.await_phase(NAME, "Running").unwrap();
    let mut viewer = Plain::open(
        kubectl,
        &format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/console"),
    )
    .unwrap();
    viewer.expect(PROMPT).unwrap();
    viewer
        .send(b"dd if=/dev/urandom of=/dev/vda bs=64k count=16 conv=fsync 2>/dev/null; echo writ\\ten\n")
        .unwrap();
    viewer.expect("written\r\n").unwrap();
    // Nobody has to answer there.
    let port = format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/portforward/53/udp");
    let port = Plain::open(kubectl, &port).unwrap();

    // The guest is asked for its memory at the first look, and answers in its own time.
    let node_says = eventually("the guest tells of its memory", || {
        let (_, says) = ask(of_node, "/metrics");
        let told = says.contains("\nkubevirt_vmi_memory_usable_bytes{");
        Ok(if told {
            Look::Here(says)
        } else {
            Look::NotYet(says)
        })
    })
    .unwrap();
    let (code, _) = ask(of_node, "/metrics");
    assert_eq!((code, node_says.ends_with("# EOF\n")), (200, true), "{node_says}");
    let (_, api_says) = ask(of_api, "/metrics");
    let which = format!("node=\"n1\",namespace=\"default\",name=\"{NAME}\"");
    let value = |name: &str| -> f64 {
        let line = format!("{name}{{{which}}} ");
        let found = node_says.lines().find_map(|said| said.strip_prefix(&line));
        found
            .unwrap_or_else(|| panic!("no {line} in {node_says}"))
            .parse()
            .unwrap()
    };
    assert!(value("kubevirt_vmi_cpu_usage_seconds_total") > 0.1);
    assert!(value("kubevirt_vmi_memory_resident_bytes") > 5e7);
    assert_eq!(value("kubevirt_vmi_memory_domain_bytes"), f64::from(256 << 20));
    assert!(value("rvm_vmi_console_output_bytes_total") > 100.0);
    let kilobytes = 1024.0;
    let usable = value("kubevirt_vmi_memory_usable_bytes");
    let available = value("kubevirt_vmi_memory_available_bytes");
    assert!(
        usable < available && available < 262_144.0 * kilobytes,
        "{usable} of {available}"
    );
    let which_disk = format!("{which},drive=\"disk0\"");
    let wrote = |name: &str| {
        let line = format!("{name}{{{which_disk}}} ");
        let value = node_says.lines().find_map(|said| said.strip_prefix(&line));
        value
            .unwrap_or_else(|| panic!("no {line} in {node_says}"))
            .to_owned()
    };
    assert_eq!(wrote("kubevirt_vmi_storage_write_traffic_bytes_total"), "1048576");
    assert_ne!(wrote("kubevirt_vmi_storage_flush_requests_total"), "0");
    assert_ne!(wrote("kubevirt_vmi_storage_write_times_seconds_total"), "0.0");
    let received = format!("kubevirt_vmi_network_receive_packets_total{{{which},interface=\"tap0\"}} ");
    let received = node_says.lines().find_map(|said| said.strip_prefix(&received));
    assert_ne!(received.unwrap(), "0");
    let vcpu = format!("kubevirt_vmi_vcpu_seconds_total{{{which},id=\"0\",state=\"running\"}} ");
    assert!(node_says.contains(&vcpu), "no {vcpu} in {node_says}");
    assert!(node_says.contains(&format!(
        "kubevirt_vmi_info{{{which},phase=\"running\",accelerator=\"tcg\"}} 1\n"
    )));
    let took = "kubevirt_vmi_phase_transition_time_from_creation_seconds_count{phase=\"Running\"} 1\n";
    assert!(node_says.contains(took), "{node_says}");
    let viewers = format!("kubevirt_console_active_connections{{namespace=\"default\",name=\"{NAME}\"}} 1\n");
    assert!(api_says.contains(&viewers), "{api_says}");
    assert!(
        api_says.contains("kubevirt_virt_controller_leading_status 1\n"),
        "{api_says}"
    );

    let told = names(&format!("{node_says}{api_says}"));
    for file in ["dashboard.json", "alerts.yaml"] {
        let text = std::fs::read_to_string(tools.source(FOLDER).join(file)).unwrap();
        let unknown: Vec<_> = names(&text).difference(&told).cloned().collect();
        assert_eq!(
            unknown,
            Vec::<String>::new(),
            "{file} speaks of what nobody tells"
        );
    }

    // Lines of the log say whose they are.
    let uid = vmi["metadata"]["uid"].as_str().unwrap();
    let log = node.log();
    let running = log
        .lines()
        .find(|line| line.contains("running vm=default/vmi-alpine"));
    assert!(running.unwrap().contains(uid), "{log}");

    // Ready while the cluster answers, alive in any case.
    for address in [of_node, of_api] {
        assert_eq!(ask(address, "/healthz"), (200, "ok".to_owned()));
        assert_eq!(ask(address, "/readyz"), (200, "ok".to_owned()));
    }
    drop((viewer, port));
    drop(cluster);
    let (code, why) = ask(of_api, "/readyz");
    assert_eq!((code, why.starts_with("kube-apiserver")), (503, true), "{why}");
    assert_eq!(ask(of_api, "/healthz").0, 200);
    drop(api);
}

#[test]
fn the_alerts_come_when_they_should_and_not_otherwise() {
    let tools = Tools::open().unwrap();
    let promtool = promtool::program(&Cache::open().unwrap()).unwrap();
    let promtool = promtool.to_str().unwrap();
    let file = |name: &str| tools.source(FOLDER).join(name).display().to_string();
    let checked = tools
        .run(&[promtool, "check", "rules", &file("alerts.yaml")], &[], "")
        .unwrap()
        .ok()
        .unwrap();
    assert!(checked.contains("SUCCESS: 10 rules found"), "{checked}");
    let tested = tools
        .run(&[promtool, "test", "rules", &file("alerts.test.yaml")], &[], "")
        .unwrap();
    assert_eq!(
        tested.status(),
        Some(0),
        "{} {}",
        tested.text(),
        tested.error_text()
    );
    let dashboard = std::fs::read_to_string(file("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    // A dashboard's queries become rules, which is what can be checked.
    let rules = queries.enumerate().map(|(number, query)| {
        let plain = query["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
        json!({"record": format!("query:{number}"), "expr": plain})
    });
    let rules: Vec<_> = rules.collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries.json");
    std::fs::write(
        &path,
        json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string(),
    )
    .unwrap();
    let checked = tools
        .run(&[promtool, "check", "rules", path.to_str().unwrap()], &[], "")
        .unwrap();
    let checked = checked.ok().unwrap();
    assert!(
        checked.contains(&format!("SUCCESS: {} rules found", rules.len())),
        "{checked}"
    );
}
