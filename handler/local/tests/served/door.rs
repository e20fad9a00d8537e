//! Nobody but the owner of the kubeconfig gets in, and no web page either.

use std::sync::Arc;

use crate::server::Server;
use k8s_openapi::ByteString;
use kube::config::Kubeconfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rvm_local::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Pair = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn decode(data: &str) -> Vec<u8> {
    serde_json::from_value::<ByteString>(data.into()).unwrap().0
}

fn authority(config: &Kubeconfig) -> CertificateDer<'static> {
    let cluster = config.clusters[0].cluster.clone().unwrap();
    CertificateDer::from_pem_slice(&decode(&cluster.certificate_authority_data.unwrap())).unwrap()
}

/// The client certificate in a kubeconfig.
fn client_pair(path: &std::path::Path) -> Pair {
    // Read as text, since the key is a secret to the Kubeconfig type.
    let text = std::fs::read_to_string(path).unwrap();
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(name))
            .unwrap();
        decode(line.trim())
    };
    let certificate = CertificateDer::from_pem_slice(&field("client-certificate-data:")).unwrap();
    (
        certificate,
        PrivateKeyDer::from_pem_slice(&field("client-key-data:")).unwrap(),
    )
}

/// Status code and body of a request in exactly these words; an error where TLS does not come about.
async fn ask(server: &Server, pair: Option<Pair>, request: &str) -> std::io::Result<(u16, String)> {
    let config = server.read_kubeconfig();
    let mut roots = RootCertStore::empty();
    roots.add(authority(&config)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = builder.with_root_certificates(roots);
    let tls = match pair {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let url = config.clusters[0].cluster.clone().unwrap().server.unwrap();
    let stream = TcpStream::connect(url.strip_prefix("https://").unwrap()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((
        code.unwrap_or(0),
        answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned(),
    ))
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n")
}

async fn code(server: &Server, pair: Option<Pair>, path: &str, headers: &str) -> u16 {
    ask(server, pair, &get(path, headers)).await.unwrap().0
}

#[tokio::test]
async fn without_a_certificate_only_health_is_answered() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(state.path());
    let host = "Host: 127.0.0.1\r\n";
    assert_eq!(code(&server, None, "/healthz", host).await, 200);
    assert_eq!(code(&server, None, "/livez", host).await, 200);
    assert_eq!(code(&server, None, "/readyz", host).await, 200);
    assert_eq!(code(&server, None, "/version", host).await, 401);
    assert_eq!(code(&server, None, "/apis", host).await, 401);
    let (status, body) = ask(&server, None, &get("/api/v1/nodes", host)).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["kind"], &body["reason"]),
        (401, &"Status".into(), &"Unauthorized".into())
    );
}

#[tokio::test]
async fn owner_of_the_kubeconfig_gets_in() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(state.path());
    let pair = || Some(client_pair(&server.kubeconfig));
    assert_eq!(
        code(&server, pair(), "/api/v1/nodes", "Host: localhost:1\r\n").await,
        200
    );
    assert_eq!(code(&server, pair(), "/nowhere", "Host: [::1]\r\n").await, 404);
}

#[tokio::test]
async fn certificate_of_another_authority_does_not_get_in() {
    let (state, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(state.path());
    let foreign = elsewhere.path().join("kubeconfig");
    Identity::open(elsewhere.path())
        .unwrap()
        .kubeconfig(&foreign, ([127, 0, 0, 1], 1).into())
        .unwrap();
    let answer = ask(
        &server,
        Some(client_pair(&foreign)),
        &get("/api/v1/nodes", "Host: localhost\r\n"),
    )
    .await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn foreign_host_and_origin_are_refused_even_to_the_owner() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(state.path());
    let pair = || Some(client_pair(&server.kubeconfig));
    assert_eq!(
        code(&server, pair(), "/api/v1/nodes", "Host: evil.example\r\n").await,
        403
    );
    let evil = "Host: localhost\r\nOrigin: https://evil.example\r\n";
    assert_eq!(code(&server, pair(), "/api/v1/nodes", evil).await, 403);
    assert_eq!(code(&server, None, "/healthz", evil).await, 403);
    assert_eq!(
        code(&server, None, "/healthz", "Host: rebound.example\r\n").await,
        403
    );
}

#[tokio::test]
async fn body_that_is_too_long_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(state.path());
    let body = format!("{{\"x\": \"{}\"}}", "y".repeat(rvm_local::limits::BODY_BYTES));
    let request = format!(
        "POST /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = ask(&server, Some(client_pair(&server.kubeconfig)), &request)
        .await
        .unwrap();
    assert_eq!(answer.0, 413);
}
