//! Finding the API: the URL that was given, the cluster of a kubeconfig, or this machine's local mode.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rvm_proto::MAX_MESSAGE;
use rvm_proto::v1::images_client::ImagesClient;
use rvm_proto::v1::machines_client::MachinesClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

use crate::args::{Global, is_plugin};
use crate::cluster::Cluster;
use crate::credentials::{Bearer, Credentials};
use crate::paths;

/// A client of the API.
pub type Client = MachinesClient<Link>;

/// What calls go through.
pub type Link = InterceptedService<Channel, Bearer>;

/// How long a server may take to answer its door.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the API is.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tls(Uri),
    /// Plain text never leaves the machine.
    Loopback(Uri),
}

/// Where a machine's console and ports are.
#[derive(Clone)]
pub enum Door {
    /// rvm.v1, which has more to give: what was said to others, several viewers, half-closed connections.
    Rvm(Client),
    /// The Kubernetes API, which needs no more than kubectl does.
    Kubernetes(Cluster),
}

// === impl Door ===

impl Door {
    /// The one that is meant: a server that is named, then a kubeconfig that is, or that kubectl has; then this machine's own,
    /// and where that does not run, the cluster that kubectl speaks to.
    pub async fn find(global: &Global) -> Result<Self> {
        if global.server.is_none() && means_kubernetes(global) {
            return Ok(Self::Kubernetes(Cluster::of(global).await?));
        }
        match connect(global).await {
            Ok(client) => Ok(Self::Rvm(client)),
            Err(_) if global.server.is_none() && paths::kubectls_own().is_some() => {
                Ok(Self::Kubernetes(Cluster::of(global).await?))
            }
            Err(why) => Err(why),
        }
    }

    /// The same, or the one for objects that rvm.v1 has not, or for what it cannot be asked.
    pub async fn find_for(global: &Global, beyond: Option<&str>) -> Result<Self> {
        let Some(what) = beyond else {
            return Self::find(global).await;
        };
        if global.server.is_some() {
            bail!("rvm.v1 has no {what}; name a kubeconfig (--kubeconfig, KUBECONFIG) instead of a server");
        }
        Ok(Self::Kubernetes(Cluster::of(global).await?))
    }
}

fn means_kubernetes(global: &Global) -> bool {
    let is_set = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    is_set || global.kubeconfig.is_some() || global.context.is_some() || is_plugin()
}

/// Connects to the API.
pub async fn connect(global: &Global) -> Result<Client> {
    Ok(MachinesClient::new(link(global).await?)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

/// Connects to what the API says of images.
pub async fn connect_to_images(global: &Global) -> Result<ImagesClient<Link>> {
    Ok(ImagesClient::new(link(global).await?).max_decoding_message_size(MAX_MESSAGE))
}

async fn link(global: &Global) -> Result<Link> {
    let (channel, bearer) = match &global.server {
        Some(url) => match Address::parse(url)? {
            Address::Unix(path) => (unix(&path).await?, Bearer::default()),
            Address::Tls(uri) => {
                let Credentials { identity, bearer } = Credentials::of(global).await?;
                let endpoint = Endpoint::from(uri).tls_config(tls(global, identity)?)?;
                (dial(endpoint, url).await?, bearer)
            }
            // A token is shown to nobody in plain text.
            Address::Loopback(uri) => (dial(Endpoint::from(uri), url).await?, Bearer::default()),
        },
        None => (unix(&paths::socket()?).await?, Bearer::default()),
    };
    Ok(InterceptedService::new(channel, bearer))
}

impl Address {
    fn parse(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("unix://") {
            if !path.starts_with('/') {
                bail!("{url:?} is no address: a socket's path is absolute, as in unix:///run/rvm/rvm.sock");
            }
            return Ok(Self::Unix(path.into()));
        }
        let uri: Uri = url
            .parse()
            .map_err(|_| anyhow!("{url:?} is no address; use unix:///path or https://host:port"))?;
        let host = uri.host().unwrap_or_default();
        let loopback = host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse()
                .is_ok_and(|host: std::net::IpAddr| host.is_loopback());
        match uri.scheme_str() {
            Some("https") => Ok(Self::Tls(uri)),
            Some("http") if loopback => Ok(Self::Loopback(uri)),
            Some("http") => bail!("{url:?} would send everything in plain text; use https://"),
            _ => bail!("{url:?} is no address; use unix:///path or https://host:port"),
        }
    }
}

/// The certificates of both ends. The server's CA must be named: a machine's console is not trusted to whoever some
/// public CA vouches for.
fn tls(global: &Global, identity: Option<Identity>) -> Result<ClientTlsConfig> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let ca = global
        .ca
        .as_deref()
        .context("https:// needs --ca (or RVM_CA): who signed the server's certificate")?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    Ok(match identity {
        Some(identity) => tls.identity(identity),
        None => tls,
    })
}

async fn unix(path: &Path) -> Result<Channel> {
    // Asked plainly first, since the reason is lost in what tonic says of it.
    match UnixStream::connect(path) {
        Ok(_) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            bail!(
                "nothing listens on {}; start `rvm-handler --local`, or name a server with --server or RVM_SERVER",
                path.display()
            )
        }
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    }
    let url = format!("unix://{}", path.display());
    dial(Endpoint::try_from(url.clone())?, &url).await
}

async fn dial(endpoint: Endpoint, url: &str) -> Result<Channel> {
    endpoint
        .connect_timeout(CONNECT)
        .connect()
        .await
        .with_context(|| format!("cannot reach {url}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_a_server_and_this_machine_are_addresses() {
        assert_eq!(
            Address::parse("unix:///run/rvm.sock").unwrap(),
            Address::Unix("/run/rvm.sock".into())
        );
        assert!(matches!(
            Address::parse("https://vm.example:443").unwrap(),
            Address::Tls(_)
        ));
        assert!(matches!(
            Address::parse("http://127.0.0.1:9").unwrap(),
            Address::Loopback(_)
        ));
        assert!(matches!(
            Address::parse("http://[::1]:9").unwrap(),
            Address::Loopback(_)
        ));
        assert!(matches!(
            Address::parse("http://localhost:9").unwrap(),
            Address::Loopback(_)
        ));
    }

    #[test]
    fn plain_text_to_another_machine_is_refused() {
        let error = Address::parse("http://localhost.example:80")
            .unwrap_err()
            .to_string();
        assert!(error.contains("plain text"), "{error}");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let refused = ["", "unix://rvm.sock", "ftp://host", "host:443", "https://"];
        assert!(refused.iter().all(|url| Address::parse(url).is_err()));
    }
}
