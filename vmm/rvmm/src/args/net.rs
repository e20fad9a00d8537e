//! `--net tap=NAME|passt=SOCKET[,OPTION…]`.

use anyhow::{Context, bail};
use rvmm_spec::{NetWish, Network};

/// What `--help` says of the value.
pub const VALUE: &str = "tap=NAME|passt=SOCKET[,OPTION...]";

/// What `--help` says of the option.
pub const HELP: &str = "\
A network interface on a tap that exists, or on a passt that listens at a Unix socket; may be repeated. Options: \
mac=MAC, queues=N (pairs, for a tap made with multi_queue), mtu=N (told to the guest), \
vhost=on|off (on: the host's kernel moves a tap's frames; under KVM)";

/// Reads the option's value.
///
/// # Errors
/// The word that is not known or not possible.
pub fn parse(text: &str) -> anyhow::Result<NetWish> {
    let (mut network, mut mac, mut queues, mut mtu, mut vhost) = (None, None, 1, None, false);
    for part in text.split(',') {
        let new = match part.split_once('=') {
            Some(("tap", name)) => Some(Network::Tap(name.parse()?)),
            Some(("passt", path)) => Some(Network::Passt(path.into())),
            _ => None,
        };
        match part.split_once('=') {
            _ if new.is_some() && network.is_some() => bail!("has two networks"),
            _ if new.is_some() => network = new,
            Some(("mac", address)) => mac = Some(address.parse()?),
            Some(("queues", count)) => queues = count.parse().context("queues is not a number up to 255")?,
            Some(("mtu", bytes)) => mtu = Some(bytes.parse().context("mtu is not a number up to 65535")?),
            Some(("vhost", "off")) => vhost = false,
            _ if part == "vhost" || part == "vhost=on" => vhost = true,
            _ => bail!(
                "'{part}' is not known; 'tap=NAME', 'passt=SOCKET', 'mac=MAC', 'queues=N', 'mtu=N' and 'vhost=on|off' are"
            ),
        }
    }
    let network = network.context("needs tap=NAME or passt=SOCKET")?;
    Ok(NetWish {
        network,
        mac,
        queues,
        mtu,
        vhost,
    })
}
