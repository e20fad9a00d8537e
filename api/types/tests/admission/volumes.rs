//! What volumes, firmware and credentials a VMI may have.

use super::*;

/// The smallest VMI with one more volume.
fn with_volume(source: Value) -> Value {
    let mut object = alpine();
    let mut volume = source;
    volume["name"] = json!("more");
    object["spec"]["volumes"]
        .as_array_mut()
        .expect("a list")
        .push(volume);
    object
}

#[test]
fn a_disk_without_a_kernel_is_booted_by_efi() {
    let vmi = defaulted(alpine_with("/metadata/annotations", json!({})));
    assert_eq!(validate(&vmi), []);
    let firmware = serde_json::to_value(vmi.spec.domain.firmware).unwrap();
    assert_eq!(
        firmware,
        json!({ "bootloader": { "efi": { "secureBoot": false } } })
    );
}

#[test]
fn a_claim_s_disk_is_booted_by_efi_too() {
    let claim = json!({ "claimName": "disk" });
    for source in [
        json!({ "persistentVolumeClaim": claim }),
        json!({ "ephemeral": { "persistentVolumeClaim": claim } }),
    ] {
        let mut object = alpine_with("/metadata/annotations", json!({}));
        let name = object["spec"]["volumes"][0]["name"].clone();
        object["spec"]["volumes"] = json!([source]);
        object["spec"]["volumes"][0]["name"] = name;
        assert_eq!(validate(&defaulted(object)), []);
    }
}

#[test]
fn efi_is_refused_with_secure_boot_or_beside_a_kernel() {
    let mut object = alpine_with(
        "/spec/domain/firmware",
        json!({ "bootloader": { "efi": { "secureBoot": false } } }),
    );
    let field = "spec.domain.firmware.bootloader.efi";
    assert_cause(object.clone(), Reason::FieldValueInvalid, field);
    object["metadata"]["annotations"] = json!({});
    let efi =
        |object: &mut Value, efi: Value| object["spec"]["domain"]["firmware"]["bootloader"]["efi"] = efi;
    efi(&mut object, json!({}));
    assert_cause(
        object.clone(),
        Reason::FieldValueNotSupported,
        &format!("{field}.secureBoot"),
    );
}

#[test]
fn a_firmware_is_chosen_by_name_and_only_one_keeps_variables() {
    let mut object = alpine_with(
        "/spec/domain/firmware",
        json!({ "bootloader": { "efi": { "secureBoot": false, "persistent": true } } }),
    );
    let annotation = "metadata.annotations[rvm/firmware]";
    object["metadata"]["annotations"] = json!({ "rvm/firmware": "edk2" });
    assert_eq!(validate(&defaulted(object.clone())), []);
    object["metadata"]["annotations"] = json!({ "rvm/firmware": "uboot" });
    assert_cause(object.clone(), Reason::FieldValueInvalid, annotation);
    object["metadata"]["annotations"] = json!({ "rvm/firmware": "seabios" });
    assert_cause(object, Reason::FieldValueInvalid, annotation);
}

#[test]
fn every_volume_that_brings_files_is_fit_to_run() {
    let mut object = alpine();
    object["spec"]["volumes"] = json!([
        { "name": "root", "containerDisk": { "image": "a:1" } },
        { "name": "map", "configMap": { "name": "settings", "optional": true, "volumeLabel": "settings" } },
        { "name": "secret", "secret": { "secretName": "keys" } },
        { "name": "about", "downwardAPI": { "fields": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            { "path": "app/name", "fieldRef": { "fieldPath": "metadata.labels['app']" } },
        ] } },
        { "name": "cloud", "cloudInitNoCloud": { "userData": "#cloud-config", "networkDataBase64": "dmVyc2lvbjogMg==" } },
        { "name": "drive", "cloudInitConfigDrive": { "secretRef": { "name": "user" } } },
        { "name": "host", "hostDisk": { "path": "/disks/a.img", "type": "DiskOrCreate", "capacity": "1Gi" } },
    ]);
    object["spec"]["accessCredentials"] = json!([{ "sshPublicKey": {
        "source": { "secret": { "secretName": "ssh" } }, "propagationMethod": { "noCloud": {} },
    } }]);
    assert_eq!(refused(object), []);
}

#[test]
fn cloud_inits_data_is_refused_in_kubevirts_words() {
    let said = |data: Value| cause(with_volume(json!({ "cloudInitNoCloud": data }))).message;
    let field = "spec.volumes[1].cloudInitNoCloud";
    assert_eq!(
        said(json!({ "userData": "a", "userDataBase64": "YQ==" })),
        format!("{field} must have only one userdatasource set.")
    );
    assert_eq!(
        said(json!({ "userDataBase64": "?" })),
        format!("{field}.userDataBase64 is not a valid base64 value.")
    );
    assert_eq!(
        said(json!({ "userData": "a".repeat(2049) })),
        format!("{field} userdata exceeds 2048 byte limit. Should use UserDataSecretRef for larger data.")
    );
    assert_eq!(
        said(json!({})),
        format!("{field} must have at least one userdatasource or one networkdatasource set.")
    );
    assert_eq!(
        refused(with_volume(
            json!({ "cloudInitNoCloud": { "userData": "a".repeat(2048) } })
        )),
        []
    );
}

