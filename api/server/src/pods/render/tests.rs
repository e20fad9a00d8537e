//! A machine's pod, as the cluster gets it.

use super::*;
use crate::pods::sample;

fn launcher() -> Launcher {
    Launcher {
        image: "rvm/rvmm:1".to_owned(),
        emulating: Some("rvm/rvmm-tcg:1".to_owned()),
        use_emulation: false,
    }
}

fn kvm(spec: Value) -> Value {
    launcher().pod(&sample::vmi(spec), Accelerator::Kvm, &Claims::default())
}

#[test]
fn a_pod_is_known_by_kubevirts_names() {
    let metadata = json!({
        "labels": {"app": "web"},
        "annotations": {"mine": "kept", "rvm/claim": "n/h/u", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    });
    let vmi = sample::with(json!({}), metadata, json!({}));
    let pod = launcher().pod(&vmi, Accelerator::Kvm, &Claims::default());
    let expected = json!({
        "generateName": "virt-launcher-vm-",
        "namespace": "default",
        "labels": {
            "app": "web", "kubevirt.io": "virt-launcher", "kubevirt.io/created-by": "vmi-uid",
            "vm.kubevirt.io/name": "vm", "vmi.kubevirt.io/id": "vm",
        },
        "annotations": {
            "mine": "kept", "kubevirt.io/domain": "vm", "kubevirt.io/migrationTransportUnix": "true",
            "kubectl.kubernetes.io/default-container": "compute",
            "descheduler.alpha.kubernetes.io/request-evict-only": "",
        },
        "ownerReferences": [{
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": "vmi-uid",
            "controller": true, "blockOwnerDeletion": true,
        }],
    });
    assert_eq!(pod["metadata"], expected);
}

#[test]
fn a_pod_has_no_right_that_it_does_not_need() {
    let pod = kvm(json!({}));
    let spec = &pod["spec"];
    let container = &spec["containers"][0];
    let own = json!({
        "runAsUser": 107, "runAsGroup": 107, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    assert_eq!(container["securityContext"], own);
    let of_pod = json!({
        "runAsUser": 107, "runAsGroup": 107, "runAsNonRoot": true, "fsGroup": 107,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    assert_eq!(spec["securityContext"], of_pod);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["volumes"], json!([{"name": "run", "emptyDir": {}}]));
    for field in ["hostNetwork", "hostPID", "hostIPC", "serviceAccountName"] {
        assert!(spec.get(field).is_none(), "{field}");
    }
    assert_eq!(
        container["command"],
        json!(["rvmm", "--await", "/run/rvm", "--grace", "30"])
    );
    assert_eq!(
        (&spec["restartPolicy"], &spec["terminationGracePeriodSeconds"]),
        (&json!("Never"), &json!(60))
    );
}

#[test]
fn memory_is_the_guests_and_what_it_takes_to_run_it() {
    let of = |spec| kvm(spec)["spec"]["containers"][0]["resources"].clone();
    // 128 MiB, and 18.25 MiB.
    assert_eq!(
        of(json!({})),
        json!({
            "requests": {"memory": "153616384", "cpu": "100m", "ephemeral-storage": "50M",
                         "devices.kubevirt.io/kvm": "1", "devices.kubevirt.io/tun": "1"},
            "limits": {"devices.kubevirt.io/kvm": "1", "devices.kubevirt.io/tun": "1"},
        })
    );
    let same = json!({"cpu": "1", "memory": "128Mi"});
    let guaranteed = of(json!({"domain": {"resources": {"requests": same, "limits": same}}}));
    for list in ["requests", "limits"] {
        assert_eq!(guaranteed[list]["memory"], "153616384");
        assert_eq!(guaranteed[list]["cpu"], "1");
    }
    let none = json!({"domain": {"resources": {"overcommitGuestOverhead": true}}});
    assert_eq!(of(none)["requests"]["memory"], "134217728");
}

#[test]
fn a_guest_that_may_be_emulated_goes_to_any_node_and_to_those_with_kvm_first() {
    let own = json!({"weight": 1, "preference": {}});
    let written = json!({
        "podAntiAffinity": {}, "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [own]},
    });
    let devices = json!({"devices": {"autoattachPodInterface": false}});
    for (affinity, terms) in [(Value::Null, 1), (json!({}), 1), (written, 2)] {
        let vmi = sample::vmi(json!({"domain": devices, "affinity": affinity}));
        let pod = launcher().pod(&vmi, launcher().accelerator(Some(true)), &Claims::default());
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["image"], "rvm/rvmm-tcg:1");
        assert_eq!(container["resources"]["limits"], json!({"rvm/accelerator": "1"}));
        let nodes = &pod["spec"]["affinity"]["nodeAffinity"];
        let preferred = nodes["preferredDuringSchedulingIgnoredDuringExecution"]
            .as_array()
            .unwrap();
        assert_eq!(preferred.len(), terms);
        let last = &preferred[terms - 1]["preference"]["matchExpressions"][0];
        assert_eq!(
            (&last["key"], &last["values"]),
            (&json!("rvm/accelerator"), &json!(["kvm"]))
        );
    }
}

#[test]
fn a_machine_may_bring_the_image_of_its_pod_and_gets_no_other_rights_by_it() {
    let metadata = json!({"annotations": {"rvm/launcher-image": "mine/rvmm:2"}});
    let own = sample::with(json!({}), metadata, json!({}));
    let (own, other) = (
        launcher().pod(&own, Accelerator::Kvm, &Claims::default()),
        kvm(json!({})),
    );
    let (own, other) = (&own["spec"]["containers"][0], &other["spec"]["containers"][0]);
    assert_eq!(own["image"], "mine/rvmm:2");
    for field in ["command", "securityContext", "resources"] {
        assert_eq!(own[field], other[field], "{field}");
    }
}

#[test]
fn the_kubevirt_has_the_last_word_on_emulation() {
    let with = |use_emulation| Launcher {
        use_emulation,
        ..launcher()
    };
    assert_eq!(with(false).accelerator(None), Accelerator::Kvm);
    assert_eq!(with(true).accelerator(None), Accelerator::Either);
    assert_eq!(with(true).accelerator(Some(false)), Accelerator::Kvm);
    assert_eq!(with(false).accelerator(Some(true)), Accelerator::Either);
}

#[test]
fn what_a_vmi_says_of_its_place_is_said_of_its_pod() {
    let said = json!({
        "nodeSelector": {"disk": "fast"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "high",
        "schedulerName": "mine", "affinity": {"nodeAffinity": {}}, "hostname": "h", "subdomain": "s",
        "dnsPolicy": "Default", "evictionStrategy": "None", "accessCredentials": [],
    });
    let pod = kvm(said.clone());
    let spec = &pod["spec"];
    for field in [
        "tolerations",
        "priorityClassName",
        "schedulerName",
        "affinity",
        "hostname",
        "subdomain",
        "dnsPolicy",
    ] {
        assert_eq!(spec[field], said[field], "{field}");
    }
    let selector = json!({
        "disk": "fast", "kubevirt.io/schedulable": "true", "kubevirt.io/vm-arch-riscv64": "true",
        "machine-type.node.kubevirt.io/virt": "true",
    });
    assert_eq!(spec["nodeSelector"], selector);
    assert!(spec.get("evictionStrategy").is_none());
}

#[test]
fn a_command_that_probes_is_run_in_the_guest_and_not_in_the_pod() {
    let exec = json!({"command": ["/bin/sh", "-c", "exit 0"]});
    let pod = kvm(json!({"readinessProbe": {"exec": exec, "failureThreshold": 2}}));
    let probe = &pod["spec"]["containers"][0]["readinessProbe"];
    let command = [
        "rvmm",
        "ctl",
        "--run-dir",
        "/run/rvm",
        "exec",
        "--timeout",
        "5m",
        "--",
        "/bin/sh",
        "-c",
        "exit 0",
    ];
    assert_eq!(
        *probe,
        json!({"exec": {"command": command}, "failureThreshold": 2})
    );
}

#[test]
fn probes_and_ports_are_the_pods() {
    let http = json!({"httpGet": {"port": 80}, "initialDelaySeconds": 5});
    let pod = kvm(json!({
        "readinessProbe": http,
        "livenessProbe": {"guestAgentPing": {}, "periodSeconds": 3},
        "domain": {"devices": {"interfaces": [
            {"name": "default", "masquerade": {}, "ports": [{"name": "web", "port": 80}, {"port": 53, "protocol": "udp"}]},
        ]}},
        "networks": [{"name": "default", "pod": {}}],
    }));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["readinessProbe"], http);
    let ping = json!({"exec": {"command": ["rvmm", "ctl", "--run-dir", "/run/rvm", "agent", "guest-ping"]}, "periodSeconds": 3});
    assert_eq!(container["livenessProbe"], ping);
    let ports = json!([
        {"containerPort": 80, "protocol": "TCP", "name": "web"}, {"containerPort": 53, "protocol": "UDP"},
    ]);
    assert_eq!(container["ports"], ports);
}

#[test]
fn a_name_that_is_too_long_for_a_label_is_cut_and_told_apart() {
    let long = "n".repeat(64);
    let cut = id(&long);
    // printf n…n | sha1sum
    assert_eq!(cut, format!("{}-49f71cc1", "n".repeat(54)));
    assert_ne!(id(&"n".repeat(65)), cut);
    assert_eq!(id("short"), "short");
}
