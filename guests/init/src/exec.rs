//! Commands that the host has run in the guest (`guest-exec`, `guest-exec-status`), as probes do.
//!
//! ```text
//!   agent ── starts us anew with the word `run` ──► that waits for the command, and says by a pipe how it ended and what it wrote
//! ```
//!
//! Process 1 buries every child that it has, so nobody in it could wait for one. What is run is nobody's child but that process's,
//! and the pipe's end says that it is over.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The first argument that makes us run a command, which follows.
pub const WORD: &str = "run";

/// The kernel keeps our file through this link even if somebody in the guest removes it.
const OURSELVES: &str = "/proc/self/exe";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Most commands that run, or that nobody has asked after since they ended.
const MAX_COMMANDS: usize = 16;
/// How much of each output is kept, in bytes: both as text have to fit into an answer that hosts read.
const MAX_OUTPUT: u64 = 8 << 10;
/// Longest story of a command: both outputs as text, and what is around them.
const MAX_STORY: u64 = 4 * MAX_OUTPUT;

/// How a command ended, in the agent's protocol.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Story {
    exited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    exitcode: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    out_data: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    err_data: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    out_truncated: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    err_truncated: bool,
}

/// What was written, as much as is kept.
struct Kept {
    bytes: Vec<u8>,
    truncated: bool,
}

/// Commands that were begun, by numbers of their own.
#[derive(Debug, Default)]
pub struct Commands {
    begun: BTreeMap<u32, Receiver<Story>>,
    last: u32,
}

// === impl Commands ===

impl Commands {
    /// Begins one: the number by which it is asked after.
    ///
    /// # Errors
    /// Why not, for the host.
    pub fn begin(&mut self, path: &str, arguments: &[String], captures: bool) -> Result<Value, String> {
        self.begin_by(Command::new(OURSELVES).arg(WORD), path, arguments, captures)
    }

    fn begin_by(
        &mut self,
        by: &mut Command,
        path: &str,
        arguments: &[String],
        captures: bool,
    ) -> Result<Value, String> {
        if self.begun.len() >= MAX_COMMANDS {
            return Err(format!("{MAX_COMMANDS} commands run or were not asked after"));
        }
        let begun = by
            .arg(captures.to_string())
            .arg(path)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let Child { stdout, .. } = &mut begun.map_err(|error| error.to_string())?;
        let Some(pipe) = stdout.take() else {
            return Err("its output is not to be had".to_owned());
        };
        self.hear(pipe)
    }

    fn hear(&mut self, pipe: ChildStdout) -> Result<Value, String> {
        let (tell, story) = channel();
        let listen = move || {
            // Whoever forgot about it does not hear it.
            tell.send(heard(pipe)).ok();
        };
        let listening = thread::Builder::new().spawn(listen);
        listening.map_err(|error| error.to_string())?;
        self.last = self.last.wrapping_add(1);
        self.begun.insert(self.last, story);
        Ok(json!({ "pid": self.last }))
    }

    /// What is known of one. What has ended is told once, as the protocol has it.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn ask(&mut self, pid: u32) -> Result<Value, String> {
        let story = self.begun.get(&pid).map(Receiver::try_recv);
        let told = match story {
            None => return Err(format!("PID {pid} does not exist")),
            Some(Err(TryRecvError::Empty)) => return Ok(json!({"exited": false})),
            Some(Ok(story)) => json!(story),
            Some(Err(TryRecvError::Disconnected)) => json!(lost()),
        };
        self.begun.remove(&pid);
        Ok(told)
    }
}

/// Of a command that nobody can say anything of any more.
fn lost() -> Story {
    Story {
        exited: true,
        signal: Some(signal_hook::consts::SIGKILL),
        ..Story::default()
    }
}

fn heard(pipe: ChildStdout) -> Story {
    let mut text = Vec::new();
    let read = pipe.take(MAX_STORY).read_to_end(&mut text);
    let story = read.ok().and_then(|_| serde_json::from_slice(&text).ok());
    story.unwrap_or_else(lost)
}

