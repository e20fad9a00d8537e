//! What of a guest is reached from outside.

use rvm_e2e::distribution::{self, BOOT, SET_UP};
use rvm_e2e::guest::NAME;
use rvm_harness::Plain;
use rvm_harness::patience::{Look, eventually};
use serde_json::json;

use crate::place::{Place, SUBRESOURCES};

/// What a handler is told so that it finds the distribution.
pub fn mirror() -> [String; 2] {
    ["--mirror".to_owned(), distribution::mirror().unwrap()]
}

/// A Debian's, which says who it is to whoever connects, by the websocket that virtctl opens.
pub fn case_06_a_guest_s_ssh_server_is_reached_by_port_forward(place: &Place) {
    let cloud_init = json!({"cloudInitNoCloud": {"userData": "#cloud-config\n"}});
    let debian = distribution::vmi(cloud_init, "/".as_ref()).with(|vmi| {
        vmi["metadata"]["name"] = json!(NAME);
        let no_host = |list: &mut serde_json::Value| {
            list.as_array_mut().unwrap().retain(|one| one["name"] != "host");
        };
        no_host(&mut vmi["spec"]["volumes"]);
        no_host(&mut vmi["spec"]["domain"]["devices"]["disks"]);
    });
    place.run(debian);
    let mut console = place.console();
    for milestone in [BOOT, SET_UP].concat() {
        console.expect(milestone).unwrap();
    }
    let path = format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/portforward/22/tcp");
    eventually("SSH server", || {
        let greeted = Plain::open(&place.kubectl, &path).and_then(|mut port| port.expect("SSH-2.0-"));
        let why = greeted.as_ref().err().map(ToString::to_string);
        Ok(Look::of(greeted.ok(), || why.unwrap_or_default()))
    })
    .unwrap();
}
