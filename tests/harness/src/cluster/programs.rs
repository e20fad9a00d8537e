//! How the programs of a cluster are started.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};

use crate::node::{self, Node};
use crate::patience::{Look, eventually};
use crate::process::Process;
use crate::tools::{Tools, shown};

/// How kube-apiserver is called by those behind it.
pub(super) const FRONT_PROXY: &str = "front-proxy-client";

/// How often another port is tried: between choosing one and listening on it somebody else may take it.
const PORTS: u32 = 5;

/// Names of socket files in the cluster's folder, where both programs run, in the only form that etcd takes.
const STORE: &str = "unix://store:1";
const PEER: &str = "unix://peer:1";

/// Which controllers run: all but the one that takes a node without a kubelet for dead.
const WHICH: &str = "*,-node-lifecycle-controller";

/// Where an audited apiserver writes to, and what.
pub(super) const AUDIT_LOG: &str = "audit.log";
const AUDIT: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

pub(super) fn start_etcd(tools: &Tools, folder: &Path) -> Result<Process> {
    // It listens on sockets in the folder only, and so needs no network.
    Process::start(&tools.kube("etcd"), &folder.join("etcd.log"), |etcd| {
        etcd.current_dir(folder)
            .args(["--data-dir", "etcd", "--unsafe-no-fsync", "--log-level", "warn"])
            .args(["--listen-client-urls", STORE, "--advertise-client-urls", STORE])
            .args(["--listen-peer-urls", PEER, "--initial-advertise-peer-urls", PEER])
            .args(["--initial-cluster", &format!("default={PEER}")]);
    })
}

/// Starts it and waits until it answers; also says where.
pub(super) fn start_apiserver(tools: &Arc<Tools>, folder: &Path, audited: bool) -> Result<(Process, u16)> {
    let mut error = anyhow!("no port was tried");
    let audit = if audited { audit_flags(folder)? } else { Vec::new() };
    for _ in 0..PORTS {
        let port = free_port()?;
        let log = folder.join(format!("apiserver-{port}.log"));
        let mut apiserver = Process::start(&tools.kube("kube-apiserver"), &log, |apiserver| {
            apiserver
                .current_dir(folder)
                .args(apiserver_flags(port))
                .args(&audit);
        })?;
        match await_ready(&mut apiserver) {
            Ok(()) => return Ok((apiserver, port)),
            Err(ended) if apiserver.said().contains("address already in use") => error = ended,
            Err(ended) => return Err(ended),
        }
    }
    Err(error)
}

/// Starts it in the network of a node, where nobody else listens, and waits until it answers.
pub(super) fn start_apiserver_on(node: &Node, tools: &Tools, folder: &Path) -> Result<Process> {
    let (program, log) = (tools.kube("kube-apiserver"), folder.join("apiserver.log"));
    let mut apiserver = Process::start_by(&node.in_network(), &program, &log, |apiserver| {
        apiserver
            .current_dir(folder)
            .args(flags(&ON_NODE))
            .args(common_flags());
    })?;
    await_ready(&mut apiserver)?;
    Ok(apiserver)
}

/// How it is reached by its node and by pods, and how it reaches kubelet.
const ON_NODE: [(&str, &str); 8] = [
    ("bind-address", "0.0.0.0"),
    ("secure-port", PORT_ON_NODE),
    ("advertise-address", node::ADDRESS),
    ("allow-privileged", "true"),
    ("kubelet-certificate-authority", "pki/ca.crt"),
    ("kubelet-client-certificate", "pki/admin.crt"),
    ("kubelet-client-key", "pki/admin.key"),
    ("kubelet-preferred-address-types", "InternalIP"),
];

/// Its port in a node's network.
pub(super) const PORT_ON_NODE: &str = "6443";

