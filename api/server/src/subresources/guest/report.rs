//! A guest's words in KubeVirt's form. All of it is what the guest says of itself: cut to what anybody would read, and what cannot be
//! understood is left out.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::agent::Command;

/// Longest text that is passed on, in characters.
const MAX_WORD: usize = 256;
/// Most commands, users and file systems, and disks of one file system, that are passed on.
const MAX_ITEMS: usize = 256;

/// What an agent said to all that it was asked; null where it did not know.
#[derive(Debug, Default)]
pub(super) struct Heard {
    info: Value,
    host_name: Value,
    system: Value,
    time_zone: Value,
    users: Value,
    file_systems: Value,
}

#[derive(Debug, Default, Deserialize)]
struct Info {
    #[serde(default)]
    version: String,
    #[serde(default)]
    supported_commands: Vec<Supported>,
}

#[derive(Debug, Deserialize)]
struct Supported {
    name: String,
    #[serde(default)]
    enabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct System {
    id: String,
    name: String,
    pretty_name: String,
    version: String,
    version_id: String,
    kernel_release: String,
    kernel_version: String,
    machine: String,
}

#[derive(Debug, Deserialize)]
struct TimeZone {
    zone: Option<String>,
    offset: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    user: String,
    domain: Option<String>,
    #[serde(default)]
    login_time: f64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileSystem {
    name: String,
    mountpoint: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    used_bytes: u64,
    #[serde(default)]
    total_bytes: u64,
    #[serde(default)]
    disk: Vec<Disk>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Disk {
    serial: Option<String>,
    bus_type: String,
}

// === impl Heard ===

impl Heard {
    /// What is asked, and where the answer goes.
    pub(super) fn places(&mut self) -> [(Command, &mut Value); 6] {
        [
            (Command::Info, &mut self.info),
            (Command::HostName, &mut self.host_name),
            (Command::System, &mut self.system),
            (Command::TimeZone, &mut self.time_zone),
            (Command::Users, &mut self.users),
            (Command::FileSystems, &mut self.file_systems),
        ]
    }

    /// A `VirtualMachineInstanceGuestAgentInfo`.
    pub(super) fn report(self) -> Value {
        let info: Info = understood(self.info);
        let system: System = understood(self.system);
        let commands = info.supported_commands.into_iter().take(MAX_ITEMS);
        let commands = commands
            .map(|one| without_blanks([("name", word(&one.name).into()), ("enabled", one.enabled.into())]));
        let time_zone: Option<TimeZone> = understood(self.time_zone);
        let time_zone = time_zone.map(|time| {
            let zone = time.zone.unwrap_or_default();
            format!("{}, {}", word(&zone), time.offset)
        });
        let os = without_blanks([
            ("name", word(&system.name).into()),
            ("kernelRelease", word(&system.kernel_release).into()),
            ("version", word(&system.version).into()),
            ("prettyName", word(&system.pretty_name).into()),
            ("versionId", word(&system.version_id).into()),
            ("kernelVersion", word(&system.kernel_version).into()),
            ("machine", word(&system.machine).into()),
            ("id", word(&system.id).into()),
        ]);
        let host_name = self.host_name["host-name"].as_str().unwrap_or_default();
        let mut report = without_blanks([
            ("guestAgentVersion", word(&info.version).into()),
            ("supportedCommands", commands.collect()),
            ("hostname", word(host_name).into()),
            ("timezone", time_zone.unwrap_or_default().into()),
            ("userList", users(self.users).into()),
        ]);
        // These are said even where nothing is known: so KubeVirt's types have it.
        report["os"] = os;
        report["fsInfo"] = json!({"disks": file_systems(self.file_systems)});
        report
    }
}

/// The users as a `VirtualMachineInstanceGuestOSUserList` has them.
pub(super) fn users(heard: Value) -> Vec<Value> {
    let users: Vec<User> = understood(heard);
    let told = users.into_iter().take(MAX_ITEMS).map(|user| {
        without_blanks([
            ("userName", word(&user.user).into()),
            ("domain", word(&user.domain.unwrap_or_default()).into()),
            ("loginTime", user.login_time.into()),
        ])
    });
    told.collect()
}

/// The file systems as a `VirtualMachineInstanceFileSystemList` has them.
pub(super) fn file_systems(heard: Value) -> Vec<Value> {
    let all: Vec<FileSystem> = understood(heard);
    let told = all.into_iter().take(MAX_ITEMS).map(|one| {
        let disks = one.disk.into_iter().take(MAX_ITEMS).map(|disk| {
            without_blanks([
                ("serial", word(&disk.serial.unwrap_or_default()).into()),
                ("busType", word(&disk.bus_type).into()),
            ])
        });
        let disks: Vec<Value> = disks.collect();
        let mut told = json!({
            "diskName": word(&one.name), "mountPoint": word(&one.mountpoint), "fileSystemType": word(&one.kind),
            "usedBytes": one.used_bytes, "totalBytes": one.total_bytes,
        });
        if !disks.is_empty() {
            told["disk"] = disks.into();
        }
        told
    });
    told.collect()
}

/// A guest's text, on one line and not longer than anybody would read.
pub(super) fn word(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(MAX_WORD).collect()
}

fn understood<T: serde::de::DeserializeOwned + Default>(heard: Value) -> T {
    serde_json::from_value(heard).unwrap_or_default()
}

/// An object without what Go's `omitempty` leaves out.
fn without_blanks<const COUNT: usize>(fields: [(&str, Value); COUNT]) -> Value {
    let said = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) | Value::Object(_) => true,
    };
    let fields = fields.into_iter().filter(|(_, value)| said(value));
    Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Heard {
        Heard {
            info: json!({"version": "10.0.2", "supported_commands": [
                {"name": "guest-ping", "enabled": true, "success-response": true}, {"name": "guest-exec", "enabled": false},
            ]}),
            host_name: json!({"host-name": "vm"}),
            system: json!({"id": "debian", "name": "Debian GNU/Linux", "pretty-name": "Debian 13", "version": "13 (trixie)",
                "version-id": "13", "kernel-release": "6.12", "kernel-version": "#1 SMP", "machine": "riscv64"}),
            time_zone: json!({"zone": "UTC", "offset": 0}),
            users: json!([{"user": "root", "login-time": 1.5}]),
            file_systems: json!([{"name": "vda1", "mountpoint": "/", "type": "ext4", "used-bytes": 1, "total-bytes": 2,
                "disk": [{"serial": "root", "bus-type": "virtio", "bus": 0}]}]),
        }
    }

