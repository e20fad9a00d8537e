//! What a VM says that cannot run: one word, which people read in a table.

use serde_json::json;

use crate::place::{Place, condition, vm, vmi};

pub fn case_37_a_vm_says_what_it_waits_for(place: &Place) {
    let nowhere = vmi().on("kubernetes.io/hostname", "nowhere");
    place.apply(&[vm("Always", nowhere)]);
    let waiting = place.await_word("ErrorUnschedulable");
    assert_eq!(condition(&waiting, "PodScheduled")["reason"], "Unschedulable");
    place
        .kubectl
        .ok(&["delete", "vm", "--all", "--timeout=120s"])
        .unwrap();

    let lacking = vmi().with(|vmi| {
        let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "missing"}});
        vmi["spec"]["volumes"].as_array_mut().unwrap().push(claim);
    });
    place.apply(&[vm("Always", lacking)]);
    place.await_word("ErrorPvcNotFound");
}

pub fn case_38_a_vm_says_that_its_image_cannot_be_had(place: &Place) {
    let missing = vmi().with(|vmi| {
        vmi["spec"]["volumes"][0]["containerDisk"]["image"] = json!("127.0.0.1:1/no/such:1");
    });
    place.apply(&[vm("Always", missing)]);
    place.await_that("vm", "word on the image", |vm| {
        let word = vm["status"]["printableStatus"].as_str().unwrap_or_default();
        ["ErrImagePull", "ImagePullBackOff"].contains(&word)
    });
}
