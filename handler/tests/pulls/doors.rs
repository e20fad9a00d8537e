//! Who is let in by a registry, which registry is believed, and which one is asked.

use std::fs;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use rvm_harness::registry::LOGIN;
use rvm_harness::{Authority, Names, Registry};
use rvm_types::VirtualMachineInstance as Vmi;
use serde_json::json;

use super::{IMAGE, Place};
use crate::layouts::Image;
use crate::node::manifest;

/// A registry that only its user may use.
fn guarded() -> Place {
    Place::with(Registry::start_guarded().unwrap())
}

/// What opens the registry: the text of a pull secret or auth file.
fn login(place: &Place) -> String {
    let (username, password) = LOGIN;
    let host = format!("127.0.0.1:{}", place.wire.port());
    json!({"auths": {host: {"username": username, "password": password}}}).to_string()
}

/// Has a VMI with this pull secret run.
fn runs_with_a_secret(place: &Place, text: &str) {
    let secret = json!({
        "metadata": {"name": "door"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": text},
    });
    let secrets: Api<Secret> = Api::default_namespaced(place.cluster.client());
    let (params, secret) = (PostParams::default(), serde_json::from_value(secret).unwrap());
    place.cluster.block_on(secrets.create(&params, &secret)).unwrap();
    let mut vmi = manifest("with-secret", IMAGE);
    vmi["spec"]["volumes"][0]["containerDisk"]["imagePullSecret"] = "door".into();
    let vmi: Vmi = serde_json::from_value(vmi).unwrap();
    let _node = place.cluster.node("a");
    let vmis = place.cluster.vmis();
    place.cluster.block_on(vmis.create(&params, &vmi)).unwrap();
    place.cluster.until_phase("with-secret", "Running");
}

#[test]
fn a_registry_that_wants_a_login_says_so_and_gets_the_one_of_the_auth_file() {
    let place = guarded();
    place.push(&Image::of(&[("etc/motd", b"hello")]));
    let message = place.refusal(IMAGE);
    assert!(
        message.ends_with("does not let us have it: no login for it was found in a pull secret or auth file"),
        "{message}"
    );
    let file = place.cluster.folder.path().join("auth.json");
    fs::write(&file, login(&place)).unwrap();
    let mut handler = place.local_handler(
        "handler.log",
        ("REGISTRY_AUTH_FILE", file.to_str().unwrap()),
        &place.mirror(),
    );
    let vmis = place.local_vmis(&mut handler);
    place.create_local(&vmis);
    place.until_running(&vmis);
}

#[test]
fn a_registry_lets_in_who_has_the_vmis_pull_secret() {
    let place = guarded();
    place.push(&Image::of(&[("etc/motd", b"hello")]));
    runs_with_a_secret(&place, &login(&place));
}

#[test]
fn a_registry_that_wants_a_token_gets_the_one_that_its_server_gives_for_the_login() {
    let place = Place::with(Registry::start_with_tokens().unwrap());
    place.push(&Image::of(&[("etc/motd", b"hello")]));
    let said = place.refusal(IMAGE);
    assert!(
        said.ends_with("does not let us have it: no login for it was found in a pull secret or auth file"),
        "{said}"
    );
    runs_with_a_secret(&place, &login(&place));
}

#[test]
fn who_has_a_wrong_password_is_said_to_have_it() {
    let place = Place::with(Registry::start_with_tokens().unwrap());
    place.push(&Image::of(&[("etc/motd", b"hello")]));
    let file = place.cluster.folder.path().join("auth.json");
    fs::write(&file, login(&place).replace(LOGIN.1, "wrong")).unwrap();
    let mut handler = place.local_handler(
        "handler.log",
        ("REGISTRY_AUTH_FILE", file.to_str().unwrap()),
        &place.mirror(),
    );
    let vmis = place.local_vmis(&mut handler);
    place.create_local(&vmis);
    place.cluster.wait(|| {
        handler
            .said()
            .contains("the login that was found is not accepted")
    });
    assert!(!handler.said().contains("wrong"), "{}", handler.said());
}

#[test]
fn a_registry_with_tls_is_believed_for_the_certificate_in_its_folder() {
    let registry = Registry::start().unwrap();
    let mut place = Place::with(registry);
    place.push(&Image::of(&[("etc/motd", b"hello")]));
    let folder = place.cluster.folder.path().join("authority");
    let authority = Authority::new(&folder).unwrap();
    let names = Names {
        common: "registry",
        hosts: &["127.0.0.1"],
        ..Names::default()
    };
    let pair = authority.issue("registry", names).unwrap();
    place.registry.lock_up(&pair).unwrap();
    place.wire.mend(place.registry.port(), u64::MAX);
    let host = format!("127.0.0.1:{}", place.wire.port());
    place.cluster.mirrors = vec![format!("registry.example:5000=https://{host}")];
    let said = place.refusal(IMAGE);
    assert!(
        said.contains(&format!("the registry '{host}' failed: ")),
        "{said}"
    );
    assert!(said.contains("UnknownIssuer"), "{said}");

    let certificates = place.cluster.folder.path().join("certs.d");
    fs::create_dir_all(certificates.join(&host)).unwrap();
    fs::copy(authority.certificate(), certificates.join(&host).join("ca.crt")).unwrap();
    place.cluster.certificates = Some(certificates);
    let _node = place.cluster.node("a");
    place.cluster.until_phase("vm", "Running");
}

#[test]
fn the_registries_file_says_who_is_asked_and_in_which_order() {
    let place = Place::new();
    place.push(&Image::of(&[("etc/motd", b"hello")]));
    let empty = Registry::start().unwrap();
    let file = place.cluster.folder.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"registry.example:5000\"\nlocation = \"127.0.0.1:{}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"127.0.0.1:{}/mirrored\"\ninsecure = true\n",
        place.wire.port(),
        empty.port()
    );
    fs::write(&file, text).unwrap();
    let arguments = ["--registries".to_owned(), file.display().to_string()];
    let mut handler = place.local_handler("handler.log", ("REGISTRY_AUTH_FILE", "/dev/null"), &arguments);
    let vmis = place.local_vmis(&mut handler);
    place.create_local(&vmis);
    place.until_running(&vmis);
    let asked = empty.requests("\"GET /v2/mirrored/team/demo/manifests/1 ");
    assert_eq!(asked.len(), 1, "{asked:?}");
}

#[test]
fn a_registry_without_tls_is_asked_where_the_system_knows_nobody_who_signs() {
    let place = Place::new();
    place.push(&Image::of(&[("etc/motd", b"hello")]));
    let nobody = ("SSL_CERT_FILE", "/dev/null");
    let mut handler = place.local_handler("handler.log", nobody, &place.mirror());
    let vmis = place.local_vmis(&mut handler);
    place.create_local(&vmis);
    place.until_running(&vmis);
}
