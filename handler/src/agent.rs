//! What passes between us and guests' agents: which system a guest is, what it calls its network interfaces, and the keys and passwords
//! that it is to set.
//!
//! ```text
//!   seen: the agent listens ─► nothing known, or known for a minute ─► asked, beside the loop ─► kept ─► its VMI is looked at again
//! ```
//!
//! All of it is the guest's word, told in the status and trusted nowhere: texts and lists are cut to [`MAX_WORD`], [`MAX_LINKS`] and
//! [`MAX_ADDRESSES`]. What was heard is kept in memory; a handler that has just started asks again, and until then lets the
//! status stand.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rvm_types::status::{GuestOsInfo, InterfaceStatus};
use rvm_types::{VirtualMachineInstance, VirtualMachineInstanceStatus};
use rvmm_control::{Client, ClientError, Info};
use serde::Deserialize;
use serde_json::Value;

use crate::credentials::{self, Order, Outcome};
use crate::process::watch::Watch;
use crate::steps::chain;
use crate::vm::VmId;
use crate::volumes::objects::Objects;

/// How long what a guest said holds before it is asked again.
const HOLDS: Duration = Duration::from_secs(50);

/// The same of one that is frozen, which may be thawed at any moment, and not by us.
const FROZEN_HOLDS: Duration = Duration::from_secs(5);

/// What a frozen guest says of its file systems; also what the status says then.
const FROZEN: &str = "frozen";

/// Longest text of a guest's in a status, in characters.
const MAX_WORD: usize = 128;

/// Most interfaces of a guest that are told.
const MAX_LINKS: usize = 16;

/// Most addresses of one of them.
const MAX_ADDRESSES: usize = 16;

/// The loop-back, which is nobody's business.
const LOOPBACK: &str = "lo";

/// Who told of an interface: we, the guest, or both.
const OF_GUEST: &str = "guest-agent";
const OF_BOTH: &str = "domain, guest-agent";

/// What a guest said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Nothing is written to its file systems.
    frozen: bool,
    os: Option<GuestOsInfo>,
    links: Vec<Link>,
    /// Whether it has set what it was to set, if that was anything.
    pub credentials: Option<Outcome>,
}

/// An interface as the guest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: String,
    mac: Option<String>,
    addresses: Vec<IpAddr>,
}

/// By what a machine's agent is asked.
#[derive(Clone)]
pub struct Line {
    /// rvmm's.
    pub socket: PathBuf,
    /// Where Secrets are.
    pub client: kube::Client,
    /// Told that there is news.
    pub watch: Watch,
}

/// What the guests of this node said.
#[derive(Debug, Clone, Default)]
pub struct Agents(Arc<Mutex<HashMap<String, Known>>>);

