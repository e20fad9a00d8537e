//! A command in the guest, run by its agent (QEMU's guest agent: `guest-exec`, `guest-exec-status`): begun, asked after until it
//! has ended, its output written, its status ours.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// Pause between two questions whether it has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// What shells add to the number of the signal that ended a command.
const SIGNALLED: u8 = 128;

/// A command of the guest that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its status, as a shell would have it.
    pub status: u8,
    /// What it wrote, as much as the agent keeps.
    pub output: Vec<u8>,
    /// What it wrote as errors.
    pub errors: Vec<u8>,
}

#[derive(Deserialize)]
struct Begun {
    pid: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    exited: bool,
    exitcode: Option<i64>,
    signal: Option<i64>,
    #[serde(default)]
    out_data: String,
    #[serde(default)]
    err_data: String,
}

/// Runs a command and its arguments, for no longer than this; `ask` asks the agent. A command whose time is over goes on, as the agent
/// cannot end one.
///
/// # Errors
/// There is no such command, the agent refuses, or the time is over.
pub fn run(
    mut ask: impl FnMut(&str, Value) -> anyhow::Result<Value>,
    command: &[String],
    patience: Duration,
) -> anyhow::Result<Ended> {
    let (path, arguments) = command.split_first().context("no command is given")?;
    let until = Instant::now() + patience;
    let begin = json!({"path": path, "arg": arguments, "capture-output": true});
    let begun = Begun::deserialize(ask("guest-exec", begin)?).context("the agent's answer is none")?;
    loop {
        let status = ask("guest-exec-status", json!({"pid": begun.pid}))?;
        let status = Status::deserialize(status).context("the agent's answer is none")?;
        if status.exited {
            return status.ended();
        }
        ensure!(
            Instant::now() < until,
            "'{path}' has not ended in {} s",
            patience.as_secs_f32()
        );
        thread::sleep(PAUSE);
    }
}

// === impl Status ===

impl Status {
    fn ended(self) -> anyhow::Result<Ended> {
        let status = match (self.exitcode, self.signal) {
            (Some(code), _) => u8::try_from(code & 0xff)?,
            (None, Some(signal)) => SIGNALLED | u8::try_from(signal & 0x7f)?,
            (None, None) => bail!("the agent does not say how it ended"),
        };
        let decode = |text: &str| BASE64_STANDARD.decode(text).context("the agent's answer is none");
        Ok(Ended {
            status,
            output: decode(&self.out_data)?,
            errors: decode(&self.err_data)?,
        })
    }
}

// === impl Ended ===

impl Ended {
    /// Writes what it wrote to where that belongs. A reader that went away has seen enough.
    pub fn write(&self) {
        io::stdout().write_all(&self.output).ok();
        io::stderr().write_all(&self.errors).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that is asked this and answers that.
    fn agent(says: Vec<Value>) -> impl FnMut(&str, Value) -> anyhow::Result<Value> {
        let mut says = says.into_iter();
        move |command, arguments| {
            match command {
                "guest-exec" => assert_eq!(
                    arguments,
                    json!({"path": "/bin/cat", "arg": ["/etc/hostname"], "capture-output": true})
                ),
                other => assert_eq!((other, arguments), ("guest-exec-status", json!({"pid": 7}))),
            }
            says.next().context("nothing more")
        }
    }

    fn ran(says: Vec<Value>) -> anyhow::Result<Ended> {
        let command = ["/bin/cat", "/etc/hostname"].map(str::to_owned);
        run(agent(says), &command, Duration::from_secs(3600))
    }

    #[test]
    fn a_command_is_asked_after_until_it_has_ended() {
        let ended = ran(vec![
            json!({"pid": 7}),
            json!({"exited": false}),
            json!({"exited": true, "exitcode": 3, "out-data": "Z3Vlc3QK", "err-data": "bm8K"}),
        ]);
        let expected = Ended {
            status: 3,
            output: b"guest\n".to_vec(),
            errors: b"no\n".to_vec(),
        };
        assert_eq!(ended.unwrap(), expected);
        let killed = ran(vec![json!({"pid": 7}), json!({"exited": true, "signal": 9})]);
        assert_eq!(killed.unwrap().status, 137);
    }

    #[test]
    fn an_agent_that_talks_nonsense_is_no_success() {
        for says in [
            vec![json!({})],
            vec![json!({"pid": 7}), json!({"exited": true})],
            vec![
                json!({"pid": 7}),
                json!({"exited": true, "exitcode": 0, "out-data": "%"}),
            ],
            vec![json!({"pid": 7}), json!([])],
        ] {
            assert!(ran(says.clone()).is_err(), "{says:?}");
        }
    }

    #[test]
    fn a_command_that_takes_too_long_is_a_failure() {
        let says = vec![json!({"pid": 7}), json!({"exited": false})];
        let command = ["/bin/cat", "/etc/hostname"].map(str::to_owned);
        let error = run(agent(says), &command, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("has not ended"), "{error}");
    }
}
