//! Pulls from a real registry: once, gone on with, let in; and images that cannot be used.

mod bad;
mod doors;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rvm_harness::process::Process;
use rvm_harness::sweep::Sweeper;
use rvm_harness::{Registry, Wire};
use rvm_types::VirtualMachineInstance as Vmi;
use rvm_types::condition;
use serde_json::Value;

use crate::layouts::{Image, Packed, noise};
use crate::node::{Cluster, manifest};

/// A name that only the mirror leads anywhere.
const IMAGE: &str = "registry.example:5000/team/demo:1";

/// A registry, and a cluster whose nodes take `registry.example:5000` from there.
struct Place {
    registry: Registry,
    wire: Wire,
    /// Machines outlive their handler.
    _sweeper: Sweeper,
    cluster: Cluster,
}

impl Place {
    fn new() -> Self {
        Self::with(Registry::start().unwrap())
    }

    fn with(registry: Registry) -> Self {
        let wire = Wire::to(registry.port(), u64::MAX).unwrap();
        let mut cluster = Cluster::new();
        cluster
            .mirrors
            .push(format!("registry.example:5000=http://127.0.0.1:{}", wire.port()));
        Self {
            registry,
            wire,
            _sweeper: Sweeper::start(cluster.folder.path()).unwrap(),
            cluster,
        }
    }

    /// Pushes an image as [`IMAGE`]; returns the digests of its layers.
    fn push(&self, image: &Image<'_>) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let layers = image.write(folder.path());
        self.registry.push(folder.path(), "team/demo:1").unwrap();
        layers
    }

    /// What is said of a VMI of this image that cannot be prepared: its condition's message, which is also its one warning.
    fn refusal(&self, image: &str) -> String {
        self.refusal_of(manifest("vm", image))
    }

    /// As [`Place::refusal`], of this VMI.
    fn refusal_of(&self, vmi: Value) -> String {
        let _node = self.cluster.node("a");
        let vmi: Vmi = serde_json::from_value(vmi).unwrap();
        let (vmis, params) = (self.cluster.vmis(), PostParams::default());
        self.cluster.block_on(vmis.create(&params, &vmi)).unwrap();
        let refused = |vmi: Option<&Vmi>| {
            let reason = synchronized(vmi?)?.0;
            (reason == "ErrImagePull").then_some(())
        };
        let vmi = self.cluster.until("vm", |vmi| refused(vmi).is_some()).unwrap();
        let (_, message) = synchronized(&vmi).unwrap();
        let mut told = self.cluster.events("vm", 1);
        while !told.iter().any(|event| event.1 == "Failed") {
            told = self.cluster.events("vm", told.len() + 1);
        }
        told.retain(|event| event.0 == "Warning");
        assert_eq!(
            told,
            [("Warning".to_owned(), "Failed".to_owned(), message.clone())]
        );
        message
    }

    fn store(&self) -> PathBuf {
        self.cluster.folder.path().join("a/images")
    }

    fn arrived(&self, layer: &str) -> u64 {
        fs::metadata(self.store().join("partial").join(layer)).map_or(0, |file| file.len())
    }
}

fn synchronized(vmi: &Vmi) -> Option<(String, String)> {
    let status = vmi.status.as_ref()?;
    let condition = condition::find(&status.conditions, "Synchronized")?;
    Some((condition.reason.clone()?, condition.message.clone()?))
}

#[test]
fn a_pulled_image_runs_and_is_told_of_as_the_kubelet_does() {
    let place = Place::new();
    place.push(&Image::of(&[("etc/motd", b"hello")]));
    let _node = place.cluster.node("a");
    place.cluster.create("vm", IMAGE);
    place.cluster.until_phase("vm", "Running");
    let told = place.cluster.events("vm", 4);
    assert_eq!(told[0].2, format!("Pulling image \"{IMAGE}\""));
    assert!(
        told[1]
            .2
            .starts_with(&format!("Successfully pulled image \"{IMAGE}\" in "))
            && told[1].2.ends_with(" bytes."),
        "{told:?}"
    );
    assert_eq!((told[2].1.as_str(), told[3].1.as_str()), ("Created", "Started"));
}

#[test]
fn an_image_packed_with_zstd_runs() {
    let place = Place::new();
    place.push(&Image {
        packed: Packed::Zstd,
        ..Image::of(&[("etc/motd", b"hello")])
    });
    let _node = place.cluster.node("a");
    place.cluster.create("vm", IMAGE);
    place.cluster.until_phase("vm", "Running");
}

