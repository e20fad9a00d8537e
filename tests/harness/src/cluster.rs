//! A cluster's control plane as far as we need one: etcd and kube-apiserver, both real, with our CRD installed.
//!
//! No scheduler and no kubelet runs: VMIs are taken by handlers. kube-controller-manager does for those who ask for it
//! ([`Cluster::run_controllers`]), and all of it, with a real node, for those whose promise needs pods
//! ([`Cluster::start_on_node`]). etcd is reached over a Unix socket in the cluster's folder, so the one TCP port is the
//! apiserver's, which a lab's guest reaches as 10.0.2.2.

mod on_node;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use tempfile::TempDir;

use programs::{FRONT_PROXY, start_apiserver, start_controllers, start_etcd};

use crate::certificates::{Authority, Names, Pair};
use crate::kubectl::Kubectl;
use crate::node::{self, Lead, Node};
use crate::patience::{Look, eventually};
use crate::process::Process;
use crate::sweep::Sweeper;
use crate::tools::{Tools, shown};

/// Where our CRDs lie.
const CRDS: &str = "deploy/crds";

/// Our programs' accounts and roles, and users' roles.
const RBAC: &str = "deploy/rbac";
/// The accounts' namespace, and the handlers' account.
pub(crate) const NAMESPACE: &str = "rvm";
const HANDLERS: &str = "rvm-handler";

/// Names at which the apiserver is reached: here, from a lab, from a node and from pods.
const HOSTS: [&str; 6] = [
    "127.0.0.1",
    "10.0.2.2",
    "localhost",
    node::ADDRESS,
    "198.18.2.1",
    "kubernetes.default.svc",
];

/// How kube-controller-manager is called.
const CONTROLLERS: &str = "system:kube-controller-manager";

/// A running cluster. Dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    /// Ends before the apiserver, without which it could not end well.
    controllers: Option<Process>,
    /// Only where there is a node.
    scheduler: Option<Process>,
    apiserver: Process,
    /// Ends after the apiserver, which would complain.
    _etcd: Process,
    kubectl: Kubectl,
    port: u16,
    authority: Authority,
    /// The handler's; empty until our roles are installed.
    token: String,
    /// Leads to the apiserver where that runs on a node.
    _lead: Option<Lead>,
    node: Option<Node>,
    folder: TempDir,
    _sweeper: Sweeper,
}

impl Cluster {
    /// Starts one, in about five seconds.
    ///
    /// # Errors
    /// It does not start; the error has the apiserver's last words.
    pub fn start(tools: &Arc<Tools>) -> Result<Self> {
        Self::begin(tools, false)
    }

    /// Starts one that writes down each request: [`Cluster::audit_log`].
    ///
    /// # Errors
    /// As for [`Cluster::start`].
    pub fn start_audited(tools: &Arc<Tools>) -> Result<Self> {
        Self::begin(tools, true)
    }

    fn begin(tools: &Arc<Tools>, audited: bool) -> Result<Self> {
        let mut cluster = Self::control_plane(tools, audited, None)?;
        cluster.install(tools)?;
        Ok(cluster)
    }

    /// A control plane with nothing of ours in it.
    fn control_plane(tools: &Arc<Tools>, audited: bool, node: Option<Node>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rvm-cluster-").tempdir()?;
        let sweeper = Sweeper::start(folder.path())?;
        let pki = folder.path().join("pki");
        let authority = Authority::new(&pki)?;
        issue(&authority)?;
        issue_front_proxy(&pki)?;
        let etcd = start_etcd(tools, folder.path())?;
        let (mut apiserver, port, lead) = match &node {
            None => {
                let (apiserver, port) = start_apiserver(tools, folder.path(), audited)?;
                (apiserver, port, None)
            }
            Some(node) => on_node::start_apiserver(node, tools, folder.path())?,
        };
        let kubeconfig = folder.path().join("kubeconfig");
        let server = format!("https://127.0.0.1:{port}");
        fs::write(&kubeconfig, kubeconfig_text(&server, &pki, &administrator(&pki)))?;
        let kubectl = Kubectl::new(tools, &kubeconfig)?;
        await_namespace(&kubectl, &mut apiserver)?;
        Ok(Self {
            token: String::new(),
            controllers: None,
            scheduler: None,
            apiserver,
            _etcd: etcd,
            kubectl,
            port,
            authority,
            _lead: lead,
            node,
            _sweeper: sweeper,
            folder,
        })
    }

