//! An `rvm-api` as a cluster's operator installs it, behind kube-apiserver; may be ended and started again in the same place.
//!
//! The one thing that differs from `deploy/api` is where its Service leads: to this machine, where no pods are.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, NAMESPACE};
use crate::grpc::{Grpc, Shows};
use crate::kubectl::Kubectl;
use crate::patience::{Look, eventually};
use crate::process::Process;
use crate::tools::{Tools, shown};

/// The Service and the APIServices.
const MANIFESTS: &str = "deploy/api";
/// Its account, and its Service.
const NAME: &str = "rvm-api";
const SERVICES: [&str; 2] = ["v1.subresources.kubevirt.io", "v1alpha3.subresources.kubevirt.io"];
/// What it says before its address.
const SERVES: &str = "rvm-api serves address=";

/// A running rvm-api.
#[derive(Debug)]
pub struct Api {
    tools: Arc<Tools>,
    arguments: Vec<&'static str>,
    kubeconfig: PathBuf,
    process: Option<Process>,
    /// Where it is reached, once it has said so: by kube-apiserver, and by users.
    address: Option<[String; 2]>,
    folder: TempDir,
}

// === impl Api ===

impl Api {
    /// Installs it and waits until kube-apiserver passes requests on to it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(tools: &Arc<Tools>, cluster: &Cluster) -> Result<Self> {
        Self::start_with(tools, cluster, &[])
    }

    /// The same with more arguments, also when it is started again.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_with(tools: &Arc<Tools>, cluster: &Cluster, arguments: &[&'static str]) -> Result<Self> {
        let kubectl = cluster.kubectl();
        kubectl.ok(&["create", "-f", &shown(&tools.source(MANIFESTS))])?;
        let api = Self::one(tools, cluster, arguments)?;
        lead(kubectl, api.address()?)?;
        api.await_available(kubectl)?;
        Ok(api)
    }

    /// Starts one more of it, which kube-apiserver passes nothing on to.
    ///
    /// # Errors
    /// It does not start.
    pub fn another(tools: &Arc<Tools>, cluster: &Cluster) -> Result<Self> {
        Self::one(tools, cluster, &[])
    }

    /// Starts one which kube-apiserver passes nothing on to, with more arguments.
    ///
    /// # Errors
    /// It does not start.
    pub fn one(tools: &Arc<Tools>, cluster: &Cluster, arguments: &[&'static str]) -> Result<Self> {
        let mut api = Self {
            tools: Arc::clone(tools),
            arguments: arguments.to_vec(),
            kubeconfig: cluster.kubeconfig_of_account(NAME)?,
            process: None,
            address: None,
            folder: tempfile::Builder::new().prefix("rvm-api-").tempdir()?,
        };
        api.start_again()?;
        Ok(api)
    }

    /// Starts it where it was, and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub fn start_again(&mut self) -> Result<()> {
        let anywhere = || ["127.0.0.1:0", "127.0.0.1:0"].map(str::to_owned);
        let [listen, grpc] = self.address.clone().unwrap_or_else(anywhere);
        let log = self.folder.path().join("api.log");
        let before = std::fs::read(&log).unwrap_or_default().len();
        let process = Process::start(&self.tools.own(NAME)?, &log, |api| {
            api.arg("--kubeconfig").arg(&self.kubeconfig);
            api.args(["--listen", &listen, "--grpc-listen", &grpc]);
            api.args(["--grpc-name", "127.0.0.1"]);
            api.args(&self.arguments);
        })?;
        let process = self.process.insert(process);
        let address = eventually("serving rvm-api", || {
            process.must_live()?;
            let said = process.said();
            let said = said.get(before..).unwrap_or_default();
            let mut words = said
                .split_once(SERVES)
                .map(|(_, rest)| rest.split_whitespace())
                .into_iter()
                .flatten();
            let address = words.next().map(str::to_owned);
            let grpc = words.next().and_then(|word| word.strip_prefix("grpc="));
            let both = address.zip(grpc.map(str::to_owned));
            Ok(Look::of(both.map(|(one, two)| [one, two]), || said.to_owned()))
        })?;
        self.address = Some(address);
        Ok(())
    }

    /// Ends it with SIGTERM, which must go well.
    ///
    /// # Errors
    /// It is not running, or does not end well.
    pub fn terminate(&mut self) -> Result<()> {
        let mut process = self.process.take().context("rvm-api is down")?;
        let status = process.terminate()?;
        anyhow::ensure!(status.success(), process.complaint(&anyhow::anyhow!("{status}")));
        Ok(())
    }

    /// Its process.
    ///
    /// # Errors
    /// It is down.
    pub fn id(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("rvm-api is down")?.id())
    }

    /// Where it is reached without kube-apiserver.
    ///
    /// # Errors
    /// It has not said so yet.
    pub fn address(&self) -> Result<&str> {
        Ok(&self.addresses()?[0])
    }

    /// Where users reach its gRPC API.
    ///
    /// # Errors
    /// It has not said so yet.
    pub fn grpc_address(&self) -> Result<&str> {
        Ok(&self.addresses()?[1])
    }

    fn addresses(&self) -> Result<&[String; 2]> {
        self.address.as_ref().context("rvm-api has not started")
    }

    /// Connects to its gRPC API.
    ///
    /// # Errors
    /// As for [`Grpc::open`].
    pub fn grpc(&self, kubectl: &Kubectl, shows: Shows<'_>) -> Result<Grpc> {
        Grpc::open(self.grpc_address()?, &Self::authority(kubectl)?, shows)
    }

    /// Who signs its certificates, PEM, as a user learns it.
    ///
    /// # Errors
    /// kube-apiserver does not say.
    pub fn authority(kubectl: &Kubectl) -> Result<Vec<u8>> {
        let service = kubectl.get(&["apiservice", SERVICES[0]])?;
        let bundle = service["spec"]["caBundle"].as_str();
        Ok(BASE64_STANDARD.decode(bundle.context("no caBundle")?)?)
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("rvm-api is down")?.kill()
    }

    /// Waits until kube-apiserver passes requests on.
    ///
    /// # Errors
    /// It does not.
    pub fn await_available(&self, kubectl: &Kubectl) -> Result<()> {
        for service in SERVICES {
            eventually(service, || {
                let object = kubectl.get(&["apiservice", service])?;
                let conditions = object["status"]["conditions"].as_array().cloned();
                let available =
                    |condition: &&Value| condition["type"] == "Available" && condition["status"] == "True";
                let there = conditions.unwrap_or_default().iter().find(available).cloned();
                Ok(Look::of(there.map(drop), || object["status"].to_string()))
            })?;
        }
        Ok(())
    }
}

/// Has its Service lead to this machine, and its APIServices to that port.
fn lead(kubectl: &Kubectl, address: &str) -> Result<()> {
    let port = address.rsplit_once(':').context("no port")?.1;
    let port: u16 = port.parse().context("no port")?;
    let service = json!({"spec": {
        "type": "ExternalName", "externalName": "localhost", "clusterIP": null, "clusterIPs": null, "selector": null,
        "ports": [{"name": "https", "port": port}],
    }});
    let patch = |what: [&str; 2], patch: &Value| {
        let patch = patch.to_string();
        let words = [
            "patch",
            what[0],
            what[1],
            "-n",
            NAMESPACE,
            "--type=merge",
            "-p",
            &patch,
        ];
        kubectl.ok(&words).map(drop)
    };
    patch(["service", NAME], &service)?;
    let to_port = json!({"spec": {"service": {"port": port}}});
    SERVICES
        .iter()
        .try_for_each(|service| patch(["apiservice", service], &to_port))
}