#[test]
fn a_volume_with_two_sources_or_without_its_object_is_refused() {
    let invalid = Reason::FieldValueInvalid;
    let two = json!({ "emptyDisk": { "capacity": "1Gi" }, "configMap": { "name": "a" } });
    assert_cause(with_volume(two), invalid, "spec.volumes[1]");
    let required = Reason::FieldValueRequired;
    assert_cause(
        with_volume(json!({ "configMap": {} })),
        required,
        "spec.volumes[1].configMap.name",
    );
    assert_cause(
        with_volume(json!({ "secret": {} })),
        required,
        "spec.volumes[1].secret.secretName",
    );
    let label = json!({ "configMap": { "name": "a", "volumeLabel": "two words" } });
    assert_cause(
        with_volume(label),
        invalid,
        "spec.volumes[1].configMap.volumeLabel",
    );
}

#[test]
fn a_claim_is_named_wherever_it_is_meant() {
    let claim = |claim: Value| with_volume(json!({ "persistentVolumeClaim": claim }));
    let over = |claim: Value| with_volume(json!({ "ephemeral": { "persistentVolumeClaim": claim } }));
    assert_eq!(
        validate(&defaulted(claim(json!({ "claimName": "a", "readOnly": true })))),
        []
    );
    assert_eq!(validate(&defaulted(over(json!({ "claimName": "a" })))), []);
    let (direct, inner) = (
        "spec.volumes[1].persistentVolumeClaim",
        "spec.volumes[1].ephemeral.persistentVolumeClaim",
    );
    let name = |path: &str| format!("{path}.claimName");
    assert_cause(claim(json!({})), Reason::FieldValueRequired, &name(direct));
    assert_cause(over(json!({})), Reason::FieldValueRequired, &name(inner));
    let bad = json!({ "claimName": "../a" });
    assert_cause(claim(bad.clone()), Reason::FieldValueInvalid, &name(direct));
    assert_cause(over(bad), Reason::FieldValueInvalid, &name(inner));
    let plugged = json!({ "claimName": "a", "hotpluggable": true });
    assert_eq!(validate(&defaulted(claim(plugged.clone()))), []);
    let field = format!("{inner}.hotpluggable");
    assert_cause(over(plugged), Reason::FieldValueNotSupported, &field);
}

#[test]
fn what_comes_and_goes_does_so_by_scsi_and_where_nobody_excludes_it() {
    let plugged = with_volume(json!({ "persistentVolumeClaim": { "claimName": "a", "hotpluggable": true } }));
    let with = |disk: Value| {
        let mut vmi = plugged.clone();
        vmi["spec"]["domain"]["devices"]["disks"] = json!([disk]);
        vmi
    };
    let unknown = Reason::FieldValueNotSupported;
    let bus = "spec.domain.devices.disks[0].disk.bus";
    assert_eq!(
        validate(&defaulted(with(
            json!({ "name": "more", "disk": { "bus": "scsi" } })
        ))),
        []
    );
    assert_cause(
        with(json!({ "name": "more", "disk": { "bus": "virtio" } })),
        unknown,
        bus,
    );
    assert_cause(
        with(json!({ "name": "more", "cdrom": { "bus": "scsi" } })),
        unknown,
        bus,
    );
    let first = json!({ "name": "more", "disk": { "bus": "scsi" }, "bootOrder": 1 });
    assert_cause(with(first), unknown, "spec.domain.devices.disks[0].bootOrder");
    let mut none = with(json!({ "name": "more", "disk": { "bus": "scsi" } }));
    none["spec"]["domain"]["devices"]["disableHotplug"] = json!(true);
    assert_cause(none, unknown, "spec.domain.devices.disks[0]");
}

#[test]
fn one_volume_at_most_is_of_a_service_account_that_is_named() {
    let account = |account: Value| with_volume(json!({ "serviceAccount": account }));
    let robot = json!({ "serviceAccountName": "robot" });
    assert_eq!(validate(&defaulted(account(robot.clone()))), []);
    let at = |field: &str| format!("spec.volumes[1].serviceAccount.{field}");
    let (name, invalid) = (at("serviceAccountName"), Reason::FieldValueInvalid);
    assert_cause(account(json!({})), Reason::FieldValueRequired, &name);
    assert_cause(account(json!({ "serviceAccountName": "../a" })), invalid, &name);
    let mode = json!({ "serviceAccountName": "robot", "defaultMode": 256 });
    assert_cause(account(mode), Reason::FieldValueNotSupported, &at("defaultMode"));
    let mut two = account(robot.clone());
    let volumes = two["spec"]["volumes"].as_array_mut().unwrap();
    volumes.push(json!({ "name": "second", "serviceAccount": robot }));
    assert_cause(two, invalid, "spec.volumes");
}

