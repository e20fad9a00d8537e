//! Two rvm-apis in one cluster: machines go on being followed when one is killed, and of all viewers of a console one types, whoever leads to it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use rvm_e2e::guest::{NAME, PROMPT};
use rvm_e2e::machines::{SUBRESOURCES, machine};
use rvm_harness::https::Server;
use rvm_harness::patience::{Look, eventually};
use rvm_harness::process::descriptors;
use rvm_harness::{Api, Cluster, Grpc, Handler, HandlerSetup, Kubectl, Manifest, Plain, Shows, Tools};
use rvm_proto::reasons;
use rvm_proto::v1::port_forward_request::{self, Request as Into};
use rvm_proto::v1::port_forward_response::Response as Said;
use rvm_proto::v1::{
    FreezeRequest, GuestInfoRequest, ListFileSystemsRequest, PortForwardRequest, StartVirtualMachineRequest,
    UnfreezeRequest,
};
use serde_json::json;
use tonic::Code;

fn path(of: &str) -> String {
    format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/{of}")
}

/// A cluster with a node, whose handler is not started yet.
fn cluster_with_a_node() -> (Arc<Tools>, Cluster, Handler) {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").with(&["--grpc-listen", "127.0.0.1:0"]);
    let node = node.prepare(&tools).unwrap();
    (tools, cluster, node)
}

/// Who follows VirtualMachines, if it is not `before`.
fn leader(kubectl: &Kubectl, before: &str) -> String {
    eventually("leader", || {
        let held = kubectl.run(&[
            "get",
            "lease",
            "rvm-controller",
            "-n",
            "rvm",
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ])?;
        let holder = held.text();
        let new = held.status() == Some(0) && !holder.is_empty() && holder != before;
        Ok(Look::of(new.then(|| holder.clone()), || holder))
    })
    .unwrap()
}

/// Makes the user ellen, who may change machines.
fn let_edit(tools: &Arc<Tools>, cluster: &Cluster) {
    cluster.kubectl_of(tools, "ellen").unwrap();
    let binding = [
        "create",
        "rolebinding",
        "ellen",
        "--clusterrole=kubevirt.io:edit",
        "--user=ellen",
    ];
    cluster.kubectl().ok(&binding).unwrap();
}

#[test]
fn the_other_rvm_api_goes_on_when_the_one_that_leads_is_killed() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    let kubectl = cluster.kubectl();
    let mut first = Api::start(&tools, &cluster).unwrap();
    let led = leader(kubectl, "");
    let second = Api::another(&tools, &cluster).unwrap();
    kubectl.apply(&[machine("Halted").unwrap()]).unwrap();
    let_edit(&tools, &cluster);
    // Whoever leads: both serve.
    let pair = cluster.pair_of("ellen");
    let grpc = second.grpc(kubectl, Shows::Certificate(&pair)).unwrap();
    first.kill().unwrap();
    let start = StartVirtualMachineRequest {
        name: NAME.to_owned(),
        ..StartVirtualMachineRequest::default()
    };
    grpc.wait(grpc.virtual_machines().start(start.clone())).unwrap();
    assert_ne!(leader(kubectl, &led), led);
    eventually("instance", || {
        let there = kubectl.phase(NAME)?;
        Ok(Look::of(there, || "none".to_owned()))
    })
    .unwrap();
    let again = grpc.wait(grpc.virtual_machines().start(start)).unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    assert!(
        again
            .message()
            .ends_with("Always does not support manual start requests")
            || again.message().ends_with("VM is already running"),
        "{again}"
    );
}

