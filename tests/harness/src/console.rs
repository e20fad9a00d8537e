//! Someone at a guest's console: reads, types, leaves.

use anyhow::Result;
use rvm_outer::{Output, Session};

use crate::patience::PATIENCE;

/// What leaves a console: Ctrl-].
const LEAVE: &str = "\x1d";

/// A console on a terminal, whatever command shows it.
#[derive(Debug)]
pub struct Console {
    session: Session,
    prompt: String,
}

impl Console {
    /// Waits until the guest's shell is ready; `prompt` is how it shows that.
    ///
    /// # Errors
    /// It does not come.
    pub fn at_prompt(mut session: Session, prompt: &str) -> Result<Self> {
        session.expect(prompt, PATIENCE)?;
        Ok(Self {
            session,
            prompt: prompt.to_owned(),
        })
    }

    /// Types a command, and returns what the guest printed between the line that was typed and its next prompt.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.session.send(format!("{command}\r"))?;
        // The guest's terminal shows what is typed, once, and then a new line.
        self.session.expect(command, PATIENCE)?;
        let said = self.session.expect(&self.prompt, PATIENCE)?;
        Ok(said.trim_end_matches(&self.prompt).trim().to_owned())
    }

    /// Sends keys and expects nothing.
    ///
    /// # Errors
    /// The console is closed.
    pub fn send(&mut self, keys: &str) -> Result<()> {
        self.session.send(keys)
    }

    /// Waits until this is seen.
    ///
    /// # Errors
    /// It is not.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        self.session.expect(text, PATIENCE)
    }

    /// Leaves by the escape key.
    ///
    /// # Errors
    /// The viewer does not end.
    pub fn leave(mut self) -> Result<Output> {
        self.session.send(LEAVE)?;
        self.session.wait(PATIENCE)
    }

    /// Waits until the viewer ends by itself.
    ///
    /// # Errors
    /// It does not.
    pub fn wait(mut self) -> Result<Output> {
        self.session.wait(PATIENCE)
    }
}
