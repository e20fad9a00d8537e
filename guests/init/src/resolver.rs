//! `/etc/resolv.conf`, from what each of the two protocols has told so far.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

const FOLDER: &str = "/etc";
const FILE: &str = "/etc/resolv.conf";

/// The most name servers that a `resolv.conf` is read for.
const MAX_SERVERS: usize = 3;

/// What is known of names.
#[derive(Debug, Default)]
pub struct Resolver(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    domain: Option<String>,
}

impl Resolver {
    /// Notes what DHCP has told.
    pub fn learn(&self, servers: &[Ipv4Addr], domain: Option<String>) -> io::Result<()> {
        self.note(|known| {
            known.v4 = servers.to_vec();
            known.domain = domain;
        })
    }

    /// Notes what DHCPv6 has told.
    pub fn learn_v6(&self, servers: &[Ipv6Addr]) -> io::Result<()> {
        self.note(|known| known.v6 = servers.to_vec())
    }

    fn note(&self, note: impl FnOnce(&mut Known)) -> io::Result<()> {
        // What one protocol told is whole, whatever became of the other's thread.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut known);
        let Some(text) = known.text() else {
            return Ok(());
        };
        fs::create_dir_all(FOLDER)?;
        // A link to where some program would have put it leads nowhere here.
        fs::remove_file(FILE).ok();
        fs::write(FILE, text)
    }
}

impl Known {
    /// The file; none where nobody is known who could be asked, so that an image's own stays.
    fn text(&self) -> Option<String> {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        let servers = v4
            .chain(self.v6.iter().copied().map(IpAddr::V6))
            .take(MAX_SERVERS);
        let servers: String = servers.map(|server| format!("nameserver {server}\n")).collect();
        let search = self.domain.iter().map(|domain| format!("search {domain}\n"));
        (!servers.is_empty()).then(|| search.chain([servers.clone()]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_protocols_told_stands_there_bounded_and_an_images_own_stays_without_any() {
        let mut known = Known::default();
        assert_eq!(known.text(), None);
        known.v6 = vec!["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(known.text().unwrap(), "nameserver fd00::1\nnameserver fd00::2\n");
        known.v4 = vec![[1, 1, 1, 1].into(), [2, 2, 2, 2].into()];
        known.domain = Some("a.b".to_owned());
        let text = "search a.b\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver fd00::1\n";
        assert_eq!(known.text().unwrap(), text);
    }
}
