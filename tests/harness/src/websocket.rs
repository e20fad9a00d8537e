//! A websocket of the API, as the owner of a kubeconfig opens one.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::{HandshakeError, HandshakeRole};
use tungstenite::{Message, WebSocket};

use crate::certificates::Pair;
use crate::https::Server;
use crate::kubectl::Kubectl;

/// How long it may be silent.
const PATIENCE: Duration = Duration::from_secs(120);

/// An open websocket that speaks `plain.kubevirt.io`.
#[derive(Debug)]
pub struct Plain {
    socket: WebSocket<StreamOwned<ClientConnection, TcpStream>>,
    said: Vec<u8>,
}

// === impl Plain ===

impl Plain {
    /// Opens what is at this path, with the first user of the kubeconfig.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn open(kubectl: &Kubectl, path: &str) -> Result<Self> {
        let view = kubectl.ok(&["config", "view", "--raw", "--flatten", "-o", "json"])?;
        let config: Value = serde_json::from_str(&view)?;
        let server = config["clusters"][0]["cluster"]["server"]
            .as_str()
            .unwrap_or_default();
        let address = server.strip_prefix("https://").context("no https server")?;
        let host = address.rsplit_once(':').context("no port")?.0.to_owned();
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let tls = ClientConnection::new(Arc::new(tls(&config)?), ServerName::try_from(host)?)?;
        Self::over(tls, stream, address, path, &[])
    }

    /// Opens what is at this path of a server behind kube-apiserver, as kube-apiserver does for this user.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn behind(server: &Server<'_>, proxy: &Pair, user: &str, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(server.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(server.name.to_owned())?;
        let tls = ClientConnection::new(Arc::new(server.config(Some(proxy))?), name)?;
        let headers = [
            ("X-Remote-User", user),
            ("X-Remote-Group", "system:authenticated"),
        ];
        Self::over(tls, stream, server.name, path, &headers)
    }

    fn over(
        tls: ClientConnection,
        stream: TcpStream,
        host: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self> {
        let mut request = format!("wss://{host}{path}").into_client_request()?;
        let protocol = "plain.kubevirt.io".parse()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse()?);
        }
        let (socket, _) = tungstenite::client(request, StreamOwned::new(tls, stream))
            .map_err(|error| anyhow::anyhow!("{path}: {}", refusal(error)))?;
        Ok(Self {
            socket,
            said: Vec::new(),
        })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.send(Message::binary(bytes.to_vec()))?)
    }

    /// Waits until this was said, since it was last waited for something.
    ///
    /// # Errors
    /// It never was.
    pub fn expect(&mut self, text: &str) -> Result<()> {
        loop {
            let said = String::from_utf8_lossy(&self.said).into_owned();
            if let Some(at) = said.find(text) {
                self.said = said.as_bytes()[at + text.len()..].to_vec();
                return Ok(());
            }
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.said.extend_from_slice(&bytes),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(other) => bail!("{other:?} instead of {text:?} after {said:?}"),
                Err(error) => bail!("{error} instead of {text:?} after {said:?}"),
            }
        }
    }

    /// Reads the next so many bytes, since it was last waited for something; what comes beyond them is kept.
    ///
    /// # Errors
    /// There are not that many.
    pub fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.said.len() < count {
            match self.socket.read()? {
                Message::Binary(bytes) => self.said.extend_from_slice(&bytes),
                Message::Ping(_) | Message::Pong(_) => {}
                other => bail!("{other:?} after {} bytes", self.said.len()),
            }
        }
        let rest = self.said.split_off(count);
        Ok(std::mem::replace(&mut self.said, rest))
    }

    /// Reads until the other end is done; the code of its goodbye, if it said one.
    ///
    /// # Errors
    /// It is silent and stays.
    pub fn end(mut self) -> Result<Option<u16>> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => return Ok(frame.map(|frame| frame.code.into())),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    bail!("it stays open")
                }
                Err(_) => return Ok(None),
            }
        }
    }
}

/// Why there is no websocket, with what the server says besides its status.
fn refusal<R: HandshakeRole>(error: HandshakeError<R>) -> String {
    match error {
        HandshakeError::Failure(tungstenite::Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            format!("{} {}", response.status(), String::from_utf8_lossy(body))
        }
        other => other.to_string(),
    }
}

fn tls(config: &Value) -> Result<ClientConfig> {
    let pem = |value: &Value| -> Result<Vec<u8>> {
        let text = value.as_str().context("the kubeconfig holds no certificates")?;
        Ok(BASE64_STANDARD.decode(text)?)
    };
    let user = &config["users"][0]["user"];
    let mut roots = RootCertStore::empty();
    let authority = pem(&config["clusters"][0]["cluster"]["certificate-authority-data"])?;
    roots.add(CertificateDer::from_pem_slice(&authority)?)?;
    let chain = pem(&user["client-certificate-data"])?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?)
}
