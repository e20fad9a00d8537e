//! `make run`: from a manifest to a console on this machine, and nothing left behind.
//!
//! ```text
//!   rvm-handler --local (unless one runs) ─► no such machine yet ─► rvm apply ─► rvm console ─► rvm delete ─► the handler ends
//! ```
//!
//! With a terminal the console stays until Ctrl+] (meanwhile another terminal can use `rvm` and kubectl); without one it
//! is printed up to the guest's prompt. What we started we end, also when a signal ends us early. A machine of the demo's name that
//! is there before is somebody's, and is not touched.

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rvm_guests::cross::{target_dir, workspace};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{build, setup, step};

const MANIFEST: &str = "guests/vmi-alpine.yaml";
const NAME: &str = "vmi-alpine";
const IMAGE: &str = "docker.io/library/alpine:3.23";

/// What the guest's shell shows when it waits for a command.
const PROMPT: &str = "vmi-alpine:~# ";

/// How long the guest may take to its prompt where nobody watches.
const BOOT: &str = "5m";
/// How long the handler may take to answer.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(15);
/// How often we look.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the demo, with our programs as they are or built anew.
pub fn run(built: bool) -> Result<ExitCode> {
    let (_, toolbox, guest) = setup::for_running()?;
    let folder = match built {
        true => target_dir().join("debug"),
        false => build::for_this_machine()?,
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let environment = setup::environment_of_programs(&toolbox)?;
    let programs = Programs {
        folder,
        environment,
        interrupted,
    };
    let handler = match programs.answers() {
        true => {
            step::heading("using the rvm-handler that runs on this machine");
            None
        }
        false => Some(Handler::start(&programs, &guest)?),
    };
    let done = programs.has_machine().and_then(|there| match there {
        true => Err(anyhow!(
            "there is a machine {NAME} already, which the demo would change and then delete; look at it with \
             rvm console {NAME}, or remove it with rvm delete {NAME}"
        )),
        false => demonstrate(&programs),
    });
    let stopped = handler.map_or(Ok(()), Handler::stop);
    let log = || format!("the handler's log is {}", log_file().display());
    done.and(stopped.with_context(log))?;
    Ok(ExitCode::SUCCESS)
}

fn demonstrate(programs: &Programs) -> Result<()> {
    let shown = show(programs);
    step::heading("ending the demo");
    // What ended the console is not meant for the cleaning up.
    programs.interrupted.store(false, Ordering::Relaxed);
    let deleted = programs.run(&["delete", NAME, "--ignore-not-found"]);
    let log = || format!("the handler's log is {}", log_file().display());
    shown.and(deleted).with_context(log)
}

fn show(programs: &Programs) -> Result<()> {
    let manifest = workspace().join(MANIFEST);
    step::heading(&format!("rvm apply -f {MANIFEST}"));
    programs.run(&["apply", "-f", &manifest.to_string_lossy()])?;
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        step::heading(&format!("rvm console {NAME} (Ctrl+] ends the demo)"));
        return programs.run(&["console", NAME]);
    }
    step::heading(&format!("rvm console {NAME}, until its prompt"));
    programs.run(&[
        "console",
        NAME,
        "--read-only",
        "--until",
        PROMPT,
        "--timeout",
        BOOT,
    ])?;
    println!();
    Ok(())
}

/// Our programs, with the QEMU of the cache in their path.
struct Programs {
    folder: PathBuf,
    environment: Vec<(&'static str, std::ffi::OsString)>,
    interrupted: Arc<AtomicBool>,
}

impl Programs {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // What is meant is this machine's own local mode, whatever cluster the shell speaks to.
        command.env_remove("KUBECONFIG");
        command
    }

    /// Runs `rvm` to its end; a signal to us ends it earlier.
    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut rvm = self
            .command("rvm")
            .args(arguments)
            .spawn()
            .context("cannot run rvm")?;
        let mut told = false;
        let status = loop {
            if let Some(status) = rvm.try_wait()? {
                break status;
            }
            if !told && self.interrupted.swap(false, Ordering::Relaxed) {
                terminate(&rvm)?;
                told = true;
            }
            sleep(LOOK);
        };
        if !status.success() {
            bail!("rvm {} failed ({status})", arguments[0]);
        }
        Ok(())
    }

    /// Whether a handler serves this machine.
    fn answers(&self) -> bool {
        self.machines().is_ok()
    }

    /// Whether there is a machine of the demo's name.
    fn has_machine(&self) -> Result<bool> {
        let names = self.machines()?;
        Ok(names.lines().any(|name| name.rsplit('/').next() == Some(NAME)))
    }

    /// The names of the machines that there are.
    fn machines(&self) -> Result<String> {
        let mut ask = self.command("rvm");
        let output = ask.args(["get", "-o", "name"]).stdin(Stdio::null()).output()?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(said(&output.stdout)),
            false => bail!("rvm get: {}", said(&output.stderr)),
        }
    }
}

/// The handler that we started.
struct Handler(Child);

impl Handler {
    fn start(programs: &Programs, guest: &rvm_guests::DemoGuest) -> Result<Self> {
        step::heading(&format!(
            "rvm-handler --local (its log: {})",
            log_file().display()
        ));
        let log = File::create(log_file()).context("cannot write the handler's log")?;
        let mut command = programs.command("rvm-handler");
        command.arg("--local").arg("--guests").arg(&guest.folder);
        command
            .arg("--mirror")
            .arg(format!("{IMAGE}=oci:{}", guest.image().display()));
        // Ctrl-C at this terminal is for us, who then end the handler in order.
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut handler = Self(command.spawn().context("cannot start rvm-handler")?);
        let until = Instant::now() + START;
        while !programs.answers() {
            if let Some(status) = handler.0.try_wait()? {
                let log = std::fs::read_to_string(log_file()).unwrap_or_default();
                bail!(
                    "rvm-handler ended ({status}): {}",
                    log.lines().last().unwrap_or("it said nothing")
                );
            }
            if programs.interrupted.load(Ordering::Relaxed) || Instant::now() > until {
                handler.stop()?;
                bail!("rvm-handler does not answer; its log is {}", log_file().display());
            }
            sleep(LOOK);
        }
        Ok(handler)
    }

    fn stop(mut self) -> Result<()> {
        terminate(&self.0)?;
        let until = Instant::now() + STOP;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > until {
                self.0.kill()?;
                self.0.wait()?;
                bail!("rvm-handler had to be killed");
            }
            sleep(LOOK);
        }
        Ok(())
    }
}

/// Asks a program that we started to end.
fn terminate(program: &Child) -> Result<()> {
    rvm_guests::command::run(Command::new("kill").args(["-TERM", &program.id().to_string()]))
}

fn log_file() -> PathBuf {
    target_dir().join("rvm-handler.log")
}