#[test]
fn ten_machines_of_one_image_pull_it_once() {
    let place = Place::new();
    let layers = place.push(&Image::of(&[("data", &noise(1 << 20))]));
    let _node = place.cluster.node("a");
    let names: Vec<String> = (0..10).map(|number| format!("vm-{number}")).collect();
    names
        .iter()
        .for_each(|name| drop(place.cluster.create(name, IMAGE)));
    names
        .iter()
        .for_each(|name| drop(place.cluster.until_phase(name, "Running")));
    let asked = |text: &str| {
        place
            .registry
            .requests(&format!("\"GET /v2/team/demo/{text}"))
            .len()
    };
    assert_eq!(asked(&format!("blobs/sha256:{}", layers[0])), 1);
    assert_eq!(asked("manifests/1"), 1);
}

#[test]
fn a_registry_that_dies_in_a_pull_is_gone_on_with_when_it_is_back() {
    let mut place = Place::new();
    let layers = place.push(&Image::of(&[("data", &noise(4 << 20))]));
    place.wire.mend(place.registry.port(), 2 << 20);
    let _node = place.cluster.node("a");
    place.cluster.create("vm", IMAGE);
    place
        .cluster
        .until("vm", |_| place.wire.left() == 0 && place.arrived(&layers[0]) > 0);
    place.registry.kill().unwrap();
    place.registry.start_again().unwrap();
    place.wire.mend(place.registry.port(), 3 << 20);
    place.cluster.until_phase("vm", "Running");
    let rest = place.registry.requests(&layers[0]);
    assert!(rest.iter().all(|line| line.contains("\" 206 ")), "{rest:?}");
}

#[test]
fn an_image_that_moves_is_asked_for_each_time_and_fetched_once() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    let layers = Image::of(&[("a", b"x")]).write(folder.path());
    place.registry.push(folder.path(), "team/moves:latest").unwrap();
    let _node = place.cluster.node("a");
    for name in ["one", "two"] {
        place.cluster.create(name, "registry.example:5000/team/moves");
        place.cluster.until_phase(name, "Running");
    }
    let asked = |text: &str| {
        place
            .registry
            .requests(&format!("\"GET /v2/team/moves/{text}"))
            .len()
    };
    assert_eq!(asked("manifests/latest"), 2);
    assert_eq!(asked(&format!("blobs/sha256:{}", layers[0])), 1);
}

#[test]
fn a_registry_is_not_asked_where_the_policy_is_never() {
    let place = Place::new();
    place.push(&Image::of(&[("a", b"x")]));
    let _node = place.cluster.node("a");
    let mut vmi = manifest("vm", IMAGE);
    vmi["spec"]["volumes"][0]["containerDisk"]["imagePullPolicy"] = "Never".into();
    let vmi: Vmi = serde_json::from_value(vmi).unwrap();
    let (vmis, params) = (place.cluster.vmis(), PostParams::default());
    place.cluster.block_on(vmis.create(&params, &vmi)).unwrap();
    let vmi = place
        .cluster
        .until("vm", |vmi| vmi.and_then(synchronized).is_some());
    let (_, message) = synchronized(&vmi.unwrap()).unwrap();
    assert_eq!(
        message,
        format!("Failed to pull image \"{IMAGE}\": it is not present with pull policy of Never")
    );
    assert!(
        place
            .registry
            .requests("\"GET /v2/team/demo/manifests")
            .is_empty()
    );
}

#[test]
fn an_image_that_cannot_be_had_is_backed_off_from_and_taken_when_it_is_there() {
    let place = Place::new();
    let _node = place.cluster.node("a");
    place.cluster.create("vm", IMAGE);
    let backed_off = |vmi: &Vmi| synchronized(vmi).is_some_and(|(reason, _)| reason == "ImagePullBackOff");
    let vmi = place
        .cluster
        .until("vm", |vmi| vmi.is_some_and(backed_off))
        .unwrap();
    let (_, message) = synchronized(&vmi).unwrap();
    assert!(
        message.starts_with("Back-off: Failed to pull image \"")
            && message.ends_with("has no image 'team/demo:1'"),
        "{message}"
    );
    place.push(&Image::of(&[("a", b"x")]));
    let vmi = place.cluster.until_phase("vm", "Running");
    assert_eq!(synchronized(&vmi), None);
}

#[test]
fn a_killed_handler_leaves_no_half_image_and_the_next_one_goes_on() {
    let place = Place::new();
    let layers = place.push(&Image::of(&[("data", &noise(4 << 20))]));
    place.wire.mend(place.registry.port(), 2 << 20);
    let mut handler = place.local_handler("first.log", ("REGISTRY_AUTH_FILE", "/dev/null"), &place.mirror());
    let vmis = place.local_vmis(&mut handler);
    place.create_local(&vmis);
    place
        .cluster
        .wait(|| place.wire.left() == 0 && place.arrived(&layers[0]) > 0);
    handler.kill().unwrap();
    // Its pull ends with it, and lets go of the blob.
    let blob = place.store().join("partial").join(&layers[0]);
    place.cluster.wait(|| lock(&blob));
    assert!(!place.store().join("blobs/sha256").join(&layers[0]).exists());
    place.wire.mend(place.registry.port(), 3 << 20);
    let mut handler = place.local_handler("second.log", ("REGISTRY_AUTH_FILE", "/dev/null"), &place.mirror());
    let vmis = place.local_vmis(&mut handler);
    place.until_running(&vmis);
}

