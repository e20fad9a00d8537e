//! Waiting for what must come: long enough that only a defect is cut, and with words for what did not come.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take that will come if it comes at all. Never what a test measures.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// How often it is looked for.
const TICK: Duration = Duration::from_millis(100);

/// What is seen when it is looked for once more.
#[derive(Debug)]
pub enum Look<T> {
    /// There it is.
    Here(T),
    /// Not yet; what is there instead, for the message.
    NotYet(String),
}

impl<T> Look<T> {
    /// There, if it is.
    pub fn of(found: Option<T>, instead: impl FnOnce() -> String) -> Self {
        found.map_or_else(|| Self::NotYet(instead()), Self::Here)
    }
}

/// Looks until it is there.
///
/// # Errors
/// What looking ended in, or what was there instead when patience ended.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match look()? {
            Look::Here(found) => return Ok(found),
            Look::NotYet(instead) if Instant::now() > until => {
                bail!("no {what} within {} s; instead: {instead}", PATIENCE.as_secs())
            }
            Look::NotYet(_) => thread::sleep(TICK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_is_waited_for() {
        let mut looks = 0;
        let found = eventually("third look", || {
            looks += 1;
            Ok(Look::of((looks == 3).then_some(looks), || "fewer".to_owned()))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_look_that_fails_ends_the_waiting() {
        let error = eventually::<()>("anything", || bail!("it is gone")).unwrap_err();
        assert_eq!(error.to_string(), "it is gone");
    }
}
