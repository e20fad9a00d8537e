//! How a machine's life ended, and with which status rvmm does.

use rvmm_control::{EndReason, Ending};
use rvmm_spec::{Outcome, WatchdogAction};

/// The signals that end rvmm, by number: its status is then 128 and this.
const SIGNALS: [(&str, u8); 4] = [("SIGHUP", 1), ("SIGINT", 2), ("SIGQUIT", 3), ("SIGTERM", 15)];

/// How a machine's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// For `exit.json` and for people.
    pub ending: Ending,
    /// The process's exit status.
    pub status: u8,
}

// === impl Finish ===

impl Finish {
    /// The machine failed.
    pub fn failed(message: String) -> Self {
        Self::new(EndReason::Failed, message)
    }

    /// The guest ended by itself, and rvmm with it.
    pub fn by_guest(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Poweroff => Self::new(EndReason::Poweroff, "the guest switched itself off"),
            Outcome::Reset => Self::new(EndReason::Reset, "the guest was reset"),
            Outcome::Failed(why) => Self::failed(why),
        }
    }

    /// Its watchdog ended it, and rvmm with it.
    pub fn by_watchdog(action: WatchdogAction) -> Self {
        match action {
            WatchdogAction::Reset => Self::new(EndReason::Reset, "the guest was reset by its watchdog"),
            WatchdogAction::Poweroff | WatchdogAction::Pause => {
                Self::failed("the guest did not feed its watchdog, which switched it off".to_owned())
            }
        }
    }

    /// Someone ended it: a signal, a key, or a client.
    pub fn killed(who: &str) -> Self {
        let finish = Self::new(EndReason::Killed, format!("ended by {who}"));
        let signal = SIGNALS.iter().find(|(name, _)| *name == who);
        Self {
            status: signal.map_or(finish.status, |(_, number)| 128 + number),
            ..finish
        }
    }

    /// It was to stop, and did not in time. Whoever had none was not waited for.
    pub fn overdue(seconds: u32, was_told: bool) -> Self {
        let reason = if seconds > 0 {
            EndReason::Overdue
        } else {
            EndReason::Killed
        };
        let why = if was_told {
            "it did not switch itself off"
        } else {
            "no guest agent could be asked"
        };
        Self::new(reason, format!("killed after {seconds} s: {why}"))
    }

    fn new(reason: EndReason, message: impl Into<String>) -> Self {
        Self {
            ending: Ending {
                reason,
                message: message.into(),
            },
            status: reason.exit_status(),
        }
    }
}