/// Runs a command, and says how it ended: `arguments` are whether its output is kept, the program and what it is given.
pub fn become_it(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let mut arguments = arguments;
    let captures = arguments.next().is_some_and(|word| word == "true");
    let Some(program) = arguments.next() else {
        return ExitCode::FAILURE;
    };
    let story = run(Command::new(program).args(arguments), captures).unwrap_or_else(|error| Story {
        exited: true,
        // What shells say where there is no such program.
        exitcode: Some(127),
        err_data: BASE64_STANDARD.encode(format!("{error}\n")),
        ..Story::default()
    });
    let said = serde_json::to_vec(&story).map(|text| io::stdout().write_all(&text));
    if matches!(said, Ok(Ok(()))) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(command: &mut Command, captures: bool) -> io::Result<Story> {
    let kind = || if captures { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(kind())
        .stderr(kind())
        .spawn()?;
    let errors = child.stderr.take().map(|pipe| thread::spawn(move || kept(pipe)));
    let output = child.stdout.take().map(kept).transpose()?;
    let errors = errors.and_then(|thread| thread.join().ok()).transpose()?;
    let status = child.wait()?;
    let text = |kept: &Option<Kept>| {
        let bytes = kept.as_ref().map(|kept| kept.bytes.as_slice());
        BASE64_STANDARD.encode(bytes.unwrap_or_default())
    };
    let is_cut = |kept: &Option<Kept>| kept.as_ref().is_some_and(|kept| kept.truncated);
    Ok(Story {
        exited: true,
        exitcode: status.code(),
        signal: status.signal(),
        out_data: text(&output),
        err_data: text(&errors),
        out_truncated: is_cut(&output),
        err_truncated: is_cut(&errors),
    })
}

/// Reads to the end, so that whoever writes is not kept waiting.
fn kept(mut pipe: impl Read) -> io::Result<Kept> {
    let mut bytes = Vec::new();
    pipe.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    let more = io::copy(&mut pipe, &mut io::sink())?;
    Ok(Kept {
        bytes,
        truncated: more > 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Story {
        run(Command::new("/bin/sh").args(["-c", script]), true).unwrap()
    }

    fn decoded(text: &str) -> Vec<u8> {
        BASE64_STANDARD.decode(text).unwrap()
    }

    #[test]
    fn a_commands_status_and_both_of_its_outputs_are_told() {
        let story = shell("echo out; echo err >&2; exit 3");
        assert_eq!((story.exitcode, story.signal), (Some(3), None));
        assert_eq!(
            (decoded(&story.out_data), decoded(&story.err_data)),
            (b"out\n".to_vec(), b"err\n".to_vec())
        );
        let killed = shell("kill -9 $$");
        assert_eq!((killed.exitcode, killed.signal), (None, Some(9)));
    }

    #[test]
    fn output_without_end_is_cut_and_the_command_goes_on() {
        let story = shell("head -c 1000000 /dev/zero; exit 4");
        assert_eq!((story.exitcode, story.out_truncated), (Some(4), true));
        assert_eq!(decoded(&story.out_data).len() as u64, MAX_OUTPUT);
    }

    #[test]
    fn a_command_is_told_once_and_so_many_run_at_a_time() {
        let mut commands = Commands::default();
        // Stands for us: it says a story, once it may.
        let say = |script: &str| {
            let mut by = Command::new("/bin/sh");
            by.args(["-c", script, "run"]);
            by
        };
        let begun = commands.begin_by(
            &mut say(r#"echo "{\"exited\": true, \"exitcode\": 5}""#),
            "x",
            &[],
            true,
        );
        let pid = u32::try_from(begun.unwrap()["pid"].as_u64().unwrap()).unwrap();
        let story = loop {
            match commands.ask(pid).unwrap() {
                story if story["exited"] == true => break story,
                _ => thread::yield_now(),
            }
        };
        assert_eq!(story, json!({"exited": true, "exitcode": 5}));
        assert!(commands.ask(pid).is_err());
        for _ in 0..MAX_COMMANDS {
            commands.begin_by(&mut say("cat"), "x", &[], false).unwrap();
        }
        let refused = commands.begin_by(&mut say("cat"), "x", &[], false).unwrap_err();
        assert!(
            refused.contains("16 commands run or were not asked after"),
            "{refused}"
        );
    }
}
