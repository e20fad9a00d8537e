//! What process 1 does all its life: start the session again, bury the dead, and end the machine when asked.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rvm_guest_init::agent::{self, Shutdown};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::cmdline::Options;
use crate::{mounts, say, session};

/// A session that lasts this long was used; a shorter one has something wrong with it.
const USED: Duration = Duration::from_secs(2);
/// The longest wait before a session that fails at once is started again.
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// How long processes have to end after they are asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How often we look whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    PowerOff,
    Reset,
}

/// Lives until the machine ends.
pub fn live(options: &Options) -> ! {
    // Ctrl-Alt-Del comes to us as a signal instead of resetting the machine at once.
    let _ = reboot(RebootCommand::CadOff);
    serve_agent();
    let mut shell = Shell::new(options, alarm_clock());
    shell.start_if_due();
    match Signals::new([SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGUSR2]) {
        Ok(mut signals) => {
            for signal in signals.forever() {
                look_after(&mut shell);
                if let Some(end) = asked_for(signal) {
                    end_machine(end);
                }
            }
        }
        Err(error) => say::problem("cannot take signals", error),
    }
    // Without signals there is no poweroff command, but the guest lives.
    loop {
        look_after(&mut shell);
        sleep(GRACE);
    }
}

/// A thread that wakes process 1, by the signal of a dead child, after each time that it is given.
fn alarm_clock() -> Sender<Duration> {
    let (set, times) = channel();
    let ring = move || {
        for time in times {
            sleep(time);
            let _ = kill_process(Pid::INIT, Signal::CHILD);
        }
    };
    if let Err(error) = std::thread::Builder::new().spawn(ring) {
        say::problem("cannot start a thread", error);
    }
    set
}

/// A thread that answers the host, and ends the machine by the same signals as busybox's commands do.
fn serve_agent() {
    let end = |shutdown| {
        let signal = match shutdown {
            Shutdown::PowerOff => Signal::USR2,
            Shutdown::Reset => Signal::TERM,
        };
        // Always allowed to ourselves.
        let _ = kill_process(Pid::INIT, signal);
    };
    if let Err(error) = std::thread::Builder::new().spawn(move || agent::serve(end)) {
        say::problem("cannot start the guest agent", error);
    }
}

fn look_after(shell: &mut Shell<'_>) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        shell.has_died(pid, ExitStatus::from_raw(status.as_raw()));
    }
    shell.start_if_due();
}

/// What a signal asks of process 1, as busybox's `halt`, `poweroff` and `reboot` send them. A virtual machine that
/// halts would keep its host busy for nothing, so halting it is powering it off.
fn asked_for(signal: i32) -> Option<End> {
    match signal {
        SIGUSR1 | SIGUSR2 => Some(End::PowerOff),
        SIGTERM | SIGINT => Some(End::Reset),
        _ => None,
    }
}

/// The session on the console and its history.
struct Shell<'a> {
    options: &'a Options,
    running: Option<Child>,
    /// When it started, or is to start.
    start: Instant,
    wait: Duration,
    alarm: Sender<Duration>,
    terminal: Option<Termios>,
}

impl<'a> Shell<'a> {
    fn new(options: &'a Options, alarm: Sender<Duration>) -> Self {
        let terminal = tcgetattr(std::io::stdin()).ok();
        Self {
            options,
            running: None,
            start: Instant::now(),
            wait: Duration::ZERO,
            alarm,
            terminal,
        }
    }

    fn start_if_due(&mut self) {
        if self.running.is_some() || Instant::now() < self.start {
            return;
        }
        if let Some(terminal) = &self.terminal {
            // A program that was killed may have left the terminal raw.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, terminal);
        }
        self.start = Instant::now();
        match session::start(self.options) {
            Ok(child) => self.running = Some(child),
            Err(error) => self.plan_next(&format!("cannot be started: {error}")),
        }
    }

    fn has_died(&mut self, pid: Pid, status: ExitStatus) {
        let is_it = |child: &Child| i64::from(child.id()) == i64::from(pid.as_raw_pid());
        if self.running.as_ref().is_some_and(is_it) {
            self.running = None;
            self.plan_next(&format!("ended ({status})"));
        }
    }

    fn plan_next(&mut self, why: &str) {
        self.wait = next_wait(self.wait, self.start.elapsed());
        self.start = Instant::now() + self.wait;
        if !self.wait.is_zero() {
            let (program, seconds) = (self.options.entrypoint.join(" "), self.wait.as_secs());
            say::line(&format!("rvm-init: {program} {why}; again in {seconds} s"));
            let _ = self.alarm.send(self.wait);
        }
    }
}

/// How long to wait before the next session, after one that came after `last` and lasted `lived`.
fn next_wait(last: Duration, lived: Duration) -> Duration {
    if lived >= USED {
        Duration::ZERO
    } else {
        (last * 2).clamp(Duration::from_secs(1), LONGEST_WAIT)
    }
}

fn end_machine(end: End) -> ! {
    say::line(match end {
        End::PowerOff => "rvm-init: the machine is powered off",
        End::Reset => "rvm-init: the machine is reset",
    });
    // The group of process 1 stands for all processes but itself. Shells end by HUP only, stopped ones not without CONT.
    for signal in [Signal::TERM, Signal::HUP, Signal::CONT] {
        let _ = kill_process_group(Pid::INIT, signal);
    }
    wait_for_all();
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
    wait_for_all();
    rustix::fs::sync();
    mounts::unmount_disks();
    let command = match end {
        End::PowerOff => RebootCommand::PowerOff,
        End::Reset => RebootCommand::Restart,
    };
    loop {
        if let Err(error) = reboot(command) {
            say::problem("the kernel does not end the machine", error);
        }
        sleep(GRACE);
    }
}

/// Waits until no process is left, or the grace is over.
fn wait_for_all() {
    let until = Instant::now() + GRACE;
    while Instant::now() < until {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => sleep(LOOK),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busybox_commands_end_the_machine_by_signal() {
        assert_eq!(asked_for(SIGUSR2), Some(End::PowerOff));
        assert_eq!(asked_for(SIGUSR1), Some(End::PowerOff));
        assert_eq!(asked_for(SIGTERM), Some(End::Reset));
        assert_eq!(asked_for(SIGINT), Some(End::Reset));
        assert_eq!(asked_for(SIGCHLD), None);
    }

    #[test]
    fn a_session_that_was_used_is_followed_by_the_next_at_once() {
        assert_eq!(next_wait(Duration::from_secs(8), USED), Duration::ZERO);
    }

    #[test]
    fn a_session_that_fails_at_once_is_tried_ever_more_slowly() {
        let fails = |last| next_wait(Duration::from_secs(last), Duration::ZERO).as_secs();
        assert_eq!([fails(0), fails(1), fails(2), fails(32)], [1, 2, 4, 32]);
    }
}
