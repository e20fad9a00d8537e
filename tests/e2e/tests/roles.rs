//! Who may do what, in a cluster: every verb by every role of KubeVirt's, over rvm.v1 and over REST, and who is nobody.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rvm_harness::certificates::Pair;
use rvm_harness::https::Server;
use rvm_harness::{Api, Cluster, Grpc, Kubectl, Shows, Tools, tokens};
use rvm_proto::v1::agent_request::Command;
use rvm_proto::v1::expand_virtual_machine_request::Which;
use rvm_proto::v1::{
    ActRequest, AgentRequest, ApplyRequest, DeleteRequest, ExpandVirtualMachineRequest, FreezeRequest,
    GetRequest, GuestInfoRequest, ListFileSystemsRequest, ListRequest, ListUsersRequest, PortForwardRequest,
    RestartVirtualMachineRequest, SoftRebootRequest, StartVirtualMachineRequest, StopRequest,
    StopVirtualMachineRequest, UnfreezeRequest, UsageRequest, VersionRequest, WatchRequest, act_request::Act,
    port_forward_request,
};
use tonic::{Code, Status};

/// A machine that is not there: who may is told so.
const NONE: &str = "none";
const GROUP: &str = "/apis/subresources.kubevirt.io/v1";
/// The users of the test: KubeVirt's role that each has, from the least to the most.
const ROLES: [&str; 4] = ["default", "view", "edit", "admin"];

/// Who may: everybody of a role that is at least this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Least {
    Default,
    View,
    Edit,
}

type Call = fn(&Grpc, &str) -> Result<(), Status>;

fn ns(namespace: &str) -> String {
    namespace.to_owned()
}

fn none() -> String {
    NONE.to_owned()
}

fn act(grpc: &Grpc, namespace: &str, act: Act) -> Result<(), Status> {
    let request = ActRequest {
        namespace: ns(namespace),
        name: none(),
        act: act.into(),
    };
    grpc.wait(grpc.machines().act(request)).map(drop)
}

fn agent(grpc: &Grpc, namespace: &str, command: Command) -> Result<(), Status> {
    let request = AgentRequest {
        namespace: ns(namespace),
        name: none(),
        command: command.into(),
    };
    grpc.wait(grpc.machines().agent(request)).map(drop)
}

/// A call to a machine that is not there; the other fields of its request, if it has some, come behind.
macro_rules! named {
    ($client:ident . $call:ident, $request:ident $($more:tt)*) => {
        |grpc, namespace| {
            let (namespace, name) = (ns(namespace), none());
            let request = $request { namespace, name $($more)* };
            grpc.wait(grpc.$client().$call(request)).map(drop)
        }
    };
}

