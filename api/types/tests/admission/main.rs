//! What is filled in, and what is refused and by which words.

mod boot;
mod replica_set;
mod volumes;

use rvm_types::admission::{Reason, default, validate};
use rvm_types::{Cause, Quantity, VirtualMachineInstance, manifest};
use serde_json::{Value, json};

/// The smallest VMI that runs: an ordinary image as the root file system.
fn alpine() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": { "name": "vmi-alpine", "annotations": { "rvm/root-filesystem": "root" } },
        "spec": {
            "domain": { "devices": {}, "memory": { "guest": "256Mi" } },
            "volumes": [{ "name": "root", "containerDisk": { "image": "docker.io/library/alpine:3.23" } }],
        },
    })
}

/// The smallest VMI with one value put where the JSON pointer says.
fn alpine_with(pointer: &str, value: Value) -> Value {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer has a slash");
    let mut object = alpine();
    let parent = object.pointer_mut(parent).expect("the parent is there");
    parent[last] = value;
    object
}

fn defaulted(object: Value) -> VirtualMachineInstance {
    let mut vmi: VirtualMachineInstance = serde_json::from_value(object).expect("fits the type");
    default(&mut vmi);
    vmi
}

fn refused(object: Value) -> Vec<Cause> {
    validate(&defaulted(object))
}

/// The one cause for which this is refused.
fn cause(object: Value) -> Cause {
    let mut causes = refused(object);
    assert_eq!(causes.len(), 1, "{causes:#?}");
    causes.remove(0)
}

fn assert_cause(object: Value, reason: Reason, field: &str) {
    let cause = cause(object);
    assert_eq!((cause.reason, cause.field.as_str()), (reason, field), "{cause}");
    assert!(cause.message.contains(field), "{cause}");
}

#[test]
fn the_smallest_vmi_is_fit_to_run() {
    assert_eq!(refused(alpine()), []);
}

#[test]
fn what_was_left_out_is_filled_in_as_kubevirt_does() {
    let vmi = serde_json::to_value(defaulted(alpine()).spec).unwrap();
    assert_eq!(vmi["architecture"], "riscv64");
    assert_eq!(vmi["domain"]["machine"], json!({ "type": "virt" }));
    assert_eq!(
        vmi["domain"]["cpu"],
        json!({ "cores": 1, "sockets": 1, "threads": 1 })
    );
    assert_eq!(
        vmi["volumes"][0]["containerDisk"]["imagePullPolicy"],
        "IfNotPresent"
    );
    assert_eq!(vmi["networks"], Value::Null);
}

#[test]
fn a_volume_without_a_disk_gets_one_except_the_root_file_system() {
    let mut object = alpine();
    object["spec"]["volumes"] = json!([
        { "name": "root", "containerDisk": { "image": "a:1" } },
        { "name": "scratch", "emptyDisk": { "capacity": "1Gi" } },
    ]);
    let vmi = serde_json::to_value(defaulted(object).spec).unwrap();
    assert_eq!(
        vmi["domain"]["devices"]["disks"],
        json!([{ "name": "scratch", "disk": { "bus": "virtio" } }])
    );
}

#[test]
fn a_tag_that_moves_is_pulled_always() {
    let policy = |image: &str| {
        let vmi = defaulted(alpine_with(
            "/spec/volumes",
            json!([{ "name": "root", "containerDisk": { "image": image } }]),
        ));
        vmi.spec.volumes[0]
            .container_disk
            .clone()
            .unwrap()
            .image_pull_policy
            .unwrap()
    };
    let images = [
        "alpine",
        "localhost:5000/alpine",
        "alpine:latest",
        "alpine:3",
        "r:5000/a:1",
        "alpine@sha256:00",
    ];
    let policies = [
        "Always",
        "Always",
        "Always",
        "IfNotPresent",
        "IfNotPresent",
        "IfNotPresent",
    ];
    assert_eq!(images.map(policy), policies);
}

#[test]
fn memory_and_processors_come_from_the_resources_where_nothing_else_is_said() {
    let mut object = alpine();
    object["spec"]["domain"] =
        json!({ "devices": {}, "resources": { "requests": { "memory": "64Mi", "cpu": "1500m" } } });
    let vmi = defaulted(object);
    assert_eq!(
        vmi.spec.domain.memory.unwrap().guest,
        Some(Quantity::from("64Mi"))
    );
    assert_eq!(vmi.spec.domain.cpu.unwrap().sockets, Some(2));
}

