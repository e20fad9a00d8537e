//! A mixed cluster: beside the node of this machine one of riscv64 with KVM, whole and emulated, and rvm installed by its chart.
//! Machines run in pods that may do nothing, under KVM on the one and emulated on the other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use anyhow::Context;
use rvm_e2e::efi as vmi_alpine_efi;
use rvm_e2e::guest::{self, NAME, condition_of};
use rvm_e2e::installed::Installed;
use rvm_guests::debian::machine_arch;
use rvm_guests::{Cache, efi};
use rvm_harness::node::{NODE, riscv64};
use rvm_harness::{Console, Kubectl, Manifest, Riscv64Node, runs};
use serde_json::Value;

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
        let (installed, far) = Installed::prepare_mixed(images).unwrap();
        // It may be on any node; here, where it is not emulated.
        let near = format!(
            "api.nodeSelector.{}={}",
            ARCH.replace('.', "\\."),
            machine_arch().unwrap()
        );
        installed.install(&["useEmulation=false", &near]).unwrap();
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
