//! What QEMU counts of a machine's disks and hears of its guest's memory: questions, and what the answers come to.
//!
//! ```text
//!   someone asks ─► query-blockstats, and of a balloon its guest's figures ─► all answers are there ─► everyone who asked is told
//! ```
//!
//! The guest's figures are those that came last. The first question has QEMU ask the guest for new ones from then on, every
//! [`PERIOD`]; a machine that nobody watches over is not woken for that.

use std::collections::BTreeMap;

use rvmm_control::Stats;
use serde::Deserialize;
use serde_json::{Value, json};

/// What a question about disks carries.
pub const DISKS: &str = "disks";
/// What a question about the guest's memory carries.
pub const MEMORY: &str = "memory";

/// The balloon's name among QEMU's devices.
pub const BALLOON: &str = "balloon";

/// Seconds between two of QEMU's questions to a balloon's guest: as libvirt's users set it.
const PERIOD: u32 = 10;

/// How QEMU's balloon begins the names of its guest's figures.
const STAT: &str = "stat-";

/// Figures that have another name in QEMU than under KVM.
const OTHERS: [(&str, &str); 2] = [
    ("htlb-pgalloc", "hugetlb-allocations"),
    ("htlb-pgfail", "hugetlb-failures"),
];

/// Told what was counted.
pub(crate) type OnCounted = Box<dyn FnOnce(Stats) + Send>;

/// A question that is on its way, and who wants to know.
#[derive(Default)]
pub(crate) struct Counting {
    who: Vec<OnCounted>,
    /// Answers that are still to come.
    missing: usize,
    counted: Stats,
    /// QEMU asks the guest by itself.
    is_periodic: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Disk {
    node_name: Option<String>,
    stats: DiskStats,
}

/// `BlockDeviceStats` of QEMU.
#[derive(Deserialize)]
struct DiskStats {
    rd_bytes: u64,
    wr_bytes: u64,
    rd_operations: u64,
    wr_operations: u64,
    flush_operations: u64,
    rd_total_time_ns: u64,
    wr_total_time_ns: u64,
    flush_total_time_ns: u64,
}

#[derive(Deserialize)]
struct GuestStats {
    stats: BTreeMap<String, u64>,
}

// === impl Counting ===

impl Counting {
    /// Nobody waits for answers.
    pub(crate) fn is_over(&self) -> bool {
        self.missing == 0
    }

    /// The commands that ask for all there is, for these; those who ask meanwhile have to wait.
    pub(crate) fn begin(&mut self, who: Vec<OnCounted>, has_balloon: bool) -> Vec<Value> {
        self.who = who;
        self.counted = Stats::default();
        let mut commands = vec![json!({"execute": "query-blockstats", "id": DISKS})];
        if has_balloon {
            let path = format!("/machine/peripheral/{BALLOON}");
            let what = json!({"path": path, "property": "guest-stats"});
            commands.push(json!({"execute": "qom-get", "arguments": what, "id": MEMORY}));
            if !self.is_periodic {
                self.is_periodic = true;
                let what = json!({"path": path, "property": "guest-stats-polling-interval", "value": PERIOD});
                commands.push(json!({"execute": "qom-set", "arguments": what, "id": MEMORY}));
            }
        }
        self.missing = commands.len();
        commands
    }

    /// An answer to one of the commands. `name` is what a machine's device is called that QEMU calls so. What QEMU refuses, or does
    /// not know, is left out.
    pub(crate) fn answered(&mut self, answer: &Value, name: impl Fn(&str) -> Option<String>) {
        if let Ok(disks) = Vec::<Disk>::deserialize(answer) {
            for disk in disks {
                let node = disk.node_name.as_deref();
                if let Some(name) = node.and_then(&name) {
                    disk.stats.add_to(&name, &mut self.counted.counters);
                }
            }
        } else if let Ok(guest) = GuestStats::deserialize(answer) {
            let known = guest.stats.into_iter().filter(|(_, value)| *value != u64::MAX);
            let named = known.filter_map(|(name, value)| {
                let name = name.strip_prefix(STAT)?;
                let name = OTHERS
                    .iter()
                    .find(|(theirs, _)| *theirs == name)
                    .map_or(name, |(_, ours)| ours);
                Some((format!("guest.{name}"), value))
            });
            self.counted.gauges.extend(named);
        }
        self.missing = self.missing.saturating_sub(1);
        if self.missing == 0 {
            let counted = std::mem::take(&mut self.counted);
            let who = std::mem::take(&mut self.who);
            who.into_iter().for_each(|tell| tell(counted.clone()));
        }
    }
}

// === impl DiskStats ===

impl DiskStats {
    fn add_to(&self, disk: &str, counters: &mut BTreeMap<String, u64>) {
        let all = [
            ("read-requests", self.rd_operations),
            ("read-bytes", self.rd_bytes),
            ("read-nanoseconds", self.rd_total_time_ns),
            ("write-requests", self.wr_operations),
            ("write-bytes", self.wr_bytes),
            ("write-nanoseconds", self.wr_total_time_ns),
            ("flush-requests", self.flush_operations),
            ("flush-bytes", 0),
            ("flush-nanoseconds", self.flush_total_time_ns),
        ];
        counters.extend(all.map(|(what, value)| (format!("disk.{disk}.{what}"), value)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn name(node: &str) -> Option<String> {
        node.starts_with("disk").then(|| node.to_owned())
    }

    #[test]
    fn everyone_who_asked_hears_once_when_all_answers_are_there() {
        let (say, heard) = mpsc::channel();
        let mut counting = Counting::default();
        let tell: OnCounted = Box::new(move |counted| say.send(counted).unwrap());
        assert_eq!(counting.begin(vec![tell], true).len(), 3);
        // As QEMU 10.0.13 sent it, shortened.
        let disks = json!([{"device": "", "node-name": "disk0", "qdev": "/x", "stats": {
            "rd_bytes": 1, "wr_bytes": 2, "rd_operations": 3, "wr_operations": 4, "flush_operations": 5,
            "rd_total_time_ns": 6, "wr_total_time_ns": 7, "flush_total_time_ns": 8, "account_failed": true}},
            {"device": "", "node-name": "#block1", "stats": {
            "rd_bytes": 1, "wr_bytes": 2, "rd_operations": 3, "wr_operations": 4, "flush_operations": 5,
            "rd_total_time_ns": 6, "wr_total_time_ns": 7, "flush_total_time_ns": 8}}]);
        counting.answered(&disks, name);
        let memory = json!({"stats": {"stat-free-memory": 9, "stat-htlb-pgfail": 1, "stat-swap-in": u64::MAX}, "last-update": 1});
        counting.answered(&memory, name);
        assert!(heard.try_recv().is_err());
        counting.answered(&json!({}), name);
        let counted = heard.try_recv().unwrap();
        assert_eq!(counted.counters.len(), 9);
        assert_eq!(counted.counters["disk.disk0.write-nanoseconds"], 7);
        assert_eq!(
            counted.gauges,
            BTreeMap::from([
                ("guest.free-memory".to_owned(), 9),
                ("guest.hugetlb-failures".to_owned(), 1)
            ])
        );
        assert!(counting.is_over());
        // QEMU goes on to ask the guest by itself.
        assert_eq!(counting.begin(Vec::new(), true).len(), 2);
        assert_eq!(counting.begin(Vec::new(), false).len(), 1);
    }
}