#[test]
fn filling_in_twice_changes_nothing_more() {
    let once = defaulted(alpine());
    assert_eq!(defaulted(serde_json::to_value(&once).unwrap()), once);
}

#[test]
fn another_architecture_is_refused() {
    assert_cause(
        alpine_with("/spec/architecture", json!("amd64")),
        Reason::FieldValueNotSupported,
        "spec.architecture",
    );
}

#[test]
fn a_name_of_300_characters_is_refused() {
    assert_cause(
        alpine_with("/metadata/name", json!("a".repeat(300))),
        Reason::FieldValueInvalid,
        "metadata.name",
    );
}

#[test]
fn missing_memory_is_refused() {
    assert_cause(
        alpine_with("/spec/domain/memory", json!({})),
        Reason::FieldValueRequired,
        "spec.domain.memory.guest",
    );
}

#[test]
fn memory_that_no_kernel_boots_in_is_refused() {
    assert_cause(
        alpine_with("/spec/domain/memory/guest", json!("4Mi")),
        Reason::FieldValueInvalid,
        "spec.domain.memory.guest",
    );
}

#[test]
fn memory_that_is_no_quantity_is_refused() {
    let cause = cause(alpine_with("/spec/domain/memory/guest", json!("lots")));
    assert_eq!(
        cause.message,
        "spec.domain.memory.guest is not a quantity such as 256Mi, 1.5G or 1e9: lots"
    );
}

#[test]
fn more_than_64_processors_are_refused_also_when_they_overflow() {
    let cpu = |cpu: Value| cause(alpine_with("/spec/domain/cpu", cpu)).field;
    assert_eq!(cpu(json!({ "cores": 5, "sockets": 13 })), "spec.domain.cpu");
    assert_eq!(
        cpu(json!({ "cores": u32::MAX, "sockets": u32::MAX, "threads": u32::MAX })),
        "spec.domain.cpu"
    );
    assert_eq!(
        refused(alpine_with(
            "/spec/domain/cpu",
            json!({ "cores": 8, "sockets": 8 })
        )),
        []
    );
}

#[test]
fn host_model_is_refused_and_passthrough_is_not() {
    let model = |model: &str| alpine_with("/spec/domain/cpu", json!({ "model": model }));
    assert_cause(
        model("host-model"),
        Reason::FieldValueNotSupported,
        "spec.domain.cpu.model",
    );
    assert_eq!(refused(model("host-passthrough")), []);
}

#[test]
fn a_processor_s_features_have_names_of_their_own_and_policies_that_there_are() {
    let features = |features: Value| alpine_with("/spec/domain/cpu", json!({ "features": features }));
    let right = json!([{ "name": "v" }, { "name": "zbb", "policy": "disable" }]);
    assert_eq!(refused(features(right)), []);
    assert_cause(
        features(json!([{ "name": "v", "policy": "maybe" }])),
        Reason::FieldValueNotSupported,
        "spec.domain.cpu.features[0].policy",
    );
    let twice = refused(features(json!([{ "name": "v" }, { "name": "v" }])));
    assert_eq!(twice.len(), 1, "{twice:?}");
}

/// The alpine VMI with this kind of disk.
fn with_disk(disk: &Value) -> Value {
    let mut named = json!({ "name": "root" });
    named
        .as_object_mut()
        .expect("an object")
        .extend(disk.as_object().expect("an object").clone());
    alpine_with("/spec/domain/devices/disks", json!([named]))
}

#[test]
fn a_bus_other_than_virtio_and_scsi_is_refused() {
    let unknown = Reason::FieldValueNotSupported;
    let disk = |kind: &str, bus| with_disk(&json!({ kind: { "bus": bus }, "serial": "s".repeat(20) }));
    for kind in ["disk", "cdrom"] {
        assert_eq!(refused(disk(kind, "virtio")), []);
        assert_eq!(refused(disk(kind, "scsi")), []);
    }
    for bus in ["sata", "usb"] {
        let disk = |kind: &str| disk(kind, bus);
        assert_cause(disk("disk"), unknown, "spec.domain.devices.disks[0].disk.bus");
        assert_cause(disk("cdrom"), unknown, "spec.domain.devices.disks[0].cdrom.bus");
    }
}