/// Every call of rvm.v1 that rvm-api serves, and who may make it.
const CALLS: &[(&str, Least, Call)] = &[
    ("Version", Least::Default, |grpc, _| {
        grpc.wait(grpc.machines().version(VersionRequest {})).map(drop)
    }),
    ("Get", Least::View, named!(machines.get, GetRequest)),
    ("List", Least::View, |grpc, namespace| {
        let namespace = ns(namespace);
        grpc.wait(grpc.machines().list(ListRequest { namespace }))
            .map(drop)
    }),
    ("Watch", Least::View, |grpc, namespace| {
        let request = WatchRequest {
            namespace: ns(namespace),
            name: none(),
        };
        grpc.wait(async { grpc.machines().watch(request).await?.into_inner().message().await })
            .map(drop)
    }),
    (
        "GuestInfo",
        Least::View,
        named!(machines.guest_info, GuestInfoRequest),
    ),
    (
        "ListUsers",
        Least::View,
        named!(machines.list_users, ListUsersRequest),
    ),
    (
        "ListFileSystems",
        Least::View,
        named!(machines.list_file_systems, ListFileSystemsRequest),
    ),
    ("Usage", Least::View, named!(machines.usage, UsageRequest)),
    ("Agent info", Least::View, |grpc, namespace| {
        agent(grpc, namespace, Command::Info)
    }),
    ("Agent users", Least::View, |grpc, namespace| {
        agent(grpc, namespace, Command::Users)
    }),
    ("Agent file systems", Least::View, |grpc, namespace| {
        agent(grpc, namespace, Command::FileSystems)
    }),
    ("Expand", Least::View, |grpc, namespace| {
        expand(grpc, namespace, Which::Name(none()))
    }),
    ("Expand given", Least::View, |grpc, namespace| {
        let vm = r#"{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachine","metadata":{"name":"a"},"spec":{"runStrategy":"Halted","template":{"spec":{"domain":{"devices":{}}}}}}"#;
        expand(grpc, namespace, Which::Given(vm.as_bytes().to_vec().into()))
    }),
    ("Console", Least::Edit, |grpc, namespace| {
        grpc.console(namespace, NONE, false).map(drop)
    }),
    ("Console read-only", Least::Edit, |grpc, namespace| {
        grpc.console(namespace, NONE, true).map(drop)
    }),
    ("PortForward", Least::Edit, port_forward),
    ("Act pause", Least::Edit, |grpc, namespace| {
        act(grpc, namespace, Act::Pause)
    }),
    ("Act resume", Least::Edit, |grpc, namespace| {
        act(grpc, namespace, Act::Resume)
    }),
    ("Act reset", Least::Edit, |grpc, namespace| {
        act(grpc, namespace, Act::Reset)
    }),
    ("Agent freeze", Least::Edit, |grpc, namespace| {
        agent(grpc, namespace, Command::Freeze)
    }),
    ("Agent thaw", Least::Edit, |grpc, namespace| {
        agent(grpc, namespace, Command::Thaw)
    }),
    ("Agent reboot", Least::Edit, |grpc, namespace| {
        agent(grpc, namespace, Command::Reboot)
    }),
    (
        "SoftReboot",
        Least::Edit,
        named!(machines.soft_reboot, SoftRebootRequest),
    ),
    (
        "Freeze",
        Least::Edit,
        named!(machines.freeze, FreezeRequest, ..FreezeRequest::default()),
    ),
    (
        "Unfreeze",
        Least::Edit,
        named!(machines.unfreeze, UnfreezeRequest),
    ),
    (
        "Stop",
        Least::Edit,
        named!(machines.stop, StopRequest, ..StopRequest::default()),
    ),
    ("Apply", Least::Edit, |grpc, namespace| {
        let manifest = r#"{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance","metadata":{"name":"made","annotations":{"rvm/root-filesystem":"root"}},"spec":{"domain":{"devices":{},"memory":{"guest":"128Mi"}},"volumes":[{"name":"root","containerDisk":{"image":"alpine:3.23"}}]}}"#;
        let request = ApplyRequest {
            manifest: manifest.as_bytes().to_vec().into(),
            namespace: ns(namespace),
        };
        grpc.wait(grpc.machines().apply(request)).map(drop)
    }),
    ("Delete", Least::Edit, |grpc, namespace| {
        let request = DeleteRequest {
            namespace: ns(namespace),
            name: "made".to_owned(),
        };
        grpc.wait(grpc.machines().delete(request)).map(drop)
    }),
    (
        "VirtualMachines.Start",
        Least::Edit,
        named!(
            virtual_machines.start,
            StartVirtualMachineRequest,
            ..StartVirtualMachineRequest::default()
        ),
    ),
    (
        "VirtualMachines.Stop",
        Least::Edit,
        named!(
            virtual_machines.stop,
            StopVirtualMachineRequest,
            ..StopVirtualMachineRequest::default()
        ),
    ),
    (
        "VirtualMachines.Restart",
        Least::Edit,
        named!(
            virtual_machines.restart,
            RestartVirtualMachineRequest,
            ..RestartVirtualMachineRequest::default()
        ),
    ),
];

/// The same over REST: method, path below the namespace, and who may.
const PATHS: &[(&str, &str, Least)] = &[
    ("GET", "virtualmachineinstances/none/guestosinfo", Least::View),
    ("GET", "virtualmachineinstances/none/userlist", Least::View),
    ("GET", "virtualmachineinstances/none/usage", Least::View),
    ("GET", "virtualmachineinstances/none/filesystemlist", Least::View),
    ("GET", "virtualmachines/none/expand-spec", Least::View),
    ("PUT", "expand-vm-spec", Least::View),
    ("GET", "virtualmachineinstances/none/console", Least::Edit),
    ("GET", "virtualmachineinstances/none/vnc", Least::Edit),
    (
        "GET",
        "virtualmachineinstances/none/portforward/22/tcp",
        Least::Edit,
    ),
    ("GET", "virtualmachines/none/portforward/22", Least::Edit),
    ("PUT", "virtualmachineinstances/none/pause", Least::Edit),
    ("PUT", "virtualmachineinstances/none/unpause", Least::Edit),
    ("PUT", "virtualmachineinstances/none/reset", Least::Edit),
    ("PUT", "virtualmachineinstances/none/softreboot", Least::Edit),
    ("PUT", "virtualmachineinstances/none/freeze", Least::Edit),
    ("PUT", "virtualmachineinstances/none/unfreeze", Least::Edit),
    ("PUT", "virtualmachineinstances/none/addvolume", Least::Edit),
    ("PUT", "virtualmachineinstances/none/removevolume", Least::Edit),
    ("PUT", "virtualmachines/none/addvolume", Least::Edit),
    ("PUT", "virtualmachines/none/removevolume", Least::Edit),
    ("PUT", "virtualmachines/none/start", Least::Edit),
    ("PUT", "virtualmachines/none/stop", Least::Edit),
    ("PUT", "virtualmachines/none/restart", Least::Edit),
];