fn apiserver_flags(port: u16) -> Vec<String> {
    let port = port.to_string();
    let here = [
        ("bind-address", "127.0.0.1"),
        ("secure-port", port.as_str()),
        ("advertise-address", "127.0.0.1"),
        // There is no Service to reach it by, and loopback could be none.
        ("endpoint-reconciler-type", "none"),
    ];
    [flags(&here), common_flags()].concat()
}

fn common_flags() -> Vec<String> {
    flags(&[
        ("etcd-servers", STORE),
        ("service-cluster-ip-range", "198.18.2.0/24"),
        ("authorization-mode", "Node,RBAC"),
        ("client-ca-file", "pki/ca.crt"),
        ("tls-cert-file", "pki/apiserver.crt"),
        ("tls-private-key-file", "pki/apiserver.key"),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-account-key-file", "pki/accounts.pub"),
        ("service-account-signing-key-file", "pki/accounts.key"),
        ("requestheader-client-ca-file", "pki/front/ca.crt"),
        ("requestheader-allowed-names", FRONT_PROXY),
        ("requestheader-username-headers", "X-Remote-User"),
        ("requestheader-group-headers", "X-Remote-Group"),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        ("proxy-client-cert-file", "pki/front/proxy.crt"),
        ("proxy-client-key-file", "pki/front/proxy.key"),
        ("v", "0"),
    ])
}

fn flags(all: &[(&str, &str)]) -> Vec<String> {
    let all = all.iter();
    all.map(|(flag, value)| format!("--{flag}={value}")).collect()
}

/// Has it write each request down once, when it was answered, or has begun to be where that takes long.
fn audit_flags(folder: &Path) -> Result<Vec<String>> {
    fs::write(folder.join("audit.yaml"), AUDIT)?;
    Ok(vec![
        "--audit-policy-file=audit.yaml".to_owned(),
        format!("--audit-log-path={AUDIT_LOG}"),
    ])
}

/// Starts kube-controller-manager and does not wait.
pub(super) fn start_controllers(
    tools: &Tools,
    folder: &Path,
    kubeconfig: &Path,
    node: bool,
) -> Result<Process> {
    let program = tools.kube("kube-controller-manager");
    let flags = controllers_flags(&shown(kubeconfig), if node { "*" } else { WHICH });
    // It is reached by nobody, and so may be in this network where the apiserver is in another.
    Process::start(&program, &folder.join("controllers.log"), |controllers| {
        controllers.current_dir(folder).args(flags);
    })
}

/// Starts kube-scheduler and does not wait.
pub(super) fn start_scheduler(parts: &Path, folder: &Path, kubeconfig: &Path) -> Result<Process> {
    let kubeconfig = shown(kubeconfig);
    Process::start(
        &parts.join("kube-scheduler"),
        &folder.join("scheduler.log"),
        |scheduler| {
            scheduler.current_dir(folder).args(flags(&[
                ("kubeconfig", &kubeconfig),
                ("authentication-kubeconfig", &kubeconfig),
                ("authorization-kubeconfig", &kubeconfig),
                ("leader-elect", "false"),
                // Nobody asks it for anything.
                ("secure-port", "0"),
                ("v", "0"),
            ]));
        },
    )
}

fn controllers_flags(kubeconfig: &str, which: &str) -> Vec<String> {
    flags(&[
        ("kubeconfig", kubeconfig),
        ("authentication-kubeconfig", kubeconfig),
        ("authorization-kubeconfig", kubeconfig),
        ("controllers", which),
        ("use-service-account-credentials", "true"),
        ("service-account-private-key-file", "pki/accounts.key"),
        ("root-ca-file", "pki/ca.crt"),
        ("leader-elect", "false"),
        // Nobody asks it for anything.
        ("secure-port", "0"),
        ("v", "0"),
    ])
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Its first words after it listens.
const SERVING: &str = "Serving securely on";

fn await_ready(apiserver: &mut Process) -> Result<()> {
    eventually("serving apiserver", || {
        apiserver.must_live()?;
        Ok(Look::of(apiserver.said().contains(SERVING).then_some(()), || {
            "it starts".to_owned()
        }))
    })
}
