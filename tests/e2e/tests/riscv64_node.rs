//! A mixed cluster: beside the node of this machine one of riscv64 with KVM, whole and emulated, and rvm installed by its chart.
//! Machines run in pods that may do nothing, under KVM on the one and emulated on the other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use anyhow::Context;
use rvm_e2e::efi as vmi_alpine_efi;
use rvm_e2e::guest::{self, NAME, condition_of};
use rvm_e2e::installed::{Installed, RELEASE, UNINSTALL};
use rvm_guests::debian::machine_arch;
use rvm_guests::{Cache, efi};
use rvm_harness::node::{NODE, riscv64};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Console, Kubectl, Manifest, Riscv64Node, runs};
use serde_json::{Value, json};

/// Which architecture a node is of.
const ARCH: &str = "kubernetes.io/arch";

/// Of the process that a machine's pod consists of: who it is, what it may do, and what it holds of KVM.
const ABOUT: &str = r#"
for process in /proc/[0-9]*; do
    [ "$(cat $process/comm)" = rvmm ] || continue
    grep -E '^(Uid|CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' $process/status
    ls -l $process/fd | grep -o 'anon_inode:kvm-v[a-z]*' | sort -u
done"#;

/// A cluster of two nodes with rvm installed.
struct Mixed {
    far: Riscv64Node,
    installed: Installed,
}

impl Mixed {
    /// One whose registry has these images for both nodes. Nodes without KVM run no machines, unless the KubeVirt says so.
    fn with(images: &[&str]) -> Self {
        // rvm-api may be on any node; here, where it is not emulated.
        Self::kept(images, &[("api", &machine_arch().unwrap())])
    }

    /// One with these parts of rvm on nodes of these architectures alone.
    fn kept(images: &[&str], parts: &[(&str, &str)]) -> Self {
        let (installed, far) = Installed::prepare_mixed(images).unwrap();
        let arch = ARCH.replace('.', "\\.");
        let kept = |(part, on): &(&str, &str)| format!("{part}.nodeSelector.{arch}={on}");
        let mut values = vec!["useEmulation=false".to_owned()];
        values.extend(parts.iter().map(kept));
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        installed.install(&values).unwrap();
        Self { far, installed }
    }

    fn kubectl(&self) -> &Kubectl {
        self.installed.kubectl()
    }

    /// At its guest's console, through kube-apiserver and rvm-api.
    fn console(&self, name: &str, prompt: &str) -> Console {
        let viewer = self
            .kubectl()
            .on_terminal(&["rvm", "console", name], &[])
            .unwrap();
        let console = Console::at_prompt(viewer, prompt);
        console.with_context(|| self.installed.story()).unwrap()
    }

    /// That its guest, seen at its console, is one of riscv64; that console is left.
    fn says_riscv64(&self, name: &str, prompt: &str) {
        let mut console = self.console(name, prompt);
        let said = console.ask("uname -a").unwrap();
        assert!(said.starts_with("Linux ") && said.contains(" riscv64 "), "{said}");
        assert_eq!(console.leave().unwrap().status(), Some(0));
    }

    /// Waits until the condition Ready of the demo's machine is this.
    fn await_ready(&self, status: &str) {
        eventually("condition Ready", || {
            let ready = condition_of(&self.kubectl().vmi(NAME)?, "Ready");
            Ok(Look::of((ready.as_deref() == Some(status)).then_some(()), || {
                self.installed.story()
            }))
        })
        .unwrap();
    }

    /// Waits until the demo's machine is over.
    fn await_over(&self) {
        eventually("end of the machine", || {
            let phase = self.kubectl().phase(NAME)?.unwrap_or_default();
            let is_over = ["Succeeded", "Failed"].contains(&phase.as_str());
            Ok(Look::of(is_over.then_some(()), || phase.clone()))
        })
        .unwrap();
    }

    fn end(&self, name: &str) {
        let ended = self.kubectl().ok(&["delete", "vmi", name, "--timeout=120s"]);
        ended.with_context(|| self.installed.story()).unwrap();
    }

