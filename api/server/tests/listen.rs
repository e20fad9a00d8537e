//! Who can reach the server: its owner by the socket, and holders of a certificate by TLS.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, future};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rvm_proto::v1::machines_client::MachinesClient;
use rvm_proto::v1::{VersionRequest, WatchRequest};
use rvm_server::fake::{FakeApi, FakeMachines};
use rvm_server::{ListenError, MachinesService, TlsFiles, serve_tls, serve_unix};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

fn service() -> MachinesService {
    let handler = Arc::new(FakeMachines::new().0);
    MachinesService::new(FakeApi::default().client(), handler.clone(), handler)
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
    let socket = path.to_owned();
    let server =
        tokio::spawn(async move { serve_unix(&socket, service(), async { drop(stopped.await) }).await });
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
    let refused = serve_unix(&folder.path().join("rvm.sock"), service(), future::pending()).await;
    assert!(matches!(refused, Err(ListenError::Open(_))), "{refused:?}");
}

#[tokio::test]
async fn a_living_servers_socket_is_not() {
    let folder = private_folder();
    let socket = folder.path().join("rvm.sock");
    let (_stop, _server) = serve(&socket).await;
    let second = serve_unix(&socket, service(), future::pending()).await;
    assert!(matches!(second, Err(ListenError::InUse(_))), "{second:?}");
    assert!(answers(&socket).await);
}

#[tokio::test]
async fn a_strangers_socket_is_not() {
    let folder = private_folder();
    let socket = folder.path().join("rvm.sock");
    let _stranger = UnixListener::bind(&socket).unwrap();
    let refused = serve_unix(&socket, service(), future::pending()).await;
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
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        (
            params.signed_by(&key, &self.ca).expect("a certificate").pem(),
            key.serialize_pem(),
        )
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("is written");
        path
    }
}

async fn connects(port: u16, trusted: &Pki, identity: Option<(String, String)>) -> bool {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted.ca.pem()))
        .domain_name("localhost");
    let tls = match identity {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
        None => tls,
    };
    let endpoint = Endpoint::try_from(format!("https://127.0.0.1:{port}")).expect("an address");
    let Ok(channel) = endpoint
        .tls_config(tls)
        .expect("fitting certificates")
        .connect()
        .await
    else {
        return false;
    };
    MachinesClient::new(channel)
        .version(VersionRequest {})
        .await
        .is_ok()
}

#[tokio::test]
async fn only_a_certificate_of_the_ca_gets_in_by_tls() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let (certificate, key) = pki.identity();
    let files = TlsFiles {
        certificate: pki.write("server.crt", &certificate),
        key: pki.write("server.key", &key),
        client_ca: pki.folder.path().join("ca.crt"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { serve_tls(listener, &files, service(), future::pending()).await });
    assert!(connects(port, &pki, Some(pki.identity())).await);
    assert!(!connects(port, &pki, None).await);
    assert!(!connects(port, &pki, Some(stranger.identity())).await);
}
