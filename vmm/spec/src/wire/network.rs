//! The JSON form of [`Net`]. Documents from before there were other networks than taps are documents of today.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::WireError;
use crate::{Net, NetWish, Network};

/// A [`Net`], or what is wished of it, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NetDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tap: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passt: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    queues: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    vhost: bool,
}

impl TryFrom<NetDocument> for NetWish {
    type Error = WireError;

    fn try_from(document: NetDocument) -> Result<Self, WireError> {
        let network = match (document.tap, document.passt) {
            (Some(tap), None) => Network::Tap(tap.parse().map_err(WireError::Net)?),
            (None, Some(path)) => Network::Passt(path),
            _ => return Err(WireError::Network),
        };
        let mac = document.mac.as_deref().map(str::parse).transpose();
        Ok(Self {
            network,
            mac: mac.map_err(WireError::Net)?,
            queues: document.queues,
            mtu: document.mtu,
            vhost: document.vhost,
        })
    }
}

impl From<&Net> for NetDocument {
    fn from(net: &Net) -> Self {
        Self::from(&NetWish {
            network: net.network.clone(),
            mac: Some(net.mac),
            queues: net.queues,
            mtu: net.mtu,
            vhost: net.vhost,
        })
    }
}

impl From<&NetWish> for NetDocument {
    fn from(wish: &NetWish) -> Self {
        let (tap, passt) = match &wish.network {
            Network::Tap(tap) => (Some(tap.as_str().to_owned()), None),
            Network::Passt(path) => (None, Some(path.clone())),
        };
        Self {
            tap,
            passt,
            mac: wish.mac.map(|mac| mac.to_string()),
            queues: wish.queues,
            mtu: wish.mtu,
            vhost: wish.vhost,
        }
    }
}

const fn one() -> u8 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_one(count: &u8) -> bool {
    *count == 1
}