    /// What runs a machine on the node of riscv64 is nobody there, and KVM runs its guest.
    fn is_unprivileged_and_under_kvm(&self) {
        let about = self.far.run(&["sh", "-c", ABOUT]).unwrap().ok().unwrap();
        let lines: Vec<Vec<&str>> = about
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let of = |field: &str| {
            let line = lines.iter().find(|line| line.first() == Some(&field));
            line.with_context(|| format!("no {field} in {about}")).unwrap()
        };
        assert_eq!(of("Uid:")[1..], ["107"; 4]);
        for capabilities in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(of(capabilities)[1], "0000000000000000", "{about}");
        }
        assert_eq!((of("NoNewPrivs:")[1], of("Seccomp:")[1]), ("1", "2"));
        of("anon_inode:kvm-vm");
        of("anon_inode:kvm-vcpu");
    }
}

/// Where a VMI runs, and what is said of its being emulated.
fn place(vmi: &Value) -> (&str, Option<String>) {
    let node = vmi["status"]["nodeName"].as_str().unwrap_or_default();
    (node, condition_of(vmi, "SoftwareEmulation"))
}

#[test]
fn lab_a_machine_runs_under_kvm_in_a_pod_of_a_riscv64_node_beside_an_emulating_one() {
    let mixed = Mixed::with(&["rvm-handler", "rvmm"]);
    mixed.kubectl().apply(&[Manifest::demo().unwrap()]).unwrap();
    // The scheduler finds the one node that has KVM.
    let vmi = mixed.installed.await_running(NAME).unwrap();
    assert_eq!(place(&vmi), (riscv64::NODE, None));
    mixed.says_riscv64(NAME, guest::PROMPT);
    mixed.is_unprivileged_and_under_kvm();
    mixed.end(NAME);

    let (machine, folder) = (mixed.far.id(), mixed.far.folder().to_owned());
    assert!(runs(machine) && folder.exists());
    drop(mixed);
    assert!(
        !runs(machine) && !folder.exists(),
        "the node of riscv64 is still there"
    );
}

#[test]
fn full_lab_a_mixed_cluster_runs_the_same_machine_by_kvm_here_and_emulated_there() {
    let mixed = Mixed::with(&["rvm-handler", "rvmm", "rvmm-qemu"]);
    let node = mixed.installed.cluster().node().unwrap();
    node.push(
        &efi::image(&Cache::open().unwrap()).unwrap(),
        vmi_alpine_efi::REPOSITORY,
    )
    .unwrap();
    let kubectl = mixed.kubectl();
    let efi = vmi_alpine_efi::NAME;
    kubectl.apply(&[vmi_alpine_efi::manifest()]).unwrap();
    assert_eq!(
        place(&mixed.installed.await_running(efi).unwrap()),
        (riscv64::NODE, None)
    );
    mixed.says_riscv64(efi, "guest# ");
    mixed.is_unprivileged_and_under_kvm();
    mixed.end(efi);

    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    assert_eq!(
        place(&mixed.installed.await_running(NAME).unwrap()),
        (riscv64::NODE, None)
    );
    // From now on nodes without KVM may have machines too.
    mixed.installed.allow_emulation(true).unwrap();
    let here = Manifest::demo().unwrap().named("here");
    let here = here.on(ARCH, &machine_arch().unwrap());
    kubectl.apply(&[here]).unwrap();
    assert_eq!(
        place(&mixed.installed.await_running("here").unwrap()),
        (NODE, Some("True".to_owned()))
    );
    mixed.says_riscv64("here", "here:~# ");
    mixed.says_riscv64(NAME, guest::PROMPT);
    // Who does not mind is under KVM while there is room.
    kubectl
        .apply(&[Manifest::demo().unwrap().named("anywhere")])
        .unwrap();
    let anywhere = mixed.installed.await_running("anywhere").unwrap();
    assert_eq!(place(&anywhere), (riscv64::NODE, None));
    mixed.end("anywhere");

    // The handler of the far node goes and another comes; its machine knows nothing of it.
    let mut console = mixed.console(NAME, guest::PROMPT);
    let before = guest::uptime(&mut console).unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    let on_far = format!("--field-selector=spec.nodeName={}", riscv64::NODE);
    kubectl
        .ok(&[
            "delete",
            "pods",
            "-n",
            "rvm",
            "-l",
            "app=rvm-handler",
            &on_far,
            "--timeout=120s",
        ])
        .unwrap();
    mixed.installed.await_handlers().unwrap();
    let mut console = mixed.console(NAME, guest::PROMPT);
    // In other words than before, which the console shows again.
    let said = console.ask("cat /proc/uptime").unwrap();
    let now: f64 = said.split_whitespace().next().unwrap().parse().unwrap();
    assert!(now > before, "{said}, and {before} before");
    assert_eq!(kubectl.phase(NAME).unwrap().as_deref(), Some("Running"));
    mixed.end(NAME);
    mixed.end("here");
}

