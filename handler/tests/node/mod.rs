//! A handler's engine on an embedded API, with fake machines: started, stopped and started again on the same disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use rvm_handler::agent::Agents;
use rvm_handler::controller;
use rvm_handler::doors::Doors;
use rvm_handler::events::Recorder;
use rvm_handler::images::pull::Puller;
use rvm_handler::images::{Images, Mirror};
use rvm_handler::launch::Processes;
use rvm_handler::metrics::Transitions;
use rvm_handler::networks::client::Networks;
use rvm_handler::node::Register;
use rvm_handler::place::Place;
use rvm_handler::plugging::Plugs;
use rvm_handler::process::Machines;
use rvm_handler::process::children::Children;
use rvm_handler::process::watch::Watch;
use rvm_handler::pulling::Pulls;
use rvm_handler::retries::Retries;
use rvm_handler::steps::Effects;
use rvm_handler::thaws::Thaws;
use rvm_handler::volumes::claims::Claims;
use rvm_local::LocalApi;
use rvm_types::VirtualMachineInstance as Vmi;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};

/// How often a folder is tried to be taken that an earlier node had.
const TRIES: u32 = 100;

/// How long anything may take before a test gives up; nothing here takes a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of one API and any number of nodes.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    /// More places of images.
    pub mirrors: Vec<String>,
    /// Who signs for registries.
    pub certificates: Option<PathBuf>,
    /// Most bytes of images.
    pub image_limit: u64,
    api: LocalApi,
    runtime: Runtime,
    client: Client,
}

/// A running handler.
pub struct Node {
    runtime: Option<Runtime>,
    end: Option<oneshot::Sender<()>>,
    pub doors: Doors,
}

