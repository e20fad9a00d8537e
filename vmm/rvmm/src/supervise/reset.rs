//! From one boot of the guest to the next: by its own wish, its watchdog's, or a client's.

use std::time::{Duration, Instant};

use rvmm_control::{Event, State};

use super::Supervisor;

impl Supervisor<'_> {
    /// Boots the guest again after it was reset by itself or its watchdog, at once or, where that happens in a loop, later.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        let pause = self.throttle.after(self.started.elapsed());
        self.begin_again()?;
        if pause.is_zero() {
            self.boot()?;
        } else {
            self.say_that_it_is_slowed_down(pause);
            self.again = Some(Instant::now() + pause);
        }
        Ok(())
    }

    /// A client pressed the reset button.
    pub(super) fn reset(&mut self) -> anyhow::Result<()> {
        self.begin_again()?;
        self.boot()
    }

    /// Takes the guest down for the next boot.
    fn begin_again(&mut self) -> anyhow::Result<()> {
        self.end_guest();
        self.resets += 1;
        self.spec = self.spec.begun();
        self.state = State::Starting;
        self.notify(Event::Reset);
        // What they wanted was of the boot that is over: each is held against the state that is now.
        self.changing = None;
        self.disk_error = None;
        self.on_its_way = None;
        for (request, opened, answer) in std::mem::take(&mut self.line) {
            self.call(request, opened, answer)?;
        }
        Ok(())
    }

    fn say_that_it_is_slowed_down(&self, pause: Duration) {
        self.say(&format!(
            "the guest was reset {} times in quick succession; it starts again in {} s",
            self.throttle.quick(),
            pause.as_secs()
        ));
    }
}