/// What the guest serves, where, and by which address of a Service.
const PAGE: &str = "from the guest";
const PORT: u16 = 8080;
const SERVICE: &str = "198.18.2.64";

/// The demo guest behind its pod's address, ready when it serves a page, and with an eviction strategy.
fn served(strategy: &str) -> Manifest {
    Manifest::demo().unwrap().with(|vmi| {
        let spec = &mut vmi["spec"];
        spec["networks"] = json!([{"name": "default", "pod": {}}]);
        spec["domain"]["devices"]["interfaces"] = json!([{"name": "default", "masquerade": {}}]);
        spec["readinessProbe"] =
            json!({"httpGet": {"port": PORT}, "periodSeconds": 2, "failureThreshold": 2});
        spec["evictionStrategy"] = strategy.into();
    })
}

#[test]
fn full_lab_rvm_is_whole_on_a_node_of_riscv64_alone() {
    let parts = [("api", "riscv64"), ("handler", "riscv64")];
    let mixed = Mixed::kept(&["rvm-api", "rvm-handler", "rvmm"], &parts);
    let kubectl = mixed.kubectl();
    let pods = kubectl.get(&["pods", "-n", RELEASE]).unwrap();
    let pods = pods["items"].as_array().unwrap();
    assert_eq!(pods.len(), 2, "{pods:?}");
    for pod in pods {
        assert_eq!(pod["spec"]["nodeName"], riscv64::NODE, "{pod}");
    }

    // At its console by way of the rvm-api there, and in the pod's logs.
    kubectl.apply(&[served("LiveMigrate")]).unwrap();
    let vmi = mixed.installed.await_running(NAME).unwrap();
    assert_eq!(place(&vmi), (riscv64::NODE, None));
    mixed.says_riscv64(NAME, guest::PROMPT);
    let pod = mixed.installed.pod().unwrap();
    let pod = pod["metadata"]["name"].as_str().unwrap();
    eventually("guest's console in the pod's logs", || {
        let logs = kubectl.ok(&["logs", pod])?;
        Ok(Look::of(logs.contains("uname -a").then_some(()), || logs))
    })
    .unwrap();

    // Its probe and its Service find what the guest serves, once it does.
    mixed.await_ready("False");
    let mut console = mixed.console(NAME, guest::PROMPT);
    console.ask("mkdir -p /w").unwrap();
    console.ask(&format!("echo {PAGE} >/w/index.html")).unwrap();
    console.ask(&format!("httpd -p {PORT} -h /w")).unwrap();
    console.leave().unwrap();
    mixed.await_ready("True");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "guest"},
        "spec": {"clusterIP": SERVICE, "selector": {"vmi.kubevirt.io/id": NAME},
                 "ports": [{"port": 80, "targetPort": PORT}]},
    });
    let fed = kubectl.feed(&["apply", "-f", "-"], &service.to_string());
    fed.unwrap().ok().unwrap();
    eventually("guest's page by its Service", || {
        let said = mixed.installed.page(&format!("{SERVICE}:80"))?;
        Ok(Look::of(said.contains(PAGE).then_some(()), || said.clone()))
    })
    .unwrap();

    // Who drains its node is refused, and who deletes its pod ends it.
    let (is_drained, said) = mixed.installed.drain(riscv64::NODE).unwrap();
    assert!(!is_drained && said.contains("is not live-migratable"), "{said}");
    assert_eq!(kubectl.phase(NAME).unwrap().as_deref(), Some("Running"));
    kubectl.ok(&["delete", "pod", pod, "--timeout=120s"]).unwrap();
    mixed.await_over();
    mixed.end(NAME);

    // One that says nothing against it goes with its node.
    kubectl.apply(&[served("None")]).unwrap();
    mixed.installed.await_running(NAME).unwrap();
    let (is_drained, said) = mixed.installed.drain(riscv64::NODE).unwrap();
    assert!(is_drained, "{said}");
    mixed.await_over();
    mixed.end(NAME);
    mixed.installed.await_no_pods().unwrap();
    mixed.installed.helm().ok(&UNINSTALL).unwrap();
}
