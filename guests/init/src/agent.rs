//! A guest agent that knows enough to be found, to tell who the guest is, to keep its disks still, to run a command and to switch it off,
//! in QEMU's protocol.
//!
//! ```text
//!   host: 0xff {"execute":"guest-sync-delimited","arguments":{"id":1}}      we: 0xff {"return":1}
//!         {"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}     we: nothing, and the guest ends
//! ```
//!
//! Besides these it knows `guest-ping`, `guest-sync`, `guest-info`, what `facts` tells of the guest, what `freeze` does of `guest-fsfreeze-…` and `exec` of `guest-exec…`. Its port is that of a
//! virtio console, which the kernel may find at any time; a guest without one has an agent that waits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::exec::Commands;
use crate::facts;
use crate::freeze::Frozen;

/// The name of the port.
const PORT: &str = "org.qemu.guest_agent.0";
/// Where the kernel lists ports: a folder each, named as the device, with the port's name in it.
const PORTS: &str = "/sys/class/virtio-ports";
/// How often we look for the port, or whether the host listens again.
const LOOK: Duration = Duration::from_millis(500);
/// Longest command in bytes; the rest of a longer line is passed over.
const MAX_COMMAND: usize = 4 << 10;
/// Makes us forget what was said before, and begins our answer to `guest-sync-delimited`.
const DELIMITER: u8 = 0xff;

/// What we know, with whether there is an answer when it works.
const COMMANDS: [(&str, bool); 13] = [
    ("guest-ping", true),
    ("guest-sync", true),
    ("guest-sync-delimited", true),
    ("guest-info", true),
    ("guest-get-osinfo", true),
    ("guest-get-host-name", true),
    ("guest-get-fsinfo", true),
    ("guest-fsfreeze-status", true),
    ("guest-fsfreeze-freeze", true),
    ("guest-fsfreeze-thaw", true),
    ("guest-exec", true),
    ("guest-exec-status", true),
    ("guest-shutdown", false),
];

/// How the host wants the guest to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Switched off. A virtual machine that halts would keep its host busy for nothing, so it is switched off too.
    PowerOff,
    /// Booted again.
    Reset,
}

#[derive(Debug, Deserialize)]
struct Command {
    execute: String,
    #[serde(default)]
    arguments: Arguments,
}

#[derive(Debug, Default, Deserialize)]
struct Arguments {
    id: Option<i64>,
    mode: Option<String>,
    path: Option<String>,
    #[serde(default)]
    arg: Vec<String>,
    #[serde(default, rename = "capture-output")]
    captures: bool,
    pid: Option<u32>,
    /// What we do not do with a command: its input and its variables.
    #[serde(rename = "input-data")]
    input: Option<String>,
    env: Option<Vec<String>>,
}

/// What outlasts a command.
#[derive(Debug, Default)]
struct State {
    frozen: Frozen,
    commands: Commands,
}

/// What comes of a command.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Say(Vec<u8>),
    End(Shutdown),
}

/// Collects commands out of a stream of bytes.
#[derive(Debug, Default)]
struct Ear {
    line: Vec<u8>,
    too_long: bool,
}

/// Serves the host for as long as the guest lives. `end` is called when it is to end.
pub fn serve(end: impl Fn(Shutdown)) -> ! {
    let mut state = State::default();
    loop {
        if let Some(mut port) = find(Path::new(PORTS)).and_then(|path| open(&path).ok()) {
            // The host may close its end and open it again.
            let _ = listen(&mut port, &mut state, &end);
        }
        sleep(LOOK);
    }
}

fn open(device: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(device)
}

/// The device of our port, if the kernel has found it.
fn find(ports: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(ports).ok()?.flatten();
    let ours = entries.find(|entry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim_end() == PORT)
    })?;
    Some(Path::new("/dev").join(ours.file_name()))
}

/// Answers until the host closes its end.
fn listen(port: &mut (impl Read + Write), state: &mut State, end: &impl Fn(Shutdown)) -> io::Result<()> {
    let mut ear = Ear::default();
    let mut buffer = [0; 512];
    loop {
        let count = port.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        for line in ear.hear(buffer.get(..count).unwrap_or_default()) {
            match obey(&line, state) {
                Outcome::Say(answer) => port.write_all(&answer)?,
                Outcome::End(shutdown) => {
                    // What ends may still have something to write.
                    state.frozen.thaw();
                    end(shutdown);
                }
            }
        }
    }
}

