//! A server with a cluster and machines in memory, and the real program run against it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rvm_server::fake::{FakeApi, FakeConsole, FakeMachines};
use rvm_server::{MachinesService, Subresources, UnixDoor};
use serde_json::json;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::images::Shelf;

/// Long enough for anything that is going to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The smallest manifest that runs.
pub const MANIFEST: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: alpine
  annotations: {rvm/root-filesystem: root}
spec:
  domain: {devices: {}, memory: {guest: 128Mi}}
  volumes: [{name: root, containerDisk: {image: alpine:3.23}}]
";

/// The server, its cluster and its machines.
pub struct Lab {
    pub api: FakeApi,
    pub machines: FakeMachines,
    pub consoles: mpsc::UnboundedReceiver<FakeConsole>,
    pub folder: tempfile::TempDir,
    /// What the Kubernetes API was asked.
    pub asked: Asked,
}

/// Requests, as METHOD PATH BODY.
pub type Asked = Arc<Mutex<Vec<String>>>;

impl Lab {
    /// A server that listens where local mode does.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("run/rvm.sock");
        let (api, (machines, consoles)) = (FakeApi::default(), FakeMachines::new());
        let handler = Arc::new(machines.clone());
        let service = MachinesService::new(api.client(), handler);
        let service = service.with_images(Arc::new(Shelf::default()));
        let door = UnixDoor::bind(&socket).expect("a socket");
        tokio::spawn(door.serve(service, std::future::pending()));
        let listens = async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens)
            .await
            .expect("the server listens");
        Self {
            api,
            machines,
            consoles,
            folder,
            asked: Asked::default(),
        }
    }

    /// With a Kubernetes API beside, which local mode's kubeconfig leads to.
    pub async fn with_kubernetes() -> Self {
        let lab = Self::new().await;
        let below = Subresources::new(lab.api.client(), Arc::new(lab.machines.clone())).router();
        let asked = Arc::clone(&lab.asked);
        let router = lab
            .api
            .router()
            .merge(below)
            .merge(others())
            .layer(axum::middleware::from_fn(
                move |request: axum::extract::Request, next: axum::middleware::Next| {
                    let asked = Arc::clone(&asked);
                    async move { noted(&asked, request, next).await }
                },
            ));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        std::fs::create_dir(lab.folder.path().join("state")).expect("a folder");
        lab.write("state/kubeconfig", &kubeconfig(&address.to_string()));
        lab
    }

    /// The program with these arguments, which finds the server as it finds local mode's.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rvm"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .kill_on_drop(true);
        command
            .env("RVM_RUN", self.folder.path().join("run"))
            .env("RVM_STATE", self.folder.path().join("state"));
        command
            .env("HOME", self.folder.path())
            .env("TERM", "xterm")
            .env_remove("KUBECONFIG")
            .env_remove("RVM_SERVER")
            .env_remove("RVM_CA")
            .env_remove("RVM_CERT")
            .env_remove("RVM_KEY");
        command
    }

    /// Runs the program to its end.
    pub async fn rvm(&self, args: &[&str]) -> Output {
        let output = self.command(args).stdin(Stdio::null()).output();
        tokio::time::timeout(PATIENCE, output)
            .await
            .expect("it ends")
            .expect("it starts")
    }

    /// Runs the program to its good end; returns what it printed.
    pub async fn ok(&self, args: &[&str]) -> String {
        let output = self.rvm(args).await;
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    }

    /// Runs the program to its bad end of status 1; returns its one line.
    pub async fn error(&self, args: &[&str]) -> String {
        let output = self.rvm(args).await;
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        let error = stderr(&output);
        assert_eq!(
            error.lines().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{error}"
        );
        error.lines().last().unwrap_or_default().to_owned()
    }

    /// Writes a file beside the program.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("is written");
        path
    }

    /// A machine `alpine` in this phase.
    pub fn machine_in(&self, phase: &str) {
        self.api.put(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": { "namespace": "default", "name": "alpine", "uid": "u1" },
            "spec": { "domain": { "devices": {} } }, "status": { "phase": phase, "nodeName": "n1" },
        }));
    }

    /// The machine's end of the next viewer's console.
    pub async fn console(&mut self) -> FakeConsole {
        tokio::time::timeout(PATIENCE, self.consoles.recv())
            .await
            .expect("a viewer comes")
            .expect("a console")
    }

    /// A second way to the server, which is cut when the task is aborted.
    pub fn relay(&self) -> (String, JoinHandle<()>) {
        let (front, back) = (
            self.folder.path().join("front.sock"),
            self.folder.path().join("run/rvm.sock"),
        );
        let listener = UnixListener::bind(&front).expect("is bound");
        let relay = tokio::spawn(async move {
            // The program looks whether somebody listens before it connects.
            drop(listener.accept().await.expect("looks"));
            let (mut viewer, _) = listener.accept().await.expect("connects");
            let mut server = UnixStream::connect(back).await.expect("the server listens");
            // The test cuts it; how it ends then is of no interest.
            let _ = tokio::io::copy_bidirectional(&mut viewer, &mut server).await;
        });
        (format!("unix://{}", front.display()), relay)
    }

    /// Starts the program with all its streams on this terminal.
    pub fn spawn_on(&self, terminal: &OwnedFd, args: &[&str]) -> Child {
        let stream = || Stdio::from(terminal.try_clone().expect("is cloned"));
        self.command(args)
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .expect("it starts")
    }
}

/// What a cluster has besides machines, as far as it is asked for here: Services can be made, and one installation is there.
fn others() -> axum::Router {
    let made = |axum::Json(service): axum::Json<serde_json::Value>| async move { axum::Json(service) };
    let devices = json!({"pciHostDevices": [{"resourceName": "a/nic"}, {"resourceName": "b/disk"}]});
    let installation = json!({"spec": {"configuration": {"permittedHostDevices": devices}}});
    let installations = move || async move { axum::Json(json!({"items": [installation]})) };
    axum::Router::new()
        .route("/api/v1/namespaces/default/services", axum::routing::post(made))
        .route(
            "/apis/kubevirt.io/v1/namespaces/rvm/kubevirts",
            axum::routing::get(installations),
        )
}

async fn noted(
    asked: &Asked,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let line = format!("{} {} {}", head.method, head.uri, String::from_utf8_lossy(&body));
    asked
        .lock()
        .expect("nobody panics")
        .push(line.trim_end().to_owned());
    next.run(axum::extract::Request::from_parts(head, body.into()))
        .await
}

/// A kubeconfig that leads to this address.
pub fn kubeconfig(address: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": format!("http://{address}")}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
    })
    .to_string()
}

/// What it printed.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it said besides.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
