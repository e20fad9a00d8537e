//! The Kubernetes API that a kubeconfig leads to: a cluster's, or that of local mode, which answers the same.
//!
//! ```text
//!   --kubeconfig FILE, else $KUBECONFIG, else the file that local mode wrote, else ~/.kube/config
//!        └─► /apis/subresources.kubevirt.io/v1/…   PUT start, GET guestosinfo: what virtctl asks, with no more rights than kubectl's
//! ```
//!
//! As kubectl's plugin it reads what kubectl reads: there local mode's file comes last.

use anyhow::{Context, Result};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Client, Config};
use serde_json::Value;

use crate::args::{Global, is_plugin};
use crate::paths;

/// Where machines' subresources are.
const SUBRESOURCES: &str = "/apis/subresources.kubevirt.io/v1";

/// Nothing is there.
const NOT_FOUND: u16 = 404;
/// Somebody else was faster.
const CONFLICT: u16 = 409;
/// What is asked for is not there yet, where the message is this one.
const EARLY: u16 = 400;
const NOT_RUNNING: &str = "VMI is not running";

/// What there is of a machine, and what makes machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// VirtualMachines.
    Machine,
    /// VirtualMachineInstances.
    Instance,
    /// VirtualMachineInstanceReplicaSets.
    ReplicaSet,
    /// The one object that stands for the whole installation.
    Installation,
}

/// A cluster and a namespace of it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

// === impl Resource ===

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Machine,
        Self::Instance,
        Self::ReplicaSet,
        Self::Installation,
    ];

    /// By any of its names, the group behind it or not.
    pub fn named(word: &str) -> Option<Self> {
        let word = word.strip_suffix(".kubevirt.io").unwrap_or(word).to_lowercase();
        let has = |resource: &Self| {
            let (short, shorts) = resource.short_names();
            [resource.plural(), resource.singular(), short, shorts].contains(&word.as_str())
        };
        Self::ALL.into_iter().find(has)
    }

    /// As it stands in a path.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Machine => "virtualmachines",
            Self::Instance => "virtualmachineinstances",
            Self::ReplicaSet => "virtualmachineinstancereplicasets",
            Self::Installation => "kubevirts",
        }
    }

    /// The first of these kinds that rvm.v1 does not have.
    pub fn beyond_rvm(kinds: impl IntoIterator<Item = Self>) -> Option<&'static str> {
        let beyond = kinds.into_iter().find(|kind| *kind != Self::Instance);
        beyond.map(Self::plural)
    }

    /// One of them, as kubectl says it.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Machine => "virtualmachine",
            Self::Instance => "virtualmachineinstance",
            Self::ReplicaSet => "virtualmachineinstancereplicaset",
            Self::Installation => "kubevirt",
        }
    }

    /// Its kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Machine => "VirtualMachine",
            Self::Instance => "VirtualMachineInstance",
            Self::ReplicaSet => "VirtualMachineInstanceReplicaSet",
            Self::Installation => "KubeVirt",
        }
    }

    /// One of them, as people type it.
    pub fn short_name(self) -> &'static str {
        self.short_names().0
    }

    fn short_names(self) -> (&'static str, &'static str) {
        match self {
            Self::Machine => ("vm", "vms"),
            Self::Instance => ("vmi", "vmis"),
            Self::ReplicaSet => ("vmirs", "vmirss"),
            Self::Installation => ("kv", "kvs"),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// The one that is meant.
    pub async fn of(global: &Global) -> Result<Self> {
        let mut config = config(global).await?;
        // A console may be silent for as long as it likes.
        (config.read_timeout, config.write_timeout) = (None, None);
        let namespace = global
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self {
            client: Client::try_from(config).context("the kubeconfig cannot be used")?,
            namespace,
        })
    }

    /// The client of it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same cluster, and another namespace.
    pub fn in_another(&self, namespace: &str) -> Self {
        Self {
            client: self.client.clone(),
            namespace: namespace.to_owned(),
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The path of something below a machine.
    pub fn below(&self, resource: Resource, name: &str, what: &str) -> String {
        let (namespace, plural) = (&self.namespace, resource.plural());
        format!("{SUBRESOURCES}/namespaces/{namespace}/{plural}/{name}/{what}")
    }

    /// The path of something that the group says of itself.
    pub fn of_group(&self, what: &str) -> String {
        format!("{SUBRESOURCES}/{what}")
    }

    /// The path of something of the namespace.
    pub fn in_namespace(&self, what: &str) -> String {
        format!("{SUBRESOURCES}/namespaces/{}/{what}", self.namespace)
    }

    /// The path of all objects of a kind, here or everywhere.
    pub fn collection(&self, resource: Resource, everywhere: bool) -> String {
        let (namespace, plural) = (&self.namespace, resource.plural());
        if everywhere {
            format!("/apis/kubevirt.io/v1/{plural}")
        } else {
            format!("/apis/kubevirt.io/v1/namespaces/{namespace}/{plural}")
        }
    }

    /// The path of an object.
    pub fn object(&self, resource: Resource, name: &str) -> String {
        let (namespace, plural) = (&self.namespace, resource.plural());
        format!("/apis/kubevirt.io/v1/namespaces/{namespace}/{plural}/{name}")
    }

    /// What is there.
    pub async fn get(&self, path: &str) -> Result<Value> {
        parse(&self.ask("GET", path, Vec::new()).await?)
    }

    /// Has something done, or asks for something by a PUT.
    pub async fn put(&self, path: &str, body: Option<&Value>) -> Result<String> {
        let body = body.map(|body| body.to_string().into_bytes());
        Ok(self.ask("PUT", path, body.unwrap_or_default()).await?)
    }

    /// The object of this path, if there is one.
    pub async fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.ask("GET", path, Vec::new()).await {
            Ok(said) => parse(&said).map(Some),
            Err(said) if said.is_not_found() => Ok(None),
            Err(said) => Err(said.into()),
        }
    }

    /// Whether this object is there.
    pub async fn has(&self, resource: Resource, name: &str) -> Result<bool> {
        Ok(self.find(&self.object(resource, name)).await?.is_some())
    }

    /// Has an object be as this one says (server-side apply); returns what it is then.
    pub async fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let path = format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict");
        let body = object.to_string().into_bytes();
        parse(
            &self
                .exchange(request("PATCH", &path, (JSON, APPLY), body)?)
                .await?,
        )
    }

    /// One request, and what is said to it.
    pub async fn ask(&self, method: &str, path: &str, body: Vec<u8>) -> Result<String, Said> {
        self.exchange(request(method, path, (JSON, JSON), body)?).await
    }

    /// The same with other media types: what is wanted, and what the body is.
    pub async fn exchange(&self, request: Request<Vec<u8>>) -> Result<String, Said> {
        self.client.request_text(request).await.map_err(Said::from)
    }
}