    /// Installs our CRDs and roles.
    fn install(&mut self, tools: &Tools) -> Result<()> {
        install_crds(tools, &self.kubectl)?;
        self.kubectl.ok(&["create", "-f", &shown(&tools.source(RBAC))])?;
        self.token = token(&self.kubectl, HANDLERS)?;
        self.reach_by("127.0.0.1")
    }

    /// Starts kube-controller-manager: orphans and what has lost its owners are seen to, roles are added up, ServiceAccounts made.
    ///
    /// # Errors
    /// It does not start; the error has its last words.
    pub fn run_controllers(&mut self, tools: &Arc<Tools>) -> Result<()> {
        let folder = self.folder.path();
        let kubeconfig = self.write_kubeconfig_of(CONTROLLERS)?;
        let controllers = start_controllers(tools, folder, &kubeconfig, self.node.is_some())?;
        let controllers = self.controllers.insert(controllers);
        // One of the first things that it makes.
        eventually("ServiceAccount default", || {
            controllers.must_live()?;
            let account = self.kubectl.run(&["get", "serviceaccount", "default"])?;
            Ok(Look::of((account.status() == Some(0)).then_some(()), || {
                account.error_text()
            }))
        })
        .map_err(|error| controllers.complaint(&error))
    }

    /// Its administrator's kubectl.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Its administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Where an audited one writes requests down: an `audit.k8s.io/v1` Event a line.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.folder.path().join(programs::AUDIT_LOG)
    }

    /// The port of its API on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who signed its certificates.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The kubeconfig of its handlers, which may do what `deploy/rbac` lets them.
    #[must_use]
    pub fn kubeconfig_of_handlers(&self) -> PathBuf {
        self.folder.path().join("kubeconfig-of-handlers")
    }

    /// Has handlers that are started from now on reach the API by this name of the machine.
    ///
    /// # Errors
    /// The file system's.
    pub fn reach_by(&self, host: &str) -> Result<()> {
        let server = format!("https://{host}:{}", self.port);
        let text = self.handlers_text(&server, &self.folder.path().join("pki"));
        Ok(fs::write(self.kubeconfig_of_handlers(), text)?)
    }

    /// What a handler needs at another machine, as file names and contents: `kubeconfig` for `server`, and the certificate
    /// that it names, all in `folder` there.
    ///
    /// # Errors
    /// The file system's.
    pub fn kubeconfig_for(&self, server: &str, folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
        let authority = fs::read(self.authority.certificate())?;
        Ok(vec![
            (
                "kubeconfig".to_owned(),
                self.handlers_text(server, folder).into_bytes(),
            ),
            ("ca.crt".to_owned(), authority),
        ])
    }

    fn handlers_text(&self, server: &str, pki: &Path) -> String {
        kubeconfig_text(server, pki, &format!("token: '{}'", self.token))
    }

    /// The kubectl of a user of this name, who may do what roles let them.
    ///
    /// # Errors
    /// The file system's.
    pub fn kubectl_of(&self, tools: &Arc<Tools>, user: &str) -> Result<Kubectl> {
        Kubectl::new(tools, &self.write_kubeconfig_of(user)?)
    }

    fn write_kubeconfig_of(&self, user: &str) -> Result<PathBuf> {
        let names = Names {
            common: user,
            ..Names::default()
        };
        let pair = self.authority.issue(&format!("user-{user}"), names)?;
        let (certificate, key) = (shown(&pair.certificate), shown(&pair.key));
        let kubeconfig = self.folder.path().join(format!("kubeconfig-of-{user}"));
        let server = format!("https://127.0.0.1:{}", self.port);
        let shows = format!("client-certificate: '{certificate}', client-key: '{key}'");
        let text = kubeconfig_text(&server, &self.folder.path().join("pki"), &shows);
        fs::write(&kubeconfig, text)?;
        Ok(kubeconfig)
    }

    /// The certificate of a user for whom there is a kubectl.
    #[must_use]
    pub fn pair_of(&self, user: &str) -> Pair {
        let authority = self.authority.certificate();
        Pair {
            certificate: authority.with_file_name(format!("user-{user}.crt")),
            key: authority.with_file_name(format!("user-{user}.key")),
        }
    }

    /// The certificate by which kube-apiserver is known to the servers behind it.
    #[must_use]
    pub fn front_proxy(&self) -> Pair {
        let front = self.authority.certificate().with_file_name("front");
        Pair {
            certificate: front.join("proxy.crt"),
            key: front.join("proxy.key"),
        }
    }

    /// The key by which the tokens of accounts are signed.
    #[must_use]
    pub fn key_of_tokens(&self) -> PathBuf {
        self.authority.certificate().with_file_name("accounts.key")
    }

    /// The kubeconfig of one of our programs, which may do what `deploy/rbac` lets its account.
    ///
    /// # Errors
    /// There is no such account.
    pub fn kubeconfig_of_account(&self, account: &str) -> Result<PathBuf> {
        let token = token(&self.kubectl, account)?;
        let kubeconfig = self.folder.path().join(format!("kubeconfig-of-{account}"));
        let server = format!("https://127.0.0.1:{}", self.port);
        let shows = format!("token: '{token}'");
        fs::write(
            &kubeconfig,
            kubeconfig_text(&server, &self.folder.path().join("pki"), &shows),
        )?;
        Ok(kubeconfig)
    }

    /// Makes a node's object, as a kubelet would.
    ///
    /// # Errors
    /// kubectl's.
    pub fn add_node(&self, name: &str) -> Result<()> {
        let node = serde_json::json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" } },
        });
        let created = self.kubectl.feed(&["create", "-f", "-"], &node.to_string())?;
        created.ok().map(drop)
    }

    /// Fails, with its last words, if the apiserver has ended.
    ///
    /// # Errors
    /// It has.
    pub fn must_live(&mut self) -> Result<()> {
        self.apiserver.must_live()
    }
}