#[test]
fn what_no_volume_can_be_made_from_is_refused_by_its_name() {
    let named = |field: &str, source: Value| {
        let object = with_volume(json!({ field: source }));
        assert_cause(
            object,
            Reason::FieldValueNotSupported,
            &format!("spec.volumes[1].{field}"),
        );
    };
    named("dataVolume", json!({ "name": "a" }));
    named("sysprep", json!({ "configMap": { "name": "a" } }));
}

#[test]
fn a_file_of_the_downward_api_stays_in_its_volume_and_has_a_known_field() {
    let files = |fields: Value| with_volume(json!({ "downwardAPI": { "fields": fields } }));
    let name = json!({ "fieldPath": "metadata.name" });
    let at = |rest: &str| format!("spec.volumes[1].downwardAPI.fields{rest}");
    let climbs = json!([{ "path": "../a", "fieldRef": name }]);
    assert_cause(files(climbs), Reason::FieldValueInvalid, &at("[0].path"));
    let clash = json!([{ "path": "a", "fieldRef": name }, { "path": "a/b", "fieldRef": name }]);
    assert_cause(files(clash), Reason::FieldValueInvalid, &at("[1].path"));
    let unknown = json!([{ "path": "a", "fieldRef": { "fieldPath": "status.hostIP" } }]);
    assert_cause(
        files(unknown),
        Reason::FieldValueNotSupported,
        &at("[0].fieldRef.fieldPath"),
    );
}

#[test]
fn a_host_disk_needs_a_path_a_type_and_where_it_is_made_a_capacity() {
    let host = |disk: Value| with_volume(json!({ "hostDisk": disk }));
    let at = |field: &str| format!("spec.volumes[1].hostDisk.{field}");
    assert_cause(
        host(json!({ "path": "", "type": "Disk" })),
        Reason::FieldValueRequired,
        &at("path"),
    );
    assert_cause(
        host(json!({ "path": "/a/../b", "type": "Disk" })),
        Reason::FieldValueInvalid,
        &at("path"),
    );
    assert_cause(
        host(json!({ "path": "/a", "type": "File" })),
        Reason::FieldValueInvalid,
        &at("type"),
    );
    assert_cause(
        host(json!({ "path": "/a", "type": "DiskOrCreate" })),
        Reason::FieldValueRequired,
        &at("capacity"),
    );
    let both = json!({ "path": "/a", "type": "Disk", "capacity": "1Gi" });
    assert_cause(host(both), Reason::FieldValueInvalid, &at("capacity"));
}

#[test]
fn credentials_need_a_volume_that_brings_them_and_a_way_that_exists() {
    let key = |method: Value| {
        let source = json!({ "secret": { "secretName": "ssh" } });
        let key = json!([{ "sshPublicKey": { "source": source, "propagationMethod": method } }]);
        alpine_with("/spec/accessCredentials", key)
    };
    let path = "spec.accessCredentials[0].sshPublicKey.propagationMethod";
    assert_cause(key(json!({ "noCloud": {} })), Reason::FieldValueInvalid, path);
    assert_cause(key(json!({})), Reason::FieldValueInvalid, path);
    let users = |users: Value| key(json!({ "qemuGuestAgent": { "users": users } }));
    let path = format!("{path}.qemuGuestAgent.users");
    assert_cause(users(json!([])), Reason::FieldValueRequired, &path);
    assert_cause(users(json!(["a b"])), Reason::FieldValueInvalid, &path);
    assert_cause(users(json!(["../root"])), Reason::FieldValueInvalid, &path);
    assert_cause(users(json!(vec!["root"; 17])), Reason::FieldValueInvalid, &path);
    assert_eq!(refused(users(json!(["root"]))), []);
    let password = |method: Value| {
        let source = json!({ "secret": { "secretName": "words" } });
        let password = json!([{ "userPassword": { "source": source, "propagationMethod": method } }]);
        alpine_with("/spec/accessCredentials", password)
    };
    assert_eq!(refused(password(json!({ "qemuGuestAgent": {} }))), []);
    let path = "spec.accessCredentials[0].userPassword.propagationMethod";
    assert_cause(password(json!({})), Reason::FieldValueInvalid, path);
    assert_cause(
        password(json!({ "other": {} })),
        Reason::FieldValueNotSupported,
        &format!("{path}.other"),
    );
}