fn parse(said: &str) -> Result<Value> {
    serde_json::from_str(said).context("the server sent something that is no JSON")
}

/// Who owns the fields that we apply.
const MANAGER: &str = "rvm";
/// What says how an object should be; JSON is YAML.
const APPLY: &str = "application/apply-patch+yaml";
/// What most requests take and send.
pub const JSON: &str = "application/json";

/// A request that wants one media type and sends another.
pub fn request(
    method: &str,
    path: &str,
    (wanted, sent): (&str, &str),
    body: Vec<u8>,
) -> Result<Request<Vec<u8>>, Said> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Accept", format!("{wanted}, */*"))
        .header("Content-Type", sent)
        .body(body);
    request.map_err(|error| Said::Nothing(kube::Error::HttpError(error)))
}

/// What came instead of an answer.
#[derive(Debug, thiserror::Error)]
pub enum Said {
    /// No.
    #[error("{}", words(.0))]
    Refused(Box<Status>),
    /// An answer to another question.
    #[error("the server does not open a websocket")]
    NoWebsocket,
    /// Nothing.
    #[error("cannot reach the Kubernetes API; name it by --kubeconfig or KUBECONFIG")]
    Nothing(#[source] kube::Error),
}

// === impl Said ===

impl From<kube::Error> for Said {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            error => Self::Nothing(error),
        }
    }
}

impl Said {
    /// A refusal with this body, which should be a `Status`.
    pub fn refused(code: u16, body: &[u8]) -> Self {
        let status = serde_json::from_slice(body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(body);
            Status::failure(text.trim(), "").with_code(code)
        });
        Self::Refused(Box::new(status))
    }

    /// Whether there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code == NOT_FOUND)
    }

    /// Whether somebody else was faster.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code == CONFLICT)
    }

    /// Whether there may be another answer to the same question soon.
    pub fn is_early(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code == EARLY && status.message == NOT_RUNNING)
    }
}

/// What a status says; its code where that is nothing.
fn words(status: &Status) -> String {
    match status.message.as_str() {
        "" => format!("the server answered with status {}", status.code),
        message => message.to_owned(),
    }
}

/// What is known of it.
pub async fn config(global: &Global) -> Result<Config> {
    let options = KubeConfigOptions {
        context: global.context.clone(),
        ..KubeConfigOptions::default()
    };
    let kubeconfig = match &global.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => match Kubeconfig::from_env() {
            Ok(Some(kubeconfig)) => Ok(kubeconfig),
            Ok(None) => found(),
            Err(error) => Err(error),
        },
    };
    let kubeconfig = kubeconfig.context("no kubeconfig can be read")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    config.context("the kubeconfig cannot be used")
}

/// Local mode's, or the user's own.
fn found() -> Result<Kubeconfig, kube::config::KubeconfigError> {
    let local = || paths::kubeconfig().ok().map(Kubeconfig::read_from);
    if is_plugin() {
        return Kubeconfig::read().or_else(|error| local().unwrap_or(Err(error)));
    }
    local().unwrap_or_else(Kubeconfig::read)
}
