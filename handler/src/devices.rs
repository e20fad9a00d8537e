//! Devices that pods may ask for: `devices.kubevirt.io/kvm`, `tun` and `vhost-net`, and `rvm/accelerator`, offered to the kubelet as its
//! device plugins are.
//!
//! ```text
//!   for each device that is there ── rvm-DEVICE.sock beside kubelet.sock ─► Register ─► ListAndWatch, Allocate
//!        └── our socket is gone (the kubelet begins with an empty folder), or the kubelet's is another ─► again
//! ```
//!
//! A device of these can be had by many at once; there are [`SLOTS`] of each, as with KubeVirt. A pod's process is no root: a device
//! that others may not open is opened to all, as KubeVirt does. `kvm` is offered where it runs guests of our architecture only.
//!
//! `rvm/accelerator` is for pods that do not mind: it is `/dev/kvm` where that is offered, and nothing at all where guests are
//! emulated. So such a pod can be put anywhere, and has KVM wherever there is KVM.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rvm_proto::kubelet::v1beta1::device_plugin_server::{DevicePlugin, DevicePluginServer};
use rvm_proto::kubelet::v1beta1::registration_client::RegistrationClient;
use rvm_proto::kubelet::v1beta1::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, Device, DevicePluginOptions, DeviceSpec,
    Empty, ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse, RegisterRequest,
};
use rvm_types::names::ARCHITECTURE;
use rvmm_spec::AcceleratorChoice;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

/// The interface's version.
const VERSION: &str = "v1beta1";
/// The kubelet's socket, in the folder of all plugins.
const KUBELET: &str = "kubelet.sock";
/// That folder, in the kubelet's.
const FOLDER: &str = "device-plugins";
/// How many pods may have a device at once.
const SLOTS: usize = 1000;
/// What all may do with a device.
const FOR_ALL: u32 = 0o006;
/// How often it is looked whether the kubelet still knows us.
const LOOK: Duration = Duration::from_secs(1);

/// Where KVM is.
const KVM: &str = "/dev/kvm";

/// Whether guests run by the hardware here, where this was chosen.
pub fn has_kvm(choice: AcceleratorChoice) -> bool {
    choice != AcceleratorChoice::Tcg && std::env::consts::ARCH == ARCHITECTURE && Path::new(KVM).exists()
}

/// Offers this node's devices to its kubelet for as long as it is let.
pub async fn offer(kubelet: &Path, choice: AcceleratorChoice) {
    let offers = offered(choice, has_kvm(choice), |path| Path::new(path).exists());
    let offers = offers
        .into_iter()
        .map(|plugin| offer_one(kubelet.join(FOLDER), plugin));
    futures::future::join_all(offers).await;
}

/// What is offered where this was chosen to run guests, and these devices are here.
fn offered(choice: AcceleratorChoice, kvm: bool, is_here: impl Fn(&str) -> bool) -> Vec<Plugin> {
    let plugin = |name, resource, path| Plugin { name, resource, path };
    let kvm_here = kvm.then_some(KVM);
    let mut offered = Vec::new();
    offered.extend(kvm_here.map(|path| plugin("kvm", "devices.kubevirt.io/kvm", Some(path))));
    if kvm || choice != AcceleratorChoice::Kvm {
        offered.push(plugin("accelerator", "rvm/accelerator", kvm_here));
    }
    for (name, resource, path) in [
        ("tun", "devices.kubevirt.io/tun", "/dev/net/tun"),
        ("vhost-net", "devices.kubevirt.io/vhost-net", "/dev/vhost-net"),
    ] {
        if is_here(path) {
            offered.push(plugin(name, resource, Some(path)));
        }
    }
    offered
}

async fn offer_one(folder: PathBuf, plugin: Plugin) {
    let name = plugin.name;
    loop {
        match until_forgotten(&folder, plugin).await {
            Ok(()) => tracing::info!(
                device = name,
                "the kubelet was restarted, its devices are offered again"
            ),
            // No kubelet yet, or none any more.
            Err(error) => {
                tracing::debug!(device = name, %error, "the kubelet is not told of a device, trying again");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Offers a device until the kubelet does not know of it any more.
async fn until_forgotten(folder: &Path, plugin: Plugin) -> anyhow::Result<()> {
    if let Some(path) = plugin.path {
        open_to_all(Path::new(path))?;
    }
    let own = format!("rvm-{}.sock", plugin.name);
    let socket = folder.join(&own);
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let kubelet = identity(&folder.join(KUBELET))?;
    let listener = UnixListener::bind(&socket)?;
    let ours = identity(&socket)?;
    let served = Server::builder()
        .add_service(DevicePluginServer::new(plugin))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let told = async {
        register(&folder.join(KUBELET), &own, plugin.resource).await?;
        tracing::info!(device = plugin.resource, "offered to the kubelet");
        loop {
            tokio::time::sleep(LOOK).await;
            let is = |path: &Path, before| identity(path).is_ok_and(|now| now == before);
            if !is(&socket, ours) || !is(&folder.join(KUBELET), kubelet) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::select! {
        broken = served => Ok(broken?),
        told = told => told,
    }
}

async fn register(kubelet: &Path, own: &str, resource: &str) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(format!("unix://{}", kubelet.display()))?;
    let mut client = RegistrationClient::new(channel.connect().await?);
    let request = RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: own.to_owned(),
        resource_name: resource.to_owned(),
        options: Some(DevicePluginOptions::default()),
    };
    client.register(request).await?;
    Ok(())
}

/// Which file is there now.
fn identity(path: &Path) -> io::Result<(u64, u64, i64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.ctime_nsec()))
}

/// Lets everybody use a device: what a container may do with it, its pod has asked for.
fn open_to_all(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & FOR_ALL == FOR_ALL {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode | FOR_ALL))
}

/// One device's plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plugin {
    name: &'static str,
    /// What pods call it.
    resource: &'static str,
    /// What a container gets, if anything.
    path: Option<&'static str>,
}

