//! Processes of this machine that the bench starts, and what they cost.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// How long anything may take, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often a log is looked at. What is measured is in the log itself.
const LOOK: Duration = Duration::from_millis(2);

/// Fields of `/proc/PID/stat` behind the program's name: time in user space and in the kernel, of the process and of its children
/// that have ended.
const TIMES: std::ops::Range<usize> = 11..15;

/// Ticks a second in `/proc`, on Linux whatever the machine is.
const TICKS: f64 = 100.0;

/// What something took.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Seconds on the clock.
    pub wall: f64,
    /// Seconds of processors.
    pub cpu: f64,
}

impl std::ops::Add for Spent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            wall: self.wall + other.wall,
            cpu: self.cpu + other.cpu,
        }
    }
}

/// A server whose words are kept. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

// === impl Server ===

impl Server {
    /// Starts a program; what it says goes to `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line with all of these words in it, after the first `skipped` bytes.
    pub fn line(&mut self, words: &[&str]) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&self.log)?;
            let whole = said
                .rfind('\n')
                .map_or("", |end| said.get(..end).unwrap_or_default());
            let found = whole
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(found) = found {
                return Ok(found.to_owned());
            }
            if self.child.try_wait()?.is_some() || Instant::now() > until {
                bail!("no line with {words:?} in:\n{said}");
            }
            thread::sleep(LOOK);
        }
    }

    /// When it said a line with these words, in seconds since 1970, by its own clock.
    pub fn when(&mut self, words: &[&str]) -> Result<f64> {
        let line = self.line(words)?;
        let line: Value = serde_json::from_str(&line)?;
        let stamp = line["timestamp"].as_str().context("a line without a time")?;
        let stamp: jiff::Timestamp = stamp.parse()?;
        Ok(stamp.as_duration().as_secs_f64())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is ours, so it can only be gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Now, in seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// The processors' time of a process and of its children that have ended; none once it is gone.
pub fn cpu(process: &str) -> Result<f64> {
    let stat = match fs::read_to_string(format!("/proc/{process}/stat")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0.0),
        stat => stat?,
    };
    let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
    let fields: Vec<&str> = behind.split(' ').collect();
    let times = fields.get(TIMES).context("no times of a process")?;
    let mut ticks = 0.0;
    for time in times {
        ticks += time.parse::<f64>()?;
    }
    Ok(ticks / TICKS)
}

/// Runs a program to its end, which must be a good one.
pub fn run(command: &mut Command) -> Result<Spent> {
    let (before, started) = (cpu("self")?, Instant::now());
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let wall = started.elapsed().as_secs_f64();
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Spent {
        wall,
        cpu: cpu("self")? - before,
    })
}

/// The one folder in `folder` whose name is a VMI's UID, once it is there.
pub fn machine(folder: &Path) -> Result<PathBuf> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().len() == UID && entry.file_type()?.is_dir() {
                return Ok(entry.path());
            }
        }
        thread::sleep(LOOK);
    }
    bail!("no machine came")
}

/// Length of a UID.
const UID: usize = 36;

/// Waits until a path is gone.
pub fn gone(path: &Path) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while path.exists() {
        ensure!(Instant::now() < until, "{} stays", path.display());
        thread::sleep(LOOK);
    }
    Ok(())
}
