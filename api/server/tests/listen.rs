//! Who can reach the server: its owner by the socket, and holders of a certificate by TLS.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, future};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rvm_proto::v1::machines_client::MachinesClient;
use rvm_proto::v1::{VersionRequest, WatchRequest};
use rvm_server::fake::{FakeApi, FakeMachines};
use rvm_server::{ListenError, MachinesService, TlsDoor, TlsFiles, UnixDoor, serve_tls};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

fn service() -> MachinesService {
    let handler = Arc::new(FakeMachines::new().0);
    MachinesService::new(FakeApi::default().client(), handler)
}

/// A folder that the server takes for its socket: nobody else can open it.
fn private_folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .expect("a folder")
}

/// Serves on the socket and waits until it answers; what is returned ends the server.
async fn serve(
    path: &Path,
) -> (
    oneshot::Sender<()>,
    tokio::task::JoinHandle<Result<(), ListenError>>,
) {
    let (stop, stopped) = oneshot::channel();
    let door = UnixDoor::bind(path).expect("a socket");
    let server = tokio::spawn(async move { door.serve(service(), async { drop(stopped.await) }).await });
    while !answers(path).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (stop, server)
}

async fn answers(path: &Path) -> bool {
    let endpoint = Endpoint::try_from(format!("unix://{}", path.display())).expect("an address");
    let Ok(channel) = endpoint.connect().await else {
        return false;
    };
    MachinesClient::new(channel)
        .version(VersionRequest {})
        .await
        .is_ok()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_the_server() {
    let folder = private_folder();
    let socket = folder.path().join("rvm").join("rvm.sock");
    let (stop, server) = serve(&socket).await;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn the_socket_goes_with_a_server_that_is_cut_off() {
    let folder = private_folder();
    let socket = folder.path().join("rvm.sock");
    let (_stop, server) = serve(&socket).await;
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_stream_that_is_open_for_ever_does_not_keep_the_server() {
    let folder = private_folder();
    let socket = folder.path().join("rvm.sock");
    let (stop, server) = serve(&socket).await;
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
    let mut client = MachinesClient::new(endpoint.connect().await.unwrap());
    let _watch = client.watch(WatchRequest::default()).await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(20), server)
        .await
        .expect("the server ends")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_dead_servers_socket_is_replaced() {
    let folder = private_folder();
    let socket = folder.path().join("rvm.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let (_stop, _server) = serve(&socket).await;
    assert!(answers(&socket).await);
}

#[tokio::test]
async fn a_folder_that_others_can_open_is_refused() {
    let folder = private_folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let refused = UnixDoor::bind(&folder.path().join("rvm.sock"));
    assert!(matches!(refused, Err(ListenError::Open(_))), "{refused:?}");
}

#[tokio::test]
async fn a_living_servers_socket_is_not() {
    let folder = private_folder();
    let socket = folder.path().join("rvm.sock");
    let (_stop, _server) = serve(&socket).await;
    let second = UnixDoor::bind(&socket);
    assert!(matches!(second, Err(ListenError::InUse(_))), "{second:?}");
    assert!(answers(&socket).await);
}

#[tokio::test]
async fn a_strangers_socket_is_not() {
    let folder = private_folder();
    let socket = folder.path().join("rvm.sock");
    let _stranger = UnixListener::bind(&socket).unwrap();
    let refused = UnixDoor::bind(&socket);
    assert!(matches!(refused, Err(ListenError::InUse(_))), "{refused:?}");
}

/// A CA, and certificates of it.
struct Pki {
    folder: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.crt"), ca.pem()).expect("is written");
        Self { folder, ca }
    }

    fn identity(&self) -> (String, String) {
        self.identity_of("somebody")
    }

    /// A certificate with this common name, and its key.
    fn identity_of(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        (
            params.signed_by(&key, &self.ca).expect("a certificate").pem(),
            key.serialize_pem(),
        )
    }

    /// Serves those with these names.
    async fn serve(&self, clients: &[&str]) -> u16 {
        let (certificate, key) = self.identity();
        let files = TlsFiles {
            certificate: self.write("server.crt", &certificate),
            key: self.write("server.key", &key),
            client_ca: self.folder.path().join("ca.crt"),
            clients: clients.iter().map(|&name| name.to_owned()).collect(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let door = TlsDoor::new(listener, &files).expect("a door");
        tokio::spawn(serve_tls(door, service(), future::pending()));
        port
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("is written");
        path
    }
}

async fn channel(port: u16, trusted: &Pki, identity: Option<(String, String)>) -> Option<Channel> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted.ca.pem()))
        .domain_name("localhost");
    let tls = match identity {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
        None => tls,
    };
    let endpoint = Endpoint::try_from(format!("https://127.0.0.1:{port}")).expect("an address");
    let endpoint = endpoint.tls_config(tls).expect("fitting certificates");
    endpoint.connect().await.ok()
}

async fn version(channel: Channel) -> Result<(), tonic::Status> {
    MachinesClient::new(channel)
        .version(VersionRequest {})
        .await
        .map(drop)
}

async fn connects(port: u16, trusted: &Pki, identity: Option<(String, String)>) -> bool {
    match channel(port, trusted, identity).await {
        Some(channel) => version(channel).await.is_ok(),
        None => false,
    }
}

#[tokio::test]
async fn only_a_certificate_of_the_ca_gets_in_by_tls() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let port = pki.serve(&[]).await;
    assert!(connects(port, &pki, Some(pki.identity())).await);
    assert!(!connects(port, &pki, None).await);
    assert!(!connects(port, &pki, Some(stranger.identity())).await);
}

#[tokio::test]
async fn of_the_cas_clients_only_those_with_a_listed_name_get_in() {
    let pki = Pki::new();
    let port = pki.serve(&["operator", "viewer.example"]).await;
    assert!(connects(port, &pki, Some(pki.identity_of("operator"))).await);
    assert!(!connects(port, &pki, Some(pki.identity_of("kubelet"))).await);
    // All certificates here have this alternative name, the server's own, too.
    let port = pki.serve(&["localhost"]).await;
    assert!(connects(port, &pki, Some(pki.identity_of("kubelet"))).await);
}

#[tokio::test]
async fn strangers_who_never_prove_who_they_are_keep_nobody_out() {
    let pki = Pki::new();
    let port = pki.serve(&[]).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    assert!(connects(port, &pki, Some(pki.identity())).await);
    drop(silent);
}

#[tokio::test]
async fn more_connections_than_there_are_places_are_turned_away() {
    let pki = Pki::new();
    let port = pki.serve(&[]).await;
    let identity = pki.identity();
    let mut guests = Vec::new();
    for _ in 0..256 {
        guests.push(channel(port, &pki, Some(identity.clone())).await.unwrap());
    }
    for guest in &guests {
        version(guest.clone()).await.unwrap();
    }
    assert!(!connects(port, &pki, Some(identity.clone())).await);
    drop(guests);
    // A place is free once the server has seen that its guest is gone.
    while !connects(port, &pki, Some(identity.clone())).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_refused_at_the_door() {
    let pki = Pki::new();
    let (certificate, _) = pki.identity();
    let (_, key_of_another) = pki.identity();
    let mut files = TlsFiles {
        certificate: pki.write("server.crt", &certificate),
        key: pki.write("server.key", &key_of_another),
        client_ca: pki.folder.path().join("ca.crt"),
        clients: Vec::new(),
    };
    let door = |listener, files: &TlsFiles| TlsDoor::new(listener, files).err();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(matches!(
        door(listener, &files),
        Some(ListenError::Certificates(_))
    ));
    files.key = pki.folder.path().join("none");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(matches!(
        door(listener, &files),
        Some(ListenError::Identity { .. })
    ));
}
