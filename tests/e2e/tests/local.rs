//! One machine, no cluster: `rvm-handler --local` with a real kubectl and with `rvm`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rvm_e2e::guest::{self, NAME};
use rvm_harness::{Console, Handler, HandlerSetup, Tools, runs};
use serde_json::Value;

fn local() -> (Arc<Tools>, Handler) {
    let tools = Tools::open().unwrap();
    let handler = HandlerSetup::local().start(&tools).unwrap();
    (tools, handler)
}

fn manifest(tools: &Tools) -> String {
    tools.source("guests/vmi-alpine.yaml").display().to_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn kubectl_brings_a_vmi_from_its_manifest_to_a_console_and_it_outlives_its_handler() {
    let (tools, mut handler) = local();
    let kubectl = handler.kubectl().unwrap();
    let mut watch = kubectl.follow(&["get", "vmi", "-w"]).unwrap();
    kubectl.ok(&["apply", "-f", &manifest(&tools)]).unwrap();
    let vmi = kubectl.await_phase(NAME, "Running").unwrap();
    watch.expect("Running", rvm_outer::shell::PATIENCE).unwrap();
    let interface = &vmi["status"]["interfaces"][0];
    assert_eq!(interface["name"], "default", "it names no network: {vmi}");
    assert_eq!(
        guest::phases(&kubectl).unwrap(),
        ["Pending", "Scheduling", "Scheduled", "Running"]
    );

    let mut console = guest::answers(handler.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap();
    let before = guest::uptime(&mut console).unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));

    let uid = vmi["metadata"]["uid"].as_str().unwrap().to_owned();
    let pid = handler.pid(&uid).unwrap();
    handler.kill().unwrap();
    handler.start().unwrap();
    // The port is another one now, and the kubeconfig says so.
    let kubectl = handler.kubectl().unwrap();
    assert_eq!(kubectl.vmi(NAME).unwrap()["status"]["phase"], "Running");
    assert_eq!(handler.pid(&uid).unwrap(), pid);
    let viewer = handler.rvm_on_terminal(&["console", NAME]).unwrap();
    let mut console = Console::at_prompt(viewer, guest::PROMPT).unwrap();
    // All that is replayed stands before the answer to a question that was not asked before.
    assert_eq!(console.ask("echo $((6 * 9)) again").unwrap(), "54 again");
    assert!(
        guest::uptime(&mut console).unwrap() > before,
        "the same guest goes on"
    );
    assert_eq!(console.leave().unwrap().status(), Some(0));

    kubectl.ok(&["delete", "vmi", NAME, "--timeout=60s"]).unwrap();
    assert!(!runs(pid));
    assert!(!handler.run_dir_entries().unwrap().contains(&uid));
}

/// By this machine's own socket and by the kubeconfig, as one who only looks.
fn shows_what_it_takes_and_said(handler: &Handler) {
    let kubeconfig = handler.rvm(&["kubeconfig"]).unwrap().ok().unwrap();
    let by = ["--kubeconfig", kubeconfig.trim()];
    for by in [&[][..], &by] {
        let rvm = |args: &[&str]| handler.rvm(&[args, by].concat()).unwrap().ok().unwrap();
        let taken: Value = serde_json::from_str(&rvm(&["top", "-o", "json"])).unwrap();
        let number = |field: &str| taken[0][field].as_u64().unwrap();
        assert_eq!(taken[0]["name"], NAME);
        assert!(number("cpus") >= 1, "{taken}");
        // QEMU alone holds more than a guest's kernel.
        assert!(number("memoryBytes") > 32 << 20, "{taken}");
        assert!(number("guestMemoryBytes") >= 64 << 20, "{taken}");
        let table = rvm(&["top", NAME]);
        assert!(
            table.starts_with("NAME") && table.contains(NAME) && table.contains("Mi"),
            "{table}"
        );
        assert!(rvm(&["logs", NAME]).contains("for 43 to see"));
    }
}