// === impl Ear ===

impl Ear {
    /// Takes bytes, and gives the lines that are whole by now.
    fn hear(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for &byte in bytes {
            match byte {
                DELIMITER => *self = Self::default(),
                b'\n' => {
                    let heard = std::mem::take(self);
                    if !heard.too_long {
                        lines.push(heard.line);
                    }
                }
                _ if self.line.len() >= MAX_COMMAND => self.too_long = true,
                _ => self.line.push(byte),
            }
        }
        lines
    }
}

fn obey(line: &[u8], state: &mut State) -> Outcome {
    let frozen = &mut state.frozen;
    let command: Command = match serde_json::from_slice(line) {
        Ok(command) => command,
        Err(error) => return refuse("GenericError", &format!("not a command: {error}")),
    };
    let arguments = &command.arguments;
    match (command.execute.as_str(), arguments.id, arguments.mode.as_deref()) {
        ("guest-ping", ..) => answer(&json!({})),
        ("guest-sync", Some(id), _) => answer(&json!(id)),
        ("guest-sync-delimited", Some(id), _) => {
            Outcome::Say([vec![DELIMITER], text(&json!({ "return": id }))].concat())
        }
        ("guest-sync" | "guest-sync-delimited", None, _) => {
            refuse("GenericError", "Parameter 'id' is missing")
        }
        ("guest-info", ..) => answer(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "supported_commands": COMMANDS.map(|(name, answers)| json!({
                "name": name, "enabled": true, "success-response": answers,
            })),
        })),
        ("guest-get-osinfo", ..) => answer(&facts::system()),
        ("guest-get-host-name", ..) => answer(&facts::host_name()),
        ("guest-get-fsinfo", ..) => answer(&facts::file_systems()),
        ("guest-fsfreeze-status", ..) => answer(&json!(frozen.status())),
        ("guest-fsfreeze-freeze", ..) => match frozen.freeze(&facts::disk_places()) {
            Ok(count) => answer(&json!(count)),
            Err(why) => refuse("GenericError", &why),
        },
        ("guest-fsfreeze-thaw", ..) => answer(&json!(frozen.thaw())),
        ("guest-exec", ..) => said(begin(&mut state.commands, arguments)),
        ("guest-exec-status", ..) => said(match arguments.pid {
            Some(pid) => state.commands.ask(pid),
            None => Err("Parameter 'pid' is missing".to_owned()),
        }),
        ("guest-shutdown", _, None | Some("powerdown" | "halt")) => Outcome::End(Shutdown::PowerOff),
        ("guest-shutdown", _, Some("reboot")) => Outcome::End(Shutdown::Reset),
        ("guest-shutdown", _, Some(_)) => refuse("GenericError", "mode is powerdown, halt or reboot"),
        (name, ..) => refuse(
            "CommandNotFound",
            &format!("The command {name:?} has not been found"),
        ),
    }
}

fn begin(commands: &mut Commands, arguments: &Arguments) -> Result<Value, String> {
    if arguments.input.is_some() || arguments.env.is_some() {
        return Err("input-data and env are not supported".to_owned());
    }
    let path = arguments.path.as_deref().ok_or("Parameter 'path' is missing")?;
    commands.begin(path, &arguments.arg, arguments.captures)
}

fn said(done: Result<Value, String>) -> Outcome {
    match done {
        Ok(value) => answer(&value),
        Err(why) => refuse("GenericError", &why),
    }
}

fn answer(value: &Value) -> Outcome {
    Outcome::Say(text(&json!({ "return": value })))
}

fn refuse(class: &str, why: &str) -> Outcome {
    Outcome::Say(text(&json!({"error": {"class": class, "desc": why}})))
}

