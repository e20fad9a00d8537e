//! A guest that does not feed its watchdog: what was asked for is done to it, whichever backend runs it, and everyone is told.

use rvmm_control::{Event, State};
use rvmm_spec::{OnReset, WatchdogAction};

use super::{Finish, Supervisor};

impl Supervisor<'_> {
    /// The guest did not feed its watchdog in time.
    pub(super) fn bitten(&mut self) -> anyhow::Result<Option<Finish>> {
        let Some(watchdog) = self.spec.watchdog() else {
            return Ok(None);
        };
        let action = watchdog.action;
        self.say(&format!("the guest did not feed its watchdog: {action}"));
        self.notify(Event::Watchdog(action.into()));
        match action {
            // Nobody is left in it who could switch it off.
            _ if self.stop.is_some() => Ok(Some(Finish::killed("its watchdog"))),
            WatchdogAction::Reset if self.spec.on_reset() == OnReset::Restart => {
                self.restart()?;
                Ok(None)
            }
            WatchdogAction::Reset | WatchdogAction::Poweroff => Ok(Some(Finish::by_watchdog(action))),
            WatchdogAction::Pause => {
                // Where someone pauses it or lets it go on in this moment, that is what counts.
                if self.state == State::Running && self.changing.is_none() {
                    self.guest.iter().for_each(super::Guest::pause);
                }
                Ok(None)
            }
        }
    }
}