#[derive(Debug, Default)]
struct Known {
    facts: Option<Facts>,
    /// What it has set.
    done: Vec<Order>,
    asked: Option<Instant>,
    /// A task is about to hear more.
    asking: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OsAnswer {
    id: Option<String>,
    name: Option<String>,
    pretty_name: Option<String>,
    version: Option<String>,
    version_id: Option<String>,
    kernel_release: Option<String>,
    kernel_version: Option<String>,
    machine: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LinkAnswer {
    name: String,
    hardware_address: Option<String>,
    #[serde(default)]
    ip_addresses: Vec<AddressAnswer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct AddressAnswer {
    ip_address: String,
}

// === impl Agents ===

impl Agents {
    /// What is known of a living machine's guest; where that is old or nothing, it is asked, and the VMI looked at again if it
    /// says something new.
    pub fn of(&self, id: &VmId, vmi: &VirtualMachineInstance, info: &Info, line: Line) -> Option<Facts> {
        let mut map = self.map();
        if !info.agent {
            map.remove(&id.uid);
            return None;
        }
        let known = map.get(&id.uid);
        let lately = |asked: Instant| asked.elapsed() < HOLDS;
        let holds = |known: &Known| known.asking || known.asked.is_some_and(lately);
        let facts = known.and_then(|known| known.facts.clone());
        if !known.is_some_and(holds) {
            let known = map.entry(id.uid.clone()).or_default();
            let now = Instant::now();
            (known.asking, known.asked) = (true, Some(now));
            let done = known.done.clone();
            tokio::spawn(self.clone().ask(id.clone(), vmi.clone(), line, now, done));
        }
        facts
    }

    /// Asks a guest, and tells it what it is to set.
    async fn ask(
        self,
        id: VmId,
        vmi: VirtualMachineInstance,
        line: Line,
        asked: Instant,
        mut done: Vec<Order>,
    ) {
        let orders = credentials::orders(&vmi, &Objects::of(&line.client, &id.namespace)).await;
        let socket = line.socket;
        let talk = tokio::task::spawn_blocking(move || {
            let heard = Client::connect(&socket).and_then(|mut client| {
                let facts = Facts::ask(&mut client)?;
                if facts.frozen {
                    return Ok(facts);
                }
                Ok(facts.with(credentials::carry_out(&mut client, orders, &mut done)))
            });
            (heard, done)
        });
        // It is interrupted only when we end.
        let Ok((heard, done)) = talk.await else { return };
        if let Err(error) = &heard {
            tracing::debug!(vm = %id, uid = id.uid, error = chain(error), "its guest agent says nothing");
        }
        let frozen = heard.as_ref().is_ok_and(|facts| facts.frozen);
        if self.note(&id, asked, heard.ok(), done) {
            line.watch.wake(&id);
        }
        if frozen {
            tokio::time::sleep(FROZEN_HOLDS).await;
            self.ask_anew(&id.uid);
            line.watch.wake(&id);
        }
    }

    /// What is known of a guest may be so no longer.
    pub fn ask_anew(&self, uid: &str) {
        if let Some(known) = self.map().get_mut(uid) {
            known.asked = None;
            known.asking = false;
        }
    }

    /// Forgets all VMIs but these.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.map().retain(|uid, _| keep(uid));
    }

    /// Keeps what was heard; tells whether it is new.
    fn note(&self, id: &VmId, asked: Instant, heard: Option<Facts>, done: Vec<Order>) -> bool {
        let mut map = self.map();
        let known = map.get_mut(&id.uid);
        // Another agent may have come meanwhile, or none.
        let Some(known) = known.filter(|known| known.asked == Some(asked)) else {
            return false;
        };
        known.asking = false;
        known.done = done;
        // A frozen one does not say the rest.
        let heard = heard.map(|heard| match (&known.facts, heard.frozen) {
            (Some(facts), true) => Facts {
                frozen: true,
                ..facts.clone()
            },
            _ => heard,
        });
        let news = heard.is_some() && heard != known.facts;
        known.facts = heard.or(known.facts.take());
        news
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // Every entry is whole, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Facts ===

impl Facts {
    /// Asks a guest. Blocks, until its agent answers or the machine does not.
    fn ask(client: &mut Client) -> Result<Self, ClientError> {
        let mut ask = |command| match client.ask_agent(command, None) {
            Ok(said) => Ok(said),
            // An agent need not know everything.
            Err(ClientError::Refused(_)) => Ok(Value::Null),
            Err(error) => Err(error),
        };
        if ask("guest-fsfreeze-status")? == FROZEN {
            return Ok(Self {
                frozen: true,
                ..Self::default()
            });
        }
        let os = ask("guest-get-osinfo")?;
        let links = ask("guest-network-get-interfaces")?;
        Ok(Self::of(os, links))
    }

    /// What can be understood of a guest's words.
    fn of(os: Value, links: Value) -> Self {
        let links: Vec<LinkAnswer> = serde_json::from_value(links).unwrap_or_default();
        let told = links.into_iter().filter(|link| link.name != LOOPBACK);
        Self {
            frozen: false,
            os: serde_json::from_value(os).ok().map(os_info),
            links: told.take(MAX_LINKS).map(link).collect(),
            credentials: None,
        }
    }

    /// With what came of the credentials that it was to set.
    #[must_use]
    pub fn with(self, credentials: Option<Outcome>) -> Self {
        Self { credentials, ..self }
    }

    /// Puts it into a status that has the interfaces as we made them.
    pub fn tell(&self, status: &mut VirtualMachineInstanceStatus) {
        status.fs_freeze_status = self.frozen.then(|| FROZEN.to_owned());
        status.guest_os_info.clone_from(&self.os);
        for link in &self.links {
            let mut ours = status.interfaces.iter_mut();
            match ours.find(|ours| ours.mac.is_some() && ours.mac == link.mac) {
                // Others reach the guest by our addresses, whatever it has itself.
                Some(ours) => {
                    ours.interface_name = Some(link.name.clone());
                    ours.info_source = Some(OF_BOTH.to_owned());
                }
                None => status.interfaces.push(link.status()),
            }
        }
    }
}

impl Link {
    fn status(&self) -> InterfaceStatus {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        InterfaceStatus {
            interface_name: Some(self.name.clone()),
            ip_address: addresses.first().cloned(),
            ip_addresses: addresses,
            mac: self.mac.clone(),
            info_source: Some(OF_GUEST.to_owned()),
            ..InterfaceStatus::default()
        }
    }
}

fn os_info(said: OsAnswer) -> GuestOsInfo {
    let word = |said: Option<String>| said.map(|said| cut(&said));
    GuestOsInfo {
        id: word(said.id),
        name: word(said.name),
        pretty_name: word(said.pretty_name),
        version: word(said.version),
        version_id: word(said.version_id),
        kernel_release: word(said.kernel_release),
        kernel_version: word(said.kernel_version),
        machine: word(said.machine),
        ..GuestOsInfo::default()
    }
}

fn link(said: LinkAnswer) -> Link {
    let addresses = said.ip_addresses.into_iter().take(MAX_ADDRESSES);
    Link {
        name: cut(&said.name),
        mac: said.hardware_address.map(|mac| cut(&mac.to_ascii_lowercase())),
        addresses: addresses
            .filter_map(|said| said.ip_address.parse().ok())
            .collect(),
    }
}

/// A guest's text, on one line and not longer than anybody would read.
fn cut(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(MAX_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(facts: &Facts) -> Value {
        let mut status = VirtualMachineInstanceStatus {
            interfaces: vec![InterfaceStatus {
                name: Some("default".into()),
                mac: Some("02:00:00:00:00:01".into()),
                ip_address: Some("10.244.0.2".into()),
                info_source: Some("domain".into()),
                ..InterfaceStatus::default()
            }],
            ..VirtualMachineInstanceStatus::default()
        };
        facts.tell(&mut status);
        serde_json::to_value(status).unwrap()
    }

    #[test]
    fn a_guest_names_its_system_and_our_interface_and_adds_its_own() {
        let os = json!({"id": "debian", "pretty-name": "Debian 13", "kernel-release": "6.12", "new": 1});
        let address = |text: &str| json!({"ip-address-type": "ipv4", "ip-address": text, "prefix": 24});
        let links = json!([
            {"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [address("127.0.0.1")]},
            {"name": "eth0", "hardware-address": "02:00:00:00:00:01", "ip-addresses": [address("10.0.2.2")]},
            {"name": "docker0", "hardware-address": "02:42:00:00:00:01", "ip-addresses": [address("172.17.0.1"), address("none")]},
        ]);
        let expected = json!({
            "guestOSInfo": {"id": "debian", "prettyName": "Debian 13", "kernelRelease": "6.12"},
            "interfaces": [
                {"name": "default", "mac": "02:00:00:00:00:01", "ipAddress": "10.244.0.2", "interfaceName": "eth0", "infoSource": "domain, guest-agent"},
                {"interfaceName": "docker0", "mac": "02:42:00:00:00:01", "ipAddress": "172.17.0.1", "ipAddresses": ["172.17.0.1"], "infoSource": "guest-agent"},
            ],
        });
        assert_eq!(told(&Facts::of(os, links)), expected);
    }

    #[test]
    fn whatever_a_guest_says_little_of_it_is_told() {
        let link = json!({"name": "x".repeat(9999), "ip-addresses": vec![json!({"ip-address": "::1"}); 99]});
        let facts = Facts::of(json!({"name": "y\u{1b}".repeat(9999)}), json!(vec![link; 99]));
        let told = told(&facts).to_string();
        assert!(told.len() < 8 << 10 && !told.contains("u001b"), "{}", told.len());
        assert_eq!(Facts::of(json!("no"), json!({"a": 1})), Facts::default());
    }

    #[test]
    fn news_are_told_once_and_silence_changes_nothing() {
        let agents = Agents::default();
        let id = crate::sample::id();
        let heard = || Some(Facts::default());
        let (now, later) = (Instant::now(), Instant::now() + HOLDS);
        let note = |heard| agents.note(&id, now, heard, Vec::new());
        assert!(!note(heard()), "it is gone");
        let asked_at = |asked| Known {
            asked: Some(asked),
            ..Known::default()
        };
        agents.map().insert(id.uid.clone(), asked_at(later));
        assert!(!note(heard()), "it is another");
        agents.map().insert(id.uid.clone(), asked_at(now));
        assert!(note(heard()));
        assert!(!note(heard()) && !note(None));
        assert_eq!(agents.map()[&id.uid].facts, heard());
    }
}