/// What shows that somebody is this account of ours.
fn token(kubectl: &Kubectl, account: &str) -> Result<String> {
    let token = kubectl.ok(&["create", "token", account, "--namespace", NAMESPACE])?;
    Ok(token.trim().to_owned())
}

/// By what kube-apiserver is known to the servers behind it: an authority that signs for nobody else.
fn issue_front_proxy(pki: &Path) -> Result<()> {
    let names = Names {
        common: FRONT_PROXY,
        ..Names::default()
    };
    Authority::new(&pki.join("front"))?
        .issue("proxy", names)
        .map(drop)
}

fn issue(authority: &Authority) -> Result<()> {
    authority.issue(
        "apiserver",
        Names {
            common: "kube-apiserver",
            hosts: &HOSTS,
            ..Names::default()
        },
    )?;
    let admin = Names {
        common: "admin",
        organization: Some("system:masters"),
        hosts: &[],
    };
    authority.issue("admin", admin)?;
    authority.keys("accounts")?;
    Ok(())
}

/// The apiserver makes its own first objects when it is up; the namespace of VMIs is one of the last.
fn await_namespace(kubectl: &Kubectl, apiserver: &mut Process) -> Result<()> {
    eventually("namespace default", || {
        apiserver.must_live()?;
        let ready = kubectl.run(&["get", "--raw", "/readyz"])?;
        let namespace = kubectl.run(&["get", "namespace", "default"])?;
        let there = ready.status() == Some(0) && namespace.status() == Some(0);
        Ok(Look::of(there.then_some(()), || {
            ready.error_text() + &namespace.error_text()
        }))
    })
    .map_err(|error| apiserver.complaint(&error))
}

fn install_crds(tools: &Tools, kubectl: &Kubectl) -> Result<()> {
    let crds = shown(&tools.source(CRDS));
    kubectl.ok(&["create", "-f", &crds])?;
    kubectl
        .ok(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "-f",
            &crds,
        ])
        .context("the CRD is not accepted")?;
    Ok(())
}

/// How an administrator shows who he is.
fn administrator(pki: &Path) -> String {
    let pki = shown(pki);
    format!("client-certificate: {pki}/admin.crt, client-key: {pki}/admin.key")
}

fn kubeconfig_text(server: &str, pki: &Path, user: &str) -> String {
    let pki = shown(pki);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: rvm\n\
         clusters: [{{name: rvm, cluster: {{server: '{server}', certificate-authority: {pki}/ca.crt}}}}]\n\
         users: [{{name: user, user: {{{user}}}}}]\n\
         contexts: [{{name: rvm, context: {{cluster: rvm, user: user}}}}]\n"
    )
}