fn expand(grpc: &Grpc, namespace: &str, which: Which) -> Result<(), Status> {
    let request = ExpandVirtualMachineRequest {
        namespace: ns(namespace),
        which: Some(which),
    };
    grpc.wait(grpc.virtual_machines().expand(request)).map(drop)
}

fn port_forward(grpc: &Grpc, namespace: &str) -> Result<(), Status> {
    let open = port_forward_request::Open {
        namespace: ns(namespace),
        name: none(),
        port: 22,
        ..port_forward_request::Open::default()
    };
    let request = PortForwardRequest {
        request: Some(port_forward_request::Request::Open(open)),
    };
    grpc.wait(async {
        let mut machines = grpc.machines();
        let opened = machines.port_forward(tokio_stream::once(request)).await?;
        opened.into_inner().message().await
    })
    .map(drop)
}

/// Whether that was let through: whoever may not hears that, and whoever may that there is no such machine.
fn was_allowed(what: &str, said: Result<(), Status>) -> bool {
    match said.map_err(|status| status.code()) {
        Err(Code::PermissionDenied) => false,
        Ok(()) | Err(Code::NotFound) => true,
        Err(other) => unreachable!("{what}: {other:?}"),
    }
}

/// A user who has this role in the namespace `default`, and shows a certificate.
fn user_of(cluster: &Cluster, tools: &Arc<Tools>, role: &str) -> Pair {
    let name = format!("user-of-{role}");
    if role != "default" {
        bind(cluster.kubectl(), &name, role, &format!("--user={name}"));
    }
    cluster.kubectl_of(tools, &name).unwrap();
    cluster.pair_of(&name)
}

fn bind(kubectl: &Kubectl, name: &str, role: &str, whom: &str) {
    let role = format!("--clusterrole=kubevirt.io:{role}");
    kubectl.ok(&["create", "rolebinding", name, &role, whom]).unwrap();
}

#[test]
fn each_verb_is_done_for_the_roles_that_have_it_and_refused_to_the_others_over_grpc_and_rest() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    let api = Api::start(&tools, &cluster).unwrap();
    let (kubectl, proxy) = (cluster.kubectl(), cluster.front_proxy());
    let behind = Server {
        address: api.address().unwrap(),
        name: "rvm-api.rvm.svc",
        authority: &Api::authority(kubectl).unwrap(),
    };
    let apiserver = format!("127.0.0.1:{}", cluster.port());
    let authority = std::fs::read(cluster.authority().certificate()).unwrap();
    let front = Server {
        address: &apiserver,
        name: "127.0.0.1",
        authority: &authority,
    };
    for (number, role) in ROLES.into_iter().enumerate() {
        let pair = user_of(&cluster, &tools, role);
        let grpc = api.grpc(kubectl, Shows::Certificate(&pair)).unwrap();
        for (name, least, call) in CALLS {
            let allowed = was_allowed(name, call(&grpc, "default"));
            assert_eq!(allowed, *least as usize <= number, "{role}: {name}");
            // A role in one namespace is none in another.
            if *least != Least::Default {
                assert!(!was_allowed(name, call(&grpc, "kube-system")), "{role}: {name}");
            }
        }
        let headers = format!(
            "X-Remote-User: user-of-{role}\r\nX-Remote-Group: system:authenticated\r\nContent-Type: application/json\r\n"
        );
        for (method, path, least) in PATHS {
            let what = format!("{role}: {method} {path}");
            let of = |namespace: &str| format!("{GROUP}/namespaces/{namespace}/{path}");
            // As kube-apiserver asks, for its user; and as the user asks kube-apiserver.
            let ours = behind
                .ask(method, &of("default"), &headers, Some(&proxy))
                .unwrap();
            let refused = ours.starts_with("HTTP/1.1 401 ");
            assert_eq!(!refused, *least as usize <= number, "{what}: {ours}");
            let whole = front.ask(method, &of("default"), "", Some(&pair)).unwrap();
            assert_eq!(whole.starts_with("HTTP/1.1 403 "), refused, "{what}: {whole}");
            let elsewhere = behind
                .ask(method, &of("kube-system"), &headers, Some(&proxy))
                .unwrap();
            assert!(elsewhere.starts_with("HTTP/1.1 401 "), "{what}: {elsewhere}");
        }
    }
}