#[test]
fn rvm_alone_does_all_that_a_vmi_needs() {
    let tools = Tools::open().unwrap();
    // Its guest starts without the network that its manifest does not ask for.
    let setup = HandlerSetup::local().with(&["--pod-network", "none"]);
    let handler = setup.start(&tools).unwrap();
    let applied = handler
        .rvm(&["apply", "-f", &manifest(&tools), "--wait"])
        .unwrap()
        .ok()
        .unwrap();
    assert!(applied.contains("vmi-alpine created"), "{applied}");
    let again = handler
        .rvm(&["apply", "-f", &manifest(&tools)])
        .unwrap()
        .ok()
        .unwrap();
    assert!(again.contains("vmi-alpine unchanged"), "{again}");
    let listed = handler.rvm(&["get"]).unwrap().ok().unwrap();
    assert!(listed.contains(NAME) && listed.contains("Running"), "{listed}");
    let version = handler.rvm(&["version"]).unwrap().ok().unwrap();
    assert_eq!(version.lines().count(), 2, "client and server: {version}");

    // Two watch the same guest, and one of them types; what was printed before comes first.
    let mut first = guest::answers(handler.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap();
    let mut second = handler
        .rvm_on_terminal(&["console", NAME, "--read-only"])
        .unwrap();
    second
        .expect("42 riscv64 rvm-demo", rvm_outer::shell::PATIENCE)
        .unwrap();
    first.ask("echo for $((40 + 3)) to see").unwrap();
    second
        .expect("for 43 to see", rvm_outer::shell::PATIENCE)
        .unwrap();
    assert_eq!(first.ask("ls /sys/class/net").unwrap(), "lo");
    shows_what_it_takes_and_said(&handler);
    // Who typed still does.
    assert_eq!(first.ask("echo $((44 + 1))").unwrap(), "45");
    assert_eq!(first.leave().unwrap().status(), Some(0));

    handler.rvm(&["stop", NAME]).unwrap().ok().unwrap();
    let kubectl = handler.kubectl().unwrap();
    let told = ("Normal".to_owned(), "NetworkUnavailable".to_owned());
    assert!(kubectl.events(NAME).unwrap().contains(&told));
    let stopped = kubectl.await_phase(NAME, "Succeeded").unwrap();
    let conditions = stopped["status"]["conditions"].as_array().unwrap();
    let asked = |condition: &Value| condition["message"] == "the guest switched itself off";
    assert!(conditions.iter().any(asked), "{conditions:?}");
    handler.rvm(&["delete", NAME]).unwrap().ok().unwrap();
    assert_eq!(kubectl.phase(NAME).unwrap(), None);
    let missing = handler.rvm(&["console", NAME]).unwrap();
    assert_eq!(
        (missing.status(), missing.error_text().lines().count()),
        (Some(1), 1),
        "{}",
        missing.error_text()
    );
}

#[test]
fn nobody_else_on_the_machine_gets_in() {
    let (tools, handler) = local();
    let kubeconfig = handler.rvm(&["kubeconfig"]).unwrap().ok().unwrap();
    let kubeconfig = Path::new(kubeconfig.trim());
    assert_eq!(mode(kubeconfig), 0o600);
    assert_eq!(mode(&handler.state_dir()), 0o700);
    assert_eq!(mode(&handler.socket()), 0o600);

    // Another user comes neither to the socket nor to the kubeconfig, not even where the folder around them is open.
    let around = handler.run_dir().parent().unwrap().to_owned();
    fs::set_permissions(&around, fs::Permissions::from_mode(0o755)).unwrap();
    for path in [&handler.socket(), kubeconfig] {
        let path = path.to_str().unwrap();
        let nobody = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "cat",
            path,
        ];
        let said = tools.run(&nobody, &[], "").unwrap().error_text();
        assert!(said.contains("Permission denied"), "{said}");
    }

    let text = fs::read_to_string(kubeconfig).unwrap();
    let server = text
        .split_whitespace()
        .find(|word| word.starts_with("https://"))
        .unwrap();
    assert!(server.starts_with("https://127.0.0.1:"), "{server}");
    let status = |arguments: &[&str]| {
        let base = [
            "--silent",
            "--insecure",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ];
        let output = Command::new("curl").args(base).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(status(&[&format!("{server}/healthz")]), "200");
    for path in [
        "/",
        "/version",
        "/api",
        "/apis",
        "/openapi/v3",
        "/apis/kubevirt.io/v1/virtualmachineinstances",
    ] {
        assert_eq!(
            status(&[&format!("{server}{path}")]),
            "401",
            "{path} without a certificate"
        );
    }
    let health = format!("{server}/healthz");
    assert_eq!(status(&["--header", "Host: rvm.example", &health]), "403");
    assert_eq!(
        status(&["--header", "Origin: https://rvm.example", &health]),
        "403"
    );
}
