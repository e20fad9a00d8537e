//! Times one program: from just before `fork` and `exec` to a marker in its output, and to its end.
//!
//! Under the instruction-counting clock these are virtual seconds, the same on every run; so nothing here may wait by
//! polling, and the marker's time is taken on the read that brings its first byte.

use std::fmt;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The most output that a measured program may have.
const MAX_OUTPUT: usize = 1 << 20;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Until the marker's first byte arrived.
    pub to_marker: Duration,
    /// Until the program had ended.
    pub to_exit: Duration,
    /// Whether it ended with status 0.
    pub clean: bool,
}

/// The line that a reader of the results parses.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MEASURED marker_ns={} exit_ns={}",
            self.to_marker.as_nanos(),
            self.to_exit.as_nanos()
        )
    }
}

/// Runs `command` and waits until its output holds `marker`, and then until it ends.
pub fn measure(marker: &[u8], command: &[&str]) -> Result<Measured> {
    let [program, arguments @ ..] = command else {
        bail!("no command to measure")
    };
    if marker.is_empty() {
        bail!("an empty marker is everywhere");
    }
    let mut prepared = Command::new(program);
    prepared
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = prepared
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut out = child.stdout.take().context("no pipe from standard output")?;
    let mut seen = Seen::default();
    let mut buffer = [0; 4096];
    loop {
        let count = out.read(&mut buffer).context("cannot read the output")?;
        if count == 0 {
            break;
        }
        seen.add(&buffer[..count], start.elapsed())?;
    }
    let status = child.wait().context("cannot wait for the command")?;
    let to_exit = start.elapsed();
    let Some(to_marker) = seen.first(marker) else {
        bail!(
            "{program} ended ({status}) without the marker; it said: {}",
            String::from_utf8_lossy(&seen.bytes)
        );
    };
    Ok(Measured {
        to_marker,
        to_exit,
        clean: status.success(),
    })
}

/// All output so far, and when each part of it came.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    /// Where each read began, and when it was done.
    reads: Vec<(usize, Duration)>,
}

impl Seen {
    fn add(&mut self, bytes: &[u8], now: Duration) -> Result<()> {
        self.reads.push((self.bytes.len(), now));
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > MAX_OUTPUT {
            bail!("the program says more than is ever measured");
        }
        Ok(())
    }

    /// When the first byte of `marker` came, which may be some reads before its last.
    fn first(&self, marker: &[u8]) -> Option<Duration> {
        let at = self
            .bytes
            .windows(marker.len())
            .position(|window| window == marker)?;
        let (_, came) = self.reads.iter().rfind(|(start, _)| *start <= at)?;
        Some(*came)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_marker_is_that_of_its_first_byte() {
        let mut seen = Seen::default();
        let parts = [("OpenSBI\nGUE", 1), ("ST-", 2), ("UP\n", 3)];
        let _ = parts.map(|(text, second)| seen.add(text.as_bytes(), Duration::from_secs(second)).unwrap());
        assert_eq!(seen.first(b"GUEST-UP"), Some(Duration::from_secs(1)));
        assert_eq!(seen.first(b"UP"), Some(Duration::from_secs(3)));
        assert_eq!(seen.first(b"DOWN"), None);
    }

    #[test]
    fn a_program_is_timed_to_its_marker_and_then_to_its_end() {
        let measured = measure(b"HERE", &["sh", "-c", "echo HERE; sleep 0.05; exit 3"]).unwrap();
        assert!(measured.to_marker < measured.to_exit);
        assert!(!measured.clean);
    }

    #[test]
    fn a_program_that_never_says_the_marker_is_an_error_with_its_words() {
        let error = measure(b"HERE", &["echo", "no kernel"]).unwrap_err();
        assert!(error.to_string().ends_with("it said: no kernel\n"), "{error}");
    }
}