    #[test]
    fn a_guest_is_told_of_as_kubevirt_tells_of_it() {
        let disk = json!({"diskName": "vda1", "mountPoint": "/", "fileSystemType": "ext4", "usedBytes": 1, "totalBytes": 2,
            "disk": [{"serial": "root", "busType": "virtio"}]});
        let expected = json!({
            "guestAgentVersion": "10.0.2",
            "supportedCommands": [{"name": "guest-ping", "enabled": true}, {"name": "guest-exec"}],
            "hostname": "vm",
            "os": {"name": "Debian GNU/Linux", "kernelRelease": "6.12", "version": "13 (trixie)", "prettyName": "Debian 13",
                "versionId": "13", "kernelVersion": "#1 SMP", "machine": "riscv64", "id": "debian"},
            "timezone": "UTC, 0",
            "userList": [{"userName": "root", "loginTime": 1.5}],
            "fsInfo": {"disks": [disk]},
        });
        assert_eq!(debian().report(), expected);
    }

    #[test]
    fn an_agent_that_knows_nothing_is_told_of_too() {
        assert_eq!(
            Heard::default().report(),
            json!({"os": {}, "fsInfo": {"disks": []}})
        );
        assert_eq!(users(json!("no")), Vec::<Value>::new());
    }

    #[test]
    fn whatever_a_guest_says_little_of_it_is_told() {
        let user = json!({"user": "\u{1b}[2J".repeat(999), "login-time": 1e99});
        let told = Value::from(users(json!(vec![user; 9999]))).to_string();
        assert!(told.len() < MAX_ITEMS * (MAX_WORD + 99) && !told.contains("u001b"));
    }
}
