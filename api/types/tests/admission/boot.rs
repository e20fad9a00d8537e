//! What a machine boots.

use super::*;

#[test]
fn secure_boot_is_refused_also_where_it_is_only_the_default() {
    let fields = |efi: Value| -> Vec<String> {
        let object = alpine_with("/spec/domain/firmware", json!({ "bootloader": { "efi": efi } }));
        refused(object).into_iter().map(|cause| cause.field).collect()
    };
    let secure_boot = "spec.domain.firmware.bootloader.efi.secureBoot".to_owned();
    assert!(fields(json!({})).contains(&secure_boot));
    assert!(fields(json!({ "secureBoot": true })).contains(&secure_boot));
    assert!(!fields(json!({ "secureBoot": false })).contains(&secure_boot));
}

#[test]
fn a_missing_image_is_refused() {
    assert_cause(
        alpine_with(
            "/spec/volumes",
            json!([{ "name": "root", "containerDisk": { "image": "" } }]),
        ),
        Reason::FieldValueRequired,
        "spec.volumes[0].containerDisk.image",
    );
}

#[test]
fn a_root_file_system_that_is_no_volume_is_refused() {
    assert_cause(
        alpine_with(
            "/metadata/annotations",
            json!({ "rvm/root-filesystem": "nowhere" }),
        ),
        Reason::FieldValueInvalid,
        "metadata.annotations[rvm/root-filesystem]",
    );
}

#[test]
fn a_vmi_that_boots_from_nothing_is_refused() {
    let mut object = alpine_with(
        "/spec/volumes",
        json!([{ "name": "scratch", "emptyDisk": { "capacity": "1Gi" } }]),
    );
    object["metadata"]["annotations"] = json!({});
    assert_cause(object, Reason::FieldValueInvalid, "spec.domain.firmware");
}

#[test]
fn a_root_file_system_may_have_another_kernel_and_no_initial_ram_disk_besides() {
    let mut container = json!({ "image": "k:1", "kernelPath": "/boot/Image" });
    let with = |container: &Value| {
        alpine_with(
            "/spec/domain/firmware",
            json!({ "kernelBoot": { "container": container } }),
        )
    };
    assert_eq!(refused(with(&container)), []);
    container["initrdPath"] = json!("/boot/initrd");
    assert_cause(
        with(&container),
        Reason::FieldValueInvalid,
        "spec.domain.firmware.kernelBoot.container.initrdPath",
    );
}

#[test]
fn a_firmware_of_its_author_s_boots_a_disk_and_takes_nothing_that_is_a_kernel_s() {
    let with = |boot: &Value, annotations: Value, firmware: Value| {
        let mut object = alpine_with("/spec/domain/firmware", firmware);
        object["spec"]["domain"]["firmware"]["kernelBoot"] = boot.clone();
        object["metadata"]["annotations"] = annotations;
        object
    };
    let own = || json!({ "rvm/firmware": "kernelBoot" });
    let boot = json!({ "container": { "image": "f:1", "kernelPath": "/u-boot.bin" } });
    assert_eq!(refused(with(&boot, own(), json!({}))), []);
    let efi = json!({ "bootloader": { "efi": { "secureBoot": false } } });
    assert_eq!(refused(with(&boot, own(), efi)), []);

    let path = "spec.domain.firmware.";
    let mut initrd = boot.clone();
    initrd["container"]["initrdPath"] = json!("/initrd");
    let mut args = boot.clone();
    args["kernelArgs"] = json!("quiet");
    for (boot, annotations, firmware, field) in [
        (
            &initrd,
            own(),
            json!({}),
            format!("{path}kernelBoot.container.initrdPath"),
        ),
        (&args, own(), json!({}), format!("{path}kernelBoot.kernelArgs")),
        (
            &boot,
            own(),
            json!({ "bootloader": { "efi": { "secureBoot": false, "persistent": true } } }),
            format!("{path}bootloader.efi.persistent"),
        ),
        (
            &json!({}),
            own(),
            json!({}),
            "metadata.annotations[rvm/firmware]".to_owned(),
        ),
        (
            &boot,
            json!({ "rvm/firmware": "kernelBoot", "rvm/root-filesystem": "root" }),
            json!({}),
            "metadata.annotations[rvm/firmware]".to_owned(),
        ),
    ] {
        assert_cause(
            with(boot, annotations, firmware),
            Reason::FieldValueInvalid,
            &field,
        );
    }
    let mut diskless = with(&boot, own(), json!({}));
    diskless["spec"]["volumes"] = json!([{ "name": "scratch", "emptyDisk": { "capacity": "1Gi" } }]);
    assert_cause(diskless, Reason::FieldValueInvalid, "spec.domain.firmware");
}

#[test]
fn a_kernel_out_of_an_image_is_fit_to_run_and_needs_its_path() {
    let container = json!({ "image": "k:1", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initramfs" });
    let mut object = alpine_with(
        "/spec/domain/firmware",
        json!({ "kernelBoot": { "container": container } }),
    );
    object["metadata"]["annotations"] = json!({});
    assert_eq!(refused(object.clone()), []);
    object["spec"]["domain"]["firmware"]["kernelBoot"]["container"] = json!({ "image": "k:1" });
    assert_cause(
        object,
        Reason::FieldValueRequired,
        "spec.domain.firmware.kernelBoot.container.kernelPath",
    );
}

#[test]
fn a_path_that_climbs_out_of_the_image_is_refused() {
    let disk =
        json!([{ "name": "root", "containerDisk": { "image": "a:1", "path": "/disk/../../etc/shadow" } }]);
    assert_cause(
        alpine_with("/spec/volumes", disk),
        Reason::FieldValueInvalid,
        "spec.volumes[0].containerDisk.path",
    );
}