#[test]
fn a_full_disk_is_said_and_the_pull_goes_on_when_there_is_room() {
    let place = Place::new();
    let layers = place.push(&Image::of(&[("data", &noise(3 << 20))]));
    let Some(_small) = SmallDisk::mount(&place.store()) else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let message = place.refusal(IMAGE);
    let full = format!(
        "blob {} cannot be written: No space left on device (os error 28)",
        layers[0]
    );
    assert!(message.ends_with(&full), "{message}");
    assert!(mount(&[
        "-o",
        "remount,size=16m",
        place.store().to_str().unwrap()
    ]));
    let _node = place.cluster.node("a");
    place.cluster.until_phase("vm", "Running");
}

#[test]
fn a_registry_that_never_ends_ends_only_its_pull() {
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/endless:1", registry.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in registry.incoming().flatten() {
            std::thread::spawn(move || talk_for_ever(client));
        }
    });
    let message = Place::new().refusal(&image);
    assert!(
        message.contains("the process that pulls it ended without a word (signal: 6 (SIGABRT)"),
        "{message}"
    );
}

/// Answers the first question as a registry does, and the next one without an end.
fn talk_for_ever(mut client: TcpStream) {
    let mut asked = [0; 4096];
    let count = client.read(&mut asked).unwrap_or_default();
    if asked[..count].starts_with(b"GET /v2/ ") {
        client
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .ok();
        return;
    }
    let mut sent = client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    let more = vec![b' '; 1 << 20];
    while sent.is_ok() {
        sent = client.write_all(&more);
    }
}

/// A disk of 2 MiB in the place of a folder.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where only root may.
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let options = [
            "-t",
            "tmpfs",
            "-o",
            "size=2m",
            "rvm-test",
            folder.to_str().unwrap(),
        ];
        mount(&options).then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Who still looks at it does not keep it.
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

fn mount(arguments: &[&str]) -> bool {
    let mount = Command::new("mount").args(arguments).output();
    mount.is_ok_and(|done| done.status.success())
}

/// Whether nobody else holds a file.
fn lock(path: &Path) -> bool {
    let file = fs::File::open(path).unwrap();
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

impl Place {
    /// The program itself, in local mode, with the same folders as a node of the cluster would have.
    fn local_handler(&self, log: &str, (name, value): (&str, &str), arguments: &[String]) -> Process {
        let folder = self.cluster.folder.path();
        let program = Path::new(env!("CARGO_BIN_EXE_rvm-handler"));
        Process::start(program, &folder.join(log), |command| {
            command
                .args(["--local", "--node", "a"])
                .args(arguments)
                .args(["--rvmm", env!("CARGO_BIN_EXE_fake-rvmm")])
                .arg("--state-dir")
                .arg(folder.join("a"))
                .arg("--run-dir")
                .arg(folder.join("run"))
                .arg("--guests")
                .arg(folder.join("guests"))
                .env(name, value)
                .env_remove("KUBECONFIG");
        })
        .unwrap()
    }

    /// What has a local handler take `registry.example:5000` from here.
    fn mirror(&self) -> Vec<String> {
        let mirror = format!("registry.example:5000=http://127.0.0.1:{}", self.wire.port());
        vec!["--mirror".to_owned(), mirror]
    }

    /// Makes a local handler's VMI.
    fn create_local(&self, vmis: &Api<Vmi>) {
        let vmi = serde_json::from_value(manifest("vm", IMAGE)).unwrap();
        let params = PostParams::default();
        self.cluster.block_on(vmis.create(&params, &vmi)).unwrap();
    }

    /// Waits until a local handler's VMI runs.
    fn until_running(&self, vmis: &Api<Vmi>) {
        self.cluster.wait(|| {
            let vmi = self.cluster.block_on(vmis.get("vm")).unwrap();
            vmi.phase().is_some_and(|phase| phase.as_str() == "Running")
        });
    }

    /// The VMIs of a handler in local mode, once it serves.
    fn local_vmis(&self, handler: &mut Process) -> Api<Vmi> {
        self.cluster.wait(|| {
            handler.must_live().unwrap();
            handler.said().contains("rvm-handler serves")
        });
        let kubeconfig = Kubeconfig::read_from(self.cluster.folder.path().join("a/kubeconfig")).unwrap();
        let client = self.cluster.block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            Client::try_from(config.unwrap()).unwrap()
        });
        Api::default_namespaced(client)
    }
}
