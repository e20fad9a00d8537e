//! What was asked of kube-apiserver, and by whom, by its own audit log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

/// Most bytes of one request's line.
const MAX_LINE: u64 = 1 << 20;

/// The log of a cluster, and how far it was read.
#[derive(Debug)]
pub struct Audit {
    log: PathBuf,
    read: u64,
}

/// How often each user asked for each thing: `patch virtualmachineinstances`.
#[derive(Debug, Default)]
pub struct Requests(BTreeMap<(String, String), u64>);

// === impl Audit ===

impl Audit {
    /// Of a cluster that was started with one.
    pub fn new(log: PathBuf) -> Self {
        Self { log, read: 0 }
    }

    /// The requests since this was last called.
    pub fn since(&mut self) -> Result<Requests> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut file = BufReader::new(file);
        let mut requests = Requests::default();
        loop {
            let mut line = Vec::new();
            let count = file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
            // What is being written now is for the next time.
            if line.last() != Some(&b'\n') {
                return Ok(requests);
            }
            self.read += u64::try_from(count)?;
            requests.add(&serde_json::from_slice(&line)?);
        }
    }
}

// === impl Requests ===

impl Requests {
    fn add(&mut self, event: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let verb = text(&event["verb"]);
        // A watch is there twice: when it begins, and when it ends, which may have been asked for long ago.
        let begins = event["stage"] == "ResponseStarted";
        if begins != (verb == "watch") {
            return;
        }
        let mut what = format!("{verb} {}", text(&event["objectRef"]["resource"]));
        if let Some(part) = event["objectRef"]["subresource"].as_str() {
            what = format!("{what}/{part}");
        }
        *self
            .0
            .entry((text(&event["user"]["username"]), what))
            .or_default() += 1;
    }

    /// All of a user.
    pub fn of(&self, user: &str) -> u64 {
        let own = self.0.iter().filter(|((who, _), _)| who == user);
        own.map(|(_, count)| count).sum()
    }

    /// All of a user that change something.
    pub fn changes_of(&self, user: &str) -> u64 {
        let reads = ["get ", "list ", "watch "];
        let own = self
            .0
            .iter()
            .filter(|((who, what), _)| who == user && !reads.iter().any(|read| what.starts_with(read)));
        own.map(|(_, count)| count).sum()
    }

    /// Each kind of a user's, with how often, the most frequent first.
    pub fn kinds_of(&self, user: &str) -> String {
        let own = self.0.iter().filter(|((who, _), _)| who == user);
        let mut kinds: Vec<(u64, &str)> = own.map(|((_, what), count)| (*count, what.as_str())).collect();
        kinds.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let kinds: Vec<String> = kinds
            .iter()
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        kinds.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LINES: &str = r#"{"stage":"ResponseComplete","verb":"patch","user":{"username":"h"},"objectRef":{"resource":"vmis","subresource":"status"}}
{"stage":"ResponseStarted","verb":"watch","user":{"username":"h"},"objectRef":{"resource":"vmis"}}
{"stage":"ResponseComplete","verb":"watch","user":{"username":"h"},"objectRef":{"resource":"vmis"}}
{"stage":"ResponseComplete","verb":"get","user":{"username":"a"},"objectRef":{"resource":"nodes"}}
"#;

    #[test]
    fn each_request_counts_once_for_who_made_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(LINES.as_bytes()).unwrap();
        let mut audit = Audit::new(file.path().to_owned());
        let requests = audit.since().unwrap();
        assert_eq!(requests.kinds_of("h"), "1 patch vmis/status, 1 watch vmis");
        assert_eq!((requests.of("h"), requests.of("a"), requests.of("b")), (2, 1, 0));
        assert_eq!((requests.changes_of("h"), requests.changes_of("a")), (1, 0));
        // Only what is new, and whole.
        file.write_all(br#"{"stage":"ResponseComplete""#).unwrap();
        assert_eq!(audit.since().unwrap().of("h"), 0);
        let rest = r#","verb":"list","user":{"username":"h"}}"#;
        writeln!(file, "{rest}").unwrap();
        assert_eq!(audit.since().unwrap().kinds_of("h"), "1 list ");
    }
}
