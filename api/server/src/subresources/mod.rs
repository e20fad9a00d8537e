//! The API group `subresources.kubevirt.io`: what virtctl asks of a machine besides its object.
//!
//! ```text
//!   virtctl ──► local mode's server, or kube-apiserver's aggregation ──► router
//!                                                                          ├─ documents  group, resources, version, health
//!                                                                          ├─ machine    PUT …/start: judge, then change the VM's object
//!                                                                          ├─ instance   PUT …/pause: judge, then have it done
//!                                                                          ├─ guest      GET …/guestosinfo, PUT …/freeze: by the guest's agent
//!                                                                          ├─ expand     a VM's spec with all that it takes from elsewhere
//!                                                                          ├─ usage      GET …/usage: what it takes of its node; rvm's own, KubeVirt has none
//!                                                                          ├─ volumes    PUT …/addvolume: judged, then the instance's spec is changed, or the VM's status
//!                                                                          ├─ console    websocket ◄──bytes──► Consoles
//!                                                                          └─ ports      websocket ◄──bytes──► Ports
//! ```
//!
//! Codes and sentences are KubeVirt's, since its clients match on them. A websocket is judged before it is one: whoever cannot have
//! it gets a plain answer with a `Status`, and 400 means "not yet" to virtctl, which then asks again.
//!
//! Whoever mounts the router says who may come in; nothing here does.

pub(crate) mod answer;
mod console;
mod documents;
pub(crate) mod expand;
pub(crate) mod guest;
mod instance;
pub(crate) mod machine;
mod open;
mod options;
mod ports;
mod viewers;
mod volumes;

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::routing::{any, get, put};
use axum::{Json, Router};
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use rvm_types::{Phase, VirtualMachineInstance, admission, condition};

use crate::node::Node;
use crate::observe::traces;
use crate::reach::Unreachable;
use crate::usage::{self, Usage};
use answer::Kind;
use open::Open;

pub(crate) use answer::Refused;
pub use documents::{GROUP, VERSIONS};
pub(crate) use documents::{RESOURCES, group, kind_of};

/// What KubeVirt's clients speak over these websockets: the bytes themselves.
const PROTOCOL: &str = "plain.kubevirt.io";
/// Bytes that one message from a client may have. virtctl's have 32 KiB at most.
const MAX_INPUT: usize = 1 << 20;

/// An instance is in no state for what is asked of it.
const NOT_RUNNING: &str = "VMI is not running";

/// The group's server. It keeps nothing: whose turn it is at a console, and when a guest is to be thawed, is known where the machine is.
#[derive(Clone)]
pub struct Subresources {
    client: Client,
    node: Arc<dyn Node>,
    open: Open,
}

// === impl Subresources ===

impl Subresources {
    /// Over these objects, and the machines of this node.
    pub fn new(client: Client, node: Arc<dyn Node>) -> Self {
        Self {
            client,
            node,
            open: Open::default(),
        }
    }

    /// Adds how many consoles and ports are open here.
    pub fn count(&self, registry: &mut Registry) {
        self.open.count(registry);
    }

    /// Everything below `/apis/subresources.kubevirt.io`.
    pub fn router(self) -> Router {
        let mut router = Router::new().route(&format!("/apis/{GROUP}"), get(|| async { Json(group()) }));
        for version in VERSIONS {
            let base = format!("/apis/{GROUP}/{version}");
            let machine = format!("{base}/namespaces/{{namespace}}/virtualmachines/{{name}}");
            let instance = format!("{base}/namespaces/{{namespace}}/virtualmachineinstances/{{name}}");
            router = router
                .route(&base, get(move || documents::resources(version)))
                .route(&format!("{base}/version"), get(documents::version))
                .route(&format!("{base}/healthz"), get(documents::healthy))
                .route(&format!("{base}/guestfs"), get(documents::guestfs))
                .route(
                    &format!("{base}/namespaces/{{namespace}}/expand-vm-spec"),
                    put(expand::given),
                )
                .route(&format!("{instance}/addvolume"), put(volumes::add_to_instance))
                .route(
                    &format!("{instance}/removevolume"),
                    put(volumes::remove_from_instance),
                )
                .route(&format!("{instance}/portforward/{{port}}"), get(ports::serve_tcp))
                .route(
                    &format!("{instance}/portforward/{{port}}/{{protocol}}"),
                    get(ports::serve),
                )
                .route(&format!("{instance}/console"), get(console::serve))
                .route(&format!("{instance}/vnc"), get(console::no_display))
                .route(&format!("{instance}/vnc/screenshot"), get(console::no_display))
                .route(&format!("{instance}/pause"), put(instance::pause))
                .route(&format!("{instance}/unpause"), put(instance::unpause))
                .route(&format!("{instance}/reset"), put(instance::reset))
                .route(&format!("{instance}/softreboot"), put(guest::soft_reboot))
                .route(&format!("{instance}/freeze"), put(guest::freeze))
                .route(&format!("{instance}/unfreeze"), put(guest::unfreeze))
                .route(&format!("{instance}/guestosinfo"), get(guest::system))
                .route(&format!("{instance}/usage"), get(usage::serve))
                .route(&format!("{instance}/userlist"), get(guest::users))
                .route(&format!("{instance}/filesystemlist"), get(guest::file_systems));
            router =
                of_machines(router, &machine).route(&format!("{base}/{{*path}}"), any(documents::nothing));
        }
        router
            .layer(axum::middleware::from_fn(traces::traced))
            .with_state(self)
    }