#[test]
fn of_all_viewers_of_a_console_one_types_whichever_rvm_api_led_them_there() {
    let (tools, cluster, mut node) = cluster_with_a_node();
    let kubectl = cluster.kubectl();
    let here = Api::start(&tools, &cluster).unwrap();
    let there = Api::another(&tools, &cluster).unwrap();
    let_edit(&tools, &cluster);
    let pair = cluster.pair_of("ellen");
    let authority = Api::authority(kubectl).unwrap();

    // Before it runs it is "not yet" for virtctl, which asks again.
    let guest = Manifest::demo().unwrap().with(|vmi| {
        vmi["spec"]["networks"] = json!([{"name": "default", "pod": {}}]);
        vmi["spec"]["domain"]["devices"]["interfaces"] = json!([{"name": "default", "masquerade": {}}]);
    });
    kubectl.apply(&[guest]).unwrap();
    let early = Plain::open(kubectl, &path("console")).unwrap_err().to_string();
    assert!(
        early.contains("400 ") && early.contains("VMI is not running"),
        "{early}"
    );
    let one = here.grpc(kubectl, Shows::Certificate(&pair)).unwrap();
    let other = there.grpc(kubectl, Shows::Certificate(&pair)).unwrap();
    let early = one.console("", NAME, false).unwrap_err();
    assert!(
        format!("{early:?}").contains(reasons::NOT_RUNNING_YET),
        "{early:?}"
    );
    node.start().unwrap();
    let mut first = eventually("console", || {
        Ok(match Plain::open(kubectl, &path("console")) {
            Ok(opened) => Look::Here(opened),
            Err(error) => {
                let why = error.to_string();
                anyhow::ensure!(why.contains("400 "), "virtctl would give up: {why}");
                Look::NotYet(why)
            }
        })
    })
    .unwrap();
    first.expect(PROMPT).unwrap();
    first.send(b"echo answer=$((6 * 7))\r").unwrap();
    first.expect("answer=42\r\n").unwrap();

    // By gRPC at the other one: the websocket ends without a goodbye.
    let mut second = other.console("", NAME, false).unwrap();
    assert_eq!(first.end().unwrap(), None);
    second.expect("answer=42\r\n").unwrap();
    let mut reader = one.console("", NAME, true).unwrap();
    second.send(b"echo mine=$((6 * 9))\r").unwrap();
    second.expect("mine=54\r\n").unwrap();
    reader.expect("mine=54\r\n").unwrap();

    // By a websocket at the other one: who typed goes on looking, and what they type is for nobody.
    let server = Server {
        address: there.address().unwrap(),
        name: "rvm-api.rvm.svc",
        authority: &authority,
    };
    let mut third = Plain::behind(&server, &cluster.front_proxy(), "ellen", &path("console")).unwrap();
    second.until_taken_over().unwrap();
    second.send(b"echo wrong=$((1 + 1))\r").unwrap();
    third.expect("mine=54\r\n").unwrap();
    third.send(b"echo right=$((2 + 3))\r").unwrap();
    third.expect("right=5\r\n").unwrap();
    second.expect("right=5\r\n").unwrap();
    let mut replay = one.console("", NAME, true).unwrap();
    replay.expect("right=5\r\n").unwrap();
    reader.expect("right=5\r\n").unwrap();
    third.send(b"echo last=$((2 + 4))\r").unwrap();
    third.expect("last=6\r\n").unwrap();
    // A fourth, by the same way as the third.
    let mut fourth = Plain::open(kubectl, &path("console")).unwrap();
    assert_eq!(third.end().unwrap(), None);
    fourth.expect("last=6\r\n").unwrap();

    fourth
        .send(b"mkdir /www; echo page >/www/page; httpd -p 7 -h /www; echo served=$((3 + 4))\r")
        .unwrap();
    fourth.expect("served=7\r\n").unwrap();
    asked_of_the_guest(&one);
    hundred_viewers(kubectl, &here, &node);
}

/// The agent's words and the ports go through the fleet, too.
fn asked_of_the_guest(grpc: &Grpc) {
    let name = NAME.to_owned();
    let info = eventually("agent", || {
        let request = GuestInfoRequest {
            namespace: String::new(),
            name: name.clone(),
        };
        let said = grpc.wait(grpc.machines().guest_info(request));
        Ok(match said {
            Ok(said) => Look::Here(said.into_inner().info),
            Err(status) => {
                anyhow::ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
                Look::NotYet(status.to_string())
            }
        })
    })
    .unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    assert_eq!(info["hostname"], NAME, "{info}");
    let request = ListFileSystemsRequest {
        namespace: String::new(),
        name: name.clone(),
    };
    let said = grpc.wait(grpc.machines().list_file_systems(request)).unwrap();
    assert!(said.into_inner().file_systems.starts_with(b"{"));
    // It has no disk, so that nothing waits until it is thawed.
    let request = FreezeRequest {
        name: name.clone(),
        thaw_after_milliseconds: 60_000,
        ..FreezeRequest::default()
    };
    grpc.wait(grpc.machines().freeze(request)).unwrap();
    let request = UnfreezeRequest {
        name: name.clone(),
        ..UnfreezeRequest::default()
    };
    grpc.wait(grpc.machines().unfreeze(request)).unwrap();
    let first = page(grpc);
    assert!(
        first.starts_with("HTTP/1.") && first.ends_with(" 200 OK"),
        "{first}"
    );
}

/// The first line that the guest's web server says to a program that comes by rvm-api.
fn page(grpc: &Grpc) -> String {
    let open = Into::Open(port_forward_request::Open {
        name: NAME.to_owned(),
        port: 7,
        ..port_forward_request::Open::default()
    });
    let asked = Into::Data(b"GET /page HTTP/1.0\r\n\r\n".to_vec().into());
    let requests = [open, asked].map(|request| PortForwardRequest {
        request: Some(request),
    });
    let said = grpc.wait(async {
        let mut machines = grpc.machines();
        let requests = tokio_stream::iter(requests);
        let mut opened = machines.port_forward(requests).await?.into_inner();
        let mut said = Vec::new();
        while let Some(response) = opened.message().await? {
            if let Some(Said::Data(data)) = response.response {
                said.extend_from_slice(&data);
            }
        }
        Ok(said)
    });
    let said = String::from_utf8(said.unwrap()).unwrap();
    said.lines().next().unwrap_or_default().to_owned()
}

/// Viewers come and go through kube-apiserver; nobody on the way keeps anything of them.
fn hundred_viewers(kubectl: &Kubectl, api: &Api, node: &Handler) {
    let open = || {
        let (api, node) = (api.id().unwrap(), node.id().unwrap());
        [descriptors(api).unwrap(), descriptors(node).unwrap()]
    };
    let mut before = None;
    for round in 0..100 {
        let mut viewer = Plain::open(kubectl, &path("console")).unwrap();
        viewer.expect("last=6\r\n").unwrap();
        drop(viewer);
        if round == 9 {
            before = Some(open());
        }
    }
    let before = before.unwrap();
    eventually("end of all viewers", || {
        let now = open();
        let settled = now.iter().zip(&before).all(|(now, before)| now <= before);
        Ok(Look::of(settled.then_some(()), || {
            format!("{now:?} after {before:?}")
        }))
    })
    .unwrap();
}