fn text(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::os::unix::net::UnixStream;

    /// What the agent answers to all this, and how it was told to end.
    fn answers(said: &[u8]) -> (String, Vec<Shutdown>) {
        let (mut host, mut port) = UnixStream::pair().unwrap();
        host.write_all(said).unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        let ends = RefCell::new(Vec::new());
        listen(&mut port, &mut State::default(), &|end| {
            ends.borrow_mut().push(end);
        })
        .unwrap();
        drop(port);
        let mut heard = Vec::new();
        host.read_to_end(&mut heard).unwrap();
        (
            String::from_utf8_lossy(&heard).replace('\u{fffd}', "!"),
            ends.take(),
        )
    }

    #[test]
    fn a_host_synchronises_and_switches_the_guest_off() {
        let (said, ends) = answers(
            b"half a comm\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":7}}\n\
              {\"execute\":\"guest-shutdown\",\"arguments\":{\"mode\":\"powerdown\"}}\n",
        );
        assert_eq!(
            (said.as_str(), ends),
            ("!{\"return\":7}\n", vec![Shutdown::PowerOff])
        );
    }

    #[test]
    fn questions_are_answered_and_what_is_not_known_is_refused() {
        let (said, ends) = answers(
            b"{\"execute\":\"guest-ping\"}\n{\"execute\":\"guest-sync\",\"arguments\":{\"id\":-3}}\n\
              {\"execute\":\"guest-file-open\",\"arguments\":{\"path\":\"/bin/sh\"}}\nhello\n{\"execute\":\"guest-sync\"}\n",
        );
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["{\"return\":{}}", "{\"return\":-3}"]);
        assert!(
            lines[2].contains("CommandNotFound") && lines[3].contains("not a command"),
            "{said}"
        );
        assert!(lines[4].contains("'id' is missing") && ends.is_empty(), "{said}");
    }

    #[test]
    fn a_command_that_cannot_be_run_as_it_is_asked_for_is_refused() {
        let (said, _) = answers(
            b"{\"execute\":\"guest-exec\"}\n{\"execute\":\"guest-exec-status\",\"arguments\":{\"pid\":9}}\n\
              {\"execute\":\"guest-exec\",\"arguments\":{\"path\":\"cat\",\"input-data\":\"eA==\"}}\n",
        );
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].contains("'path' is missing"), "{said}");
        assert!(lines[1].contains("PID 9 does not exist"), "{said}");
        assert!(
            lines[2].contains("input-data and env are not supported"),
            "{said}"
        );
    }

    #[test]
    fn nothing_is_frozen_until_somebody_asks_for_it() {
        let (said, _) =
            answers(b"{\"execute\":\"guest-fsfreeze-status\"}\n{\"execute\":\"guest-fsfreeze-thaw\"}\n");
        assert_eq!(said, "{\"return\":\"thawed\"}\n{\"return\":0}\n");
    }

    #[test]
    fn who_the_guest_is_is_told() {
        let (said, _) = answers(b"{\"execute\":\"guest-get-osinfo\"}\n{\"execute\":\"guest-get-host-name\"}\n{\"execute\":\"guest-get-fsinfo\"}\n");
        let lines: Vec<Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(lines[0]["return"]["kernel-release"].is_string(), "{said}");
        assert!(
            lines[1]["return"]["host-name"].is_string() && lines[2]["return"].is_array(),
            "{said}"
        );
    }

    #[test]
    fn what_it_knows_is_told() {
        let (said, _) = answers(b"{\"execute\":\"guest-info\"}\n");
        assert!(
            COMMANDS
                .iter()
                .all(|(name, _)| said.contains(&format!("\"name\":\"{name}\""))),
            "{said}"
        );
    }

    #[test]
    fn a_command_without_end_is_not_kept_and_the_next_one_is_heard() {
        let mut ear = Ear::default();
        assert!(ear.hear(&vec![b'x'; 10 * MAX_COMMAND]).is_empty());
        assert_eq!(ear.line.len(), MAX_COMMAND);
        assert_eq!(ear.hear(b"\nping\n"), [b"ping"]);
    }

    #[test]
    fn the_port_is_found_by_its_name() {
        let ports = tempfile::tempdir().unwrap();
        for (device, name) in [
            ("vport0p0", "console\n"),
            ("vport0p1", "org.qemu.guest_agent.0\n"),
        ] {
            fs::create_dir(ports.path().join(device)).unwrap();
            fs::write(ports.path().join(device).join("name"), name).unwrap();
        }
        assert_eq!(find(ports.path()).unwrap(), Path::new("/dev/vport0p1"));
        assert_eq!(find(Path::new("/nonexistent")), None);
    }
}