impl Cluster {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let _inside = runtime.enter();
        let api = LocalApi::open(&folder.path().join("api"), rvm_local::kubevirt().unwrap(), &[]).unwrap();
        let client = api.client();
        make_image(folder.path());
        Self {
            api,
            client,
            folder,
            mirrors: Vec::new(),
            certificates: None,
            image_limit: u64::MAX,
            runtime,
        }
    }

    /// Starts a node's handler, as it is after an earlier one was killed.
    pub fn node(&self, name: &str) -> Node {
        self.node_with(name, Path::new(env!("CARGO_BIN_EXE_fake-rvmm")))
    }

    /// How a handler with this id shows itself as this node.
    pub fn register(name: &str, handler: &str) -> Register {
        Register {
            name: name.to_owned(),
            handler: handler.to_owned(),
            address: None,
            create: true,
            interval: Duration::from_millis(20),
            stale_after: Duration::from_secs(300),
            in_pods: false,
            has_kvm: false,
        }
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Starts a node's handler with another rvmm.
    pub fn node_with(&self, name: &str, rvmm: &Path) -> Node {
        let runtime = Runtime::new().unwrap();
        let (end, ended) = oneshot::channel();
        let inside = runtime.enter();
        let client = self.api.client();
        let (state, run) = (self.folder.path().join(name), self.run(name));
        // A process that another thread is about to start has copies of all locks until it is another program.
        let place = (0..TRIES)
            .find_map(|_| {
                let place = Place::take(&run, &state);
                place
                    .inspect_err(|_| std::thread::sleep(Duration::from_millis(20)))
                    .ok()
            })
            .unwrap_or_else(|| Place::take(&run, &state).unwrap());
        let register = Register {
            // So that a killed node's claims are soon free.
            stale_after: Duration::from_secs(2),
            ..Self::register(name, &place.id())
        };
        let me = runtime.block_on(register.beat(&client)).unwrap();
        let (_keep, me) = watch::channel(me);
        let (wake, wakes) = mpsc::unbounded_channel();
        let machines = Arc::new(Machines::open(place, rvmm.to_owned(), name.to_owned()).unwrap());
        let image = format!("alpine:3.23=oci:{}", self.folder.path().join("image").display());
        let mirrors = [image].into_iter().chain(self.mirrors.clone());
        let mirrors = mirrors.map(|mirror| mirror.parse::<Mirror>().unwrap()).collect();
        let puller = Puller::new(env!("CARGO_BIN_EXE_rvm-handler").into());
        let puller = puller.believing(self.certificates.clone());
        let guests = Some(self.folder.path().join("guests"));
        let program = env!("CARGO_BIN_EXE_rvm-handler").into();
        let networks = Arc::new(Networks::new(&run, program, None));
        let images = Images::new(mirrors, guests, &state).unwrap();
        let images = Arc::new(images.pulled_by(puller, self.image_limit));
        let doors = Doors {
            me: me.clone(),
            machines: Arc::clone(&machines),
            watch: Watch::new(wake),
            events: Recorder::new(client.clone(), name),
            networks: Arc::clone(&networks),
            images: Arc::clone(&images),
            turns: Arc::default(),
            thaws: Thaws::default(),
            agents: Agents::default(),
        };
        let effects = Effects {
            client,
            me,
            machines,
            images,
            networks,
            agents: doors.agents.clone(),
            policies: None,
            host_disks: Arc::default(),
            claims: Arc::new(Claims::below(&state)),
            launcher: Arc::new(Processes),
            watch: doors.watch.clone(),
            events: doors.events.clone(),
            accelerator: rvmm_spec::AcceleratorChoice::Auto,
            children: Children::default(),
            pulls: Pulls::default(),
            retries: Retries::default(),
            plugs: Plugs::default(),
            transitions: Transitions::default(),
        };
        runtime.spawn(controller::run(Arc::new(effects), wakes, async {
            ended.await.unwrap_or(());
        }));
        drop(inside);
        Node {
            runtime: Some(runtime),
            end: Some(end),
            doors,
        }
    }

    pub fn run(&self, node: &str) -> PathBuf {
        self.folder.path().join(format!("{node}.run"))
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, future).await })
            .expect("takes too long")
    }

    pub fn vmis(&self) -> Api<Vmi> {
        Api::default_namespaced(self.client.clone())
    }

    pub fn create(&self, name: &str, image: &str) -> Vmi {
        let vmi: Vmi = serde_json::from_value(manifest(name, image)).unwrap();
        self.block_on(self.vmis().create(&PostParams::default(), &vmi))
            .unwrap()
    }

    /// As [`Cluster::create`], with time to shut down.
    pub fn create_with_grace(&self, name: &str, image: &str, seconds: i64) {
        let mut vmi: Vmi = serde_json::from_value(manifest(name, image)).unwrap();
        vmi.spec.termination_grace_period_seconds = Some(seconds);
        self.block_on(self.vmis().create(&PostParams::default(), &vmi))
            .unwrap();
    }

    pub fn delete(&self, name: &str) {
        self.block_on(self.vmis().delete(name, &DeleteParams::default()))
            .unwrap();
    }

    /// Waits until it is so.
    pub fn wait(&self, mut is_so: impl FnMut() -> bool) {
        let until = std::time::Instant::now() + PATIENCE;
        while !is_so() {
            assert!(std::time::Instant::now() < until, "takes too long");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a VMI is as wanted.
    pub fn until(&self, name: &str, wanted: impl Fn(Option<&Vmi>) -> bool) -> Option<Vmi> {
        self.block_on(async {
            loop {
                let vmi = self.vmis().get_opt(name).await.unwrap();
                if wanted(vmi.as_ref()) {
                    return vmi;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    pub fn until_phase(&self, name: &str, phase: &str) -> Vmi {
        self.until(name, |vmi| {
            vmi.and_then(Vmi::phase).is_some_and(|now| now.as_str() == phase)
        })
        .unwrap()
    }

    /// The events on a VMI: type, reason and message, in order.
    pub fn events(&self, name: &str, count: usize) -> Vec<(String, String, String)> {
        let api: Api<k8s_openapi::api::core::v1::Event> = Api::default_namespaced(self.client.clone());
        self.block_on(async {
            loop {
                let mut events = api.list(&Default::default()).await.unwrap().items;
                events.retain(|event| event.involved_object.name.as_deref() == Some(name));
                events.sort_by_key(|event| event.event_time.clone());
                if events.len() >= count {
                    let told = |event: k8s_openapi::api::core::v1::Event| {
                        let text = Option::unwrap_or_default;
                        (text(event.type_), text(event.reason), text(event.message))
                    };
                    return events.into_iter().map(told).collect();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }
}

impl Node {
    /// Ends the handler between any two steps, as SIGKILL would.
    pub fn kill(self) {
        drop(self);
    }

    /// Waits for something in this handler; what it starts ends with the handler.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref().expect("it runs");
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, future).await })
            .expect("takes too long")
    }

    /// Ends the handler as SIGTERM would.
    pub fn end(mut self) {
        self.end.take().and_then(|end| end.send(()).ok());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

pub fn manifest(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "annotations": {"rvm/root-filesystem": "root"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "domain": {"devices": {"autoattachPodInterface": false}, "memory": {"guest": "64Mi"}},
            "volumes": [{"name": "root", "containerDisk": {"image": image}}],
        },
    })
}

/// An image without layers, and a kernel and init, as far as the handler looks at them.
fn make_image(folder: &Path) {
    use sha2::Digest;
    let blobs = folder.join("image/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir(folder.join("guests")).unwrap();
    std::fs::write(folder.join("guests/Image"), "kernel").unwrap();
    std::fs::write(folder.join("guests/init.cpio"), "init").unwrap();
    let add = |kind: &str, content: Value| {
        let bytes = content.to_string();
        let digest: String = sha2::Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        std::fs::write(blobs.join(&digest), &bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}.v1+json");
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let rootfs = json!({"type": "layers", "diff_ids": []});
    let config = add(
        "config",
        json!({"architecture": "riscv64", "os": "linux", "rootfs": rootfs}),
    );
    let manifest = add(
        "manifest",
        json!({"schemaVersion": 2, "config": config, "layers": []}),
    );
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(folder.join("image/index.json"), index.to_string()).unwrap();
}