// === impl Plugin ===

impl Plugin {
    fn devices(self) -> ListAndWatchResponse {
        let device = |slot| Device {
            id: format!("{}{slot}", self.name),
            health: "Healthy".to_owned(),
        };
        ListAndWatchResponse {
            devices: (0..SLOTS).map(device).collect(),
        }
    }

    fn allocate(self, request: &AllocateRequest) -> AllocateResponse {
        let device = self.path.map(|path| DeviceSpec {
            container_path: path.to_owned(),
            host_path: path.to_owned(),
            permissions: "rw".to_owned(),
        });
        let each = ContainerAllocateResponse {
            devices: device.into_iter().collect(),
            ..ContainerAllocateResponse::default()
        };
        AllocateResponse {
            container_responses: vec![each; request.container_requests.len()],
        }
    }
}

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    type ListAndWatchStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        // They do not change while we are here.
        let now = tokio_stream::once(Ok(self.devices())).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(now)))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Err(Status::unimplemented("any is as good as another"))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        Ok(Response::new(Self::allocate(*self, request.get_ref())))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Err(Status::unimplemented("nothing is to be done"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvm_proto::kubelet::v1beta1::ContainerAllocateRequest;
    use rvm_proto::kubelet::v1beta1::device_plugin_client::DevicePluginClient;
    use rvm_proto::kubelet::v1beta1::registration_server::{Registration, RegistrationServer};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    struct Kubelet(mpsc::UnboundedSender<RegisterRequest>);

    #[tonic::async_trait]
    impl Registration for Kubelet {
        async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
            self.0.send(request.into_inner()).unwrap();
            Ok(Response::new(Empty {}))
        }
    }

    /// A kubelet that has just begun: its folder is empty but for its socket.
    fn kubelet(folder: &Path, registered: &mpsc::UnboundedSender<RegisterRequest>) -> JoinHandle<()> {
        for file in fs::read_dir(folder).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        let incoming = UnixListenerStream::new(UnixListener::bind(folder.join(KUBELET)).unwrap());
        let service = RegistrationServer::new(Kubelet(registered.clone()));
        tokio::spawn(async move {
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        })
    }

    #[tokio::test]
    async fn a_kubelet_is_told_of_a_device_and_so_is_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut registered) = mpsc::unbounded_channel();
        let first = kubelet(folder.path(), &sender);
        let null = Plugin {
            name: "null",
            resource: "devices.kubevirt.io/null",
            path: Some("/dev/null"),
        };
        let offering = tokio::spawn(offer_one(folder.path().to_owned(), null));
        let told = registered.recv().await.unwrap();
        assert_eq!(
            (told.version.as_str(), told.endpoint.as_str()),
            ("v1beta1", "rvm-null.sock")
        );
        assert_eq!(told.resource_name, "devices.kubevirt.io/null");
        let own = format!("unix://{}", folder.path().join(&told.endpoint).display());
        let channel = Endpoint::from_shared(own).unwrap().connect().await.unwrap();
        let mut plugin = DevicePluginClient::new(channel);
        let mut devices = plugin.list_and_watch(Empty {}).await.unwrap().into_inner();
        let devices = devices.message().await.unwrap().unwrap().devices;
        assert_eq!(devices.len(), SLOTS);
        assert_eq!(
            (devices[7].id.as_str(), devices[7].health.as_str()),
            ("null7", "Healthy")
        );
        let wanted = ContainerAllocateRequest {
            devices_ids: vec!["null7".to_owned()],
        };
        let request = AllocateRequest {
            container_requests: vec![wanted],
        };
        let given = plugin.allocate(request).await.unwrap().into_inner();
        let device = &given.container_responses[0].devices[0];
        assert_eq!(
            (device.host_path.as_str(), device.permissions.as_str()),
            ("/dev/null", "rw")
        );
        first.abort();
        let _second = kubelet(folder.path(), &sender);
        assert_eq!(registered.recv().await.unwrap().endpoint, "rvm-null.sock");
        offering.abort();
    }

    #[test]
    fn an_accelerator_is_kvm_or_nothing_at_all_and_what_is_not_there_is_not_offered() {
        let of = |choice, kvm| offered(choice, kvm, |path| path == "/dev/net/tun");
        let names = |offered: Vec<Plugin>| offered.iter().map(|one| one.name).collect::<Vec<_>>();
        let accelerator = |offered: Vec<Plugin>| {
            let found = offered.into_iter().find(|one| one.resource == "rvm/accelerator");
            found.map(|found| found.path)
        };
        let (auto, kvm) = (AcceleratorChoice::Auto, AcceleratorChoice::Kvm);
        assert_eq!(names(of(auto, true)), ["kvm", "accelerator", "tun"]);
        assert_eq!(accelerator(of(auto, true)), Some(Some("/dev/kvm")));
        assert_eq!(accelerator(of(auto, false)), Some(None));
        assert_eq!(names(of(kvm, false)), ["tun"]);
        assert!(!has_kvm(AcceleratorChoice::Tcg));
    }
}