#[test]
fn a_serial_number_is_as_long_as_its_bus_has_room() {
    let disk = |bus, length| with_disk(&json!({ "disk": { "bus": bus }, "serial": "s".repeat(length) }));
    assert_eq!(refused(disk("scsi", 36)), []);
    let field = "spec.domain.devices.disks[0].serial";
    assert_cause(disk("scsi", 37), Reason::FieldValueInvalid, field);
    assert_cause(disk("virtio", 21), Reason::FieldValueInvalid, field);
}

#[test]
fn a_lun_and_a_watchdog_are_refused_by_their_names() {
    let unknown = Reason::FieldValueNotSupported;
    assert_cause(
        with_disk(&json!({ "lun": {} })),
        unknown,
        "spec.domain.devices.disks[0].lun",
    );
    let watchdog = json!({ "name": "dog", "i6300esb": { "action": "poweroff" } });
    let watched = alpine_with("/spec/domain/devices/watchdog", watchdog);
    assert_cause(watched, unknown, "spec.domain.devices.watchdog");
}

#[test]
fn a_disks_error_policy_is_one_of_kubevirts() {
    let policy = |policy: &str| with_disk(&json!({ "disk": {}, "errorPolicy": policy }));
    for known in ["stop", "report", "enospace", "ignore"] {
        assert_eq!(refused(policy(known)), []);
    }
    let unknown = Reason::FieldValueNotSupported;
    assert_cause(
        policy("enospc"),
        unknown,
        "spec.domain.devices.disks[0].errorPolicy",
    );
}

#[test]
fn a_disk_without_its_volume_is_refused() {
    assert_cause(
        alpine_with("/spec/domain/devices/disks", json!([{ "name": "nowhere" }])),
        Reason::FieldValueInvalid,
        "spec.domain.devices.disks[0].name",
    );
}

#[test]
fn the_same_disk_twice_is_refused() {
    assert_cause(
        alpine_with(
            "/spec/domain/devices/disks",
            json!([{ "name": "root" }, { "name": "root" }]),
        ),
        Reason::FieldValueDuplicate,
        "spec.domain.devices.disks[1].name",
    );
}

#[test]
fn a_field_that_nobody_knows_is_refused_by_its_path() {
    assert_cause(
        alpine_with("/spec/domain/devices", json!({ "gpsReceiver": {} })),
        Reason::FieldValueNotSupported,
        "spec.domain.devices.gpsReceiver",
    );
}

#[test]
fn fields_that_only_advise_or_say_nothing_are_accepted() {
    let mut object = alpine();
    object["spec"]["tolerations"] = json!([{ "operator": "Exists" }]);
    object["spec"]["domain"]["features"] = json!({});
    object["spec"]["domain"]["cpu"] = json!({ "dedicatedCpuPlacement": false });
    object["spec"]["domain"]["devices"] = json!({ "rng": {}, "autoattachGraphicsDevice": false });
    assert_eq!(refused(object), []);
}

fn networked(network: &Value, interface: &Value) -> Value {
    let mut object = alpine_with("/spec/networks", json!([network]));
    object["spec"]["domain"]["devices"] = json!({ "interfaces": [interface] });
    object
}

fn fields_refused(network: &Value, interface: &Value) -> Vec<String> {
    let causes = refused(networked(network, interface));
    causes.into_iter().map(|cause| cause.field).collect()
}

#[test]
fn the_pods_network_is_taken_behind_a_masquerade_and_on_a_bridge() {
    let network = json!({ "name": "default", "pod": {} });
    let full = json!({ "name": "default", "masquerade": {}, "model": "virtio", "macAddress": "02:00:00:12:34:56",
                       "ports": [{ "name": "ssh", "port": 22 }, { "port": 53, "protocol": "UDP" }] });
    assert_eq!(refused(networked(&network, &full)), []);
    assert_eq!(
        refused(networked(&network, &json!({ "name": "default", "bridge": {} }))),
        []
    );
}