    async fn vmi(&self, namespace: &str, name: &str) -> Result<VirtualMachineInstance, Refused> {
        let api: Api<VirtualMachineInstance> = self.objects(namespace, name, Kind::Instance)?;
        Ok(api.get(name).await?)
    }

    /// What an instance that runs takes of its node.
    pub(crate) async fn usage(&self, (namespace, name): &Machine) -> Result<Usage, Refused> {
        let vmi = self.vmi(namespace, name).await?;
        running(&vmi, name)?;
        let usage = self.node.usage(&vmi).await;
        usage.map_err(|why| Refused::unreachable(&why))
    }

    /// The collection of a namespace. Both names become parts of a path, so they must be some.
    fn objects<K>(&self, namespace: &str, name: &str, kind: Kind) -> Result<Api<K>, Refused>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        if !admission::is_label(namespace) || !admission::is_name(name) {
            return Err(Refused::not_found(kind, name));
        }
        Ok(Api::namespaced(self.client.clone(), namespace))
    }
}

/// The namespace and the name in a path.
pub(crate) type Machine = (String, String);

/// An instance that runs, so that there is something behind the websocket that is asked for.
fn running(vmi: &VirtualMachineInstance, name: &str) -> Result<(), Refused> {
    if vmi.phase() == Some(&Phase::Failed) {
        return Err(Refused::conflict(Kind::Instance, name, "VMI is in failed status"));
    }
    Unreachable::judge(vmi).map_err(|why| Refused::unreachable(&why))
}

/// Whether the instance's status has this condition, and it is true.
fn holds(vmi: &VirtualMachineInstance, kind: &str) -> bool {
    let status = vmi.status.as_ref();
    let found = status.and_then(|status| condition::find(&status.conditions, kind));
    found.is_some_and(condition::Condition::is_true)
}

/// A websocket, or why the request asks for none.
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// The websocket that is asked for. Called last, so that every other refusal is told first.
fn agreed(upgrade: Upgrade) -> Result<WebSocketUpgrade, Refused> {
    let upgrade = upgrade.map_err(|error| Refused::bad_request(format!("this is a websocket: {error}")))?;
    Ok(upgrade
        .protocols([PROTOCOL])
        .max_message_size(MAX_INPUT)
        .max_frame_size(MAX_INPUT))
}

/// What is asked of a VirtualMachine.
fn of_machines(router: Router<Subresources>, machine: &str) -> Router<Subresources> {
    router
        .route(&format!("{machine}/expand-spec"), get(expand::stored))
        .route(&format!("{machine}/start"), put(machine::start))
        .route(&format!("{machine}/stop"), put(machine::stop))
        .route(&format!("{machine}/restart"), put(machine::restart))
        .route(&format!("{machine}/addvolume"), put(volumes::add_to_machine))
        .route(
            &format!("{machine}/removevolume"),
            put(volumes::remove_from_machine),
        )
        .route(
            &format!("{machine}/portforward/{{port}}"),
            get(ports::serve_machine_tcp),
        )
        .route(
            &format!("{machine}/portforward/{{port}}/{{protocol}}"),
            get(ports::serve_machine),
        )
}