#[test]
fn a_token_is_good_while_the_cluster_says_so_and_nobody_else_is_heard() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    let api = Api::start(&tools, &cluster).unwrap();
    let kubectl = cluster.kubectl();
    kubectl.ok(&["create", "serviceaccount", "program"]).unwrap();
    bind(kubectl, "program", "edit", "--serviceaccount=default:program");
    let said = |shows: Shows<'_>| {
        let grpc = api.grpc(kubectl, shows).unwrap();
        let got = grpc.wait(grpc.machines().get(GetRequest {
            namespace: String::new(),
            name: none(),
        }));
        let reflected = reflected(&grpc);
        let code = got.unwrap_err().code();
        assert_eq!(reflected, code != Code::Unauthenticated, "reflection, too");
        code
    };
    let token = kubectl.ok(&["create", "token", "program"]).unwrap();
    assert_eq!(said(Shows::Token(token.trim())), Code::NotFound);
    assert_eq!(said(Shows::Nothing), Code::Unauthenticated);
    assert_eq!(said(Shows::Token("nonsense")), Code::Unauthenticated);

    // One that is made as the cluster makes them is good, and is not when its time is over, or when its account is another.
    let account = kubectl.get(&["serviceaccount", "program"]).unwrap();
    let uid = account["metadata"]["uid"].as_str().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let made = |uid: &str, good| {
        tokens::of_account(&cluster.key_of_tokens(), ("default", "program", uid), good).unwrap()
    };
    assert_eq!(
        said(Shows::Token(&made(uid, (now - 60, now + 3600)))),
        Code::NotFound
    );
    let expired = made(uid, (now - 7200, now - 3600));
    assert_eq!(said(Shows::Token(&expired)), Code::Unauthenticated);
    let another = made("00000000-0000-4000-8000-000000000000", (now - 60, now + 3600));
    assert_eq!(said(Shows::Token(&another)), Code::Unauthenticated);

    // The front proxy speaks for others elsewhere; here it is a stranger, and so is anybody with another authority's certificate.
    let proxy = cluster.front_proxy();
    let stranger = api.grpc(kubectl, Shows::Certificate(&proxy));
    let heard = stranger.ok().map(|grpc| {
        let version = grpc.wait(grpc.machines().version(VersionRequest {}));
        version.map(drop).map_err(|status| status.code())
    });
    assert!(!matches!(heard, Some(Ok(()))), "{heard:?}");

    // What is taken from a role is taken at once.
    kubectl.ok(&["delete", "rolebinding", "program"]).unwrap();
    assert_eq!(said(Shows::Token(token.trim())), Code::PermissionDenied);
    kubectl.ok(&["delete", "serviceaccount", "program"]).unwrap();
}

#[test]
fn rvm_shows_a_token_a_certificate_or_what_a_kubeconfig_holds() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    let api = Api::start(&tools, &cluster).unwrap();
    let kubectl = cluster.kubectl();
    kubectl.ok(&["create", "serviceaccount", "program"]).unwrap();
    bind(kubectl, "program", "view", "--serviceaccount=default:program");
    let pair = user_of(&cluster, &tools, "view");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let ca = file("ca.crt", &Api::authority(kubectl).unwrap());
    let token = kubectl.ok(&["create", "token", "program"]).unwrap();
    let token = file("token", token.as_bytes());
    let kubeconfig = cluster.kubeconfig().with_file_name("kubeconfig-of-user-of-view");
    let kubeconfig = kubeconfig.display().to_string();
    let server = format!("https://{}", api.grpc_address().unwrap());
    let rvm = |shown: &[&str]| {
        let words = ["rvm", "get", "vmi", NONE, "--server", &server, "--ca", &ca];
        tools
            .run(&[&words, shown].concat(), &[], "")
            .unwrap()
            .error_text()
    };
    let (certificate, key) = (
        pair.certificate.display().to_string(),
        pair.key.display().to_string(),
    );
    let known: [&[&str]; 3] = [
        &["--token-file", &token],
        &["--cert", &certificate, "--key", &key],
        &["--kubeconfig", &kubeconfig],
    ];
    for shown in known {
        let said = rvm(shown);
        assert!(said.contains("not found"), "{shown:?}: {said}");
    }
    let said = rvm(&[]);
    assert!(said.contains("nobody knows who asks"), "{said}");
    let nonsense = file("nonsense", b"nonsense");
    let said = rvm(&["--token-file", &nonsense]);
    assert!(said.contains("does not know this token"), "{said}");
}

/// Whether rvm-api tells what it speaks.
fn reflected(grpc: &Grpc) -> bool {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let listed = grpc.wait(async {
        let mut client = ServerReflectionClient::new(grpc.link());
        let listed = client.server_reflection_info(tokio_stream::once(request)).await?;
        listed.into_inner().message().await
    });
    match listed {
        Ok(listed) => {
            assert!(format!("{listed:?}").contains("rvm.v1.VirtualMachines"));
            true
        }
        Err(status) => {
            assert_eq!(status.code(), Code::Unauthenticated);
            false
        }
    }
}