#[test]
fn networks_and_bindings_that_rvm_has_not_are_refused_by_name() {
    let (pod, bridge) = (
        json!({ "name": "n", "pod": {} }),
        json!({ "name": "n", "bridge": {} }),
    );
    let multus = json!({ "name": "n", "multus": { "networkName": "other" } });
    assert_eq!(fields_refused(&multus, &bridge), ["spec.networks[0].multus"]);
    let sriov = json!({ "name": "n", "sriov": {} });
    assert_eq!(
        fields_refused(&pod, &sriov),
        ["spec.domain.devices.interfaces[0].sriov"]
    );
    let cidr = json!({ "name": "n", "pod": { "vmNetworkCIDR": "10.1.0.0/24" } });
    assert_eq!(
        fields_refused(&cidr, &bridge),
        ["spec.networks[0].pod.vmNetworkCIDR"]
    );
    let old = json!({ "name": "n", "bridge": {}, "model": "e1000" });
    assert_eq!(
        fields_refused(&pod, &old),
        ["spec.domain.devices.interfaces[0].model"]
    );
}

#[test]
fn an_interface_and_its_network_need_each_other_and_one_binding() {
    let pod = json!({ "name": "n", "pod": {} });
    let other = json!({ "name": "m", "bridge": {} });
    assert_eq!(
        fields_refused(&pod, &other),
        ["spec.networks[0].name", "spec.domain.devices.interfaces[0].name"]
    );
    let both = json!({ "name": "n", "bridge": {}, "masquerade": {} });
    assert_eq!(fields_refused(&pod, &both), ["spec.domain.devices.interfaces[0]"]);
    let none = json!({ "name": "n" });
    assert_eq!(fields_refused(&pod, &none), ["spec.domain.devices.interfaces[0]"]);
    let wrong =
        json!({ "name": "n", "masquerade": {}, "macAddress": "01:00:00:00:00:00", "ports": [{ "port": 0 }] });
    assert_eq!(
        fields_refused(&pod, &wrong),
        [
            "spec.domain.devices.interfaces[0].macAddress",
            "spec.domain.devices.interfaces[0].ports[0].port"
        ]
    );
}

#[test]
fn the_other_mistakes_are_each_named() {
    let field = |pointer, value| cause(alpine_with(pointer, value)).field;
    assert_eq!(field("/spec/hostname", json!("Not_A_Label")), "spec.hostname");
    assert_eq!(
        field("/spec/terminationGracePeriodSeconds", json!(-1)),
        "spec.terminationGracePeriodSeconds"
    );
    assert_eq!(
        field("/spec/evictionStrategy", json!("Maybe")),
        "spec.evictionStrategy"
    );
    assert_eq!(
        field("/spec/startStrategy", json!("Running")),
        "spec.startStrategy"
    );
    assert_eq!(
        field("/spec/domain/machine", json!({ "type": "q35" })),
        "spec.domain.machine.type"
    );
    assert_eq!(
        field("/spec/domain/cpu", json!({ "maxSockets": 4 })),
        "spec.domain.cpu.maxSockets"
    );
    let resources = json!({ "requests": { "cpu": "2" }, "limits": { "cpu": "1" } });
    assert_eq!(
        field("/spec/domain/resources", resources),
        "spec.domain.resources.requests.cpu"
    );
    let serial = json!([{ "name": "root", "serial": "x".repeat(21) }]);
    assert_eq!(
        field("/spec/domain/devices/disks", serial),
        "spec.domain.devices.disks[0].serial"
    );
    let order = json!([{ "name": "root", "bootOrder": 0 }]);
    assert_eq!(
        field("/spec/domain/devices/disks", order),
        "spec.domain.devices.disks[0].bootOrder"
    );
    let args = json!({ "kernelBoot": { "kernelArgs": "a\nb" } });
    assert_eq!(
        field("/spec/domain/firmware", args),
        "spec.domain.firmware.kernelBoot.kernelArgs"
    );
}

#[test]
fn a_manifest_in_yaml_may_give_memory_as_a_bare_number() {
    let yaml = "metadata: {name: a, annotations: {rvm/root-filesystem: r}}\nkind: VirtualMachineInstance\n\
                apiVersion: kubevirt.io/v1\nspec: {domain: {devices: {}, memory: {guest: 134217728}}, \
                volumes: [{name: r, containerDisk: {image: a}}]}";
    assert_eq!(refused(manifest::parse(yaml.as_bytes()).unwrap().remove(0)), []);
}
