//! Keeps the disks as they are for as long as somebody copies them: `guest-fsfreeze-freeze`, `-thaw` and `-status`.
//!
//! Everything is written to the disks first, and whoever writes then waits until they are thawed. File systems in memory stay
//! as they are: nobody copies them.

use std::fs::File;

use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, ioctl, opcode};

/// Most file systems that are frozen.
const MAX_FROZEN: usize = 64;

const FREEZE: Opcode = opcode::read_write::<i32>(b'X', 119);
const THAW: Opcode = opcode::read_write::<i32>(b'X', 120);

/// What is frozen now.
#[derive(Debug, Default)]
pub(crate) struct Frozen(Vec<File>);

// === impl Frozen ===

impl Frozen {
    /// In QEMU's words.
    pub(crate) fn status(&self) -> &'static str {
        if self.0.is_empty() { "thawed" } else { "frozen" }
    }

    /// Freezes what is mounted at these places, the newest first, since it may lie in an older one. If one cannot be frozen, none is.
    pub(crate) fn freeze(&mut self, places: &[String]) -> Result<usize, String> {
        for place in places.iter().rev().take(MAX_FROZEN) {
            let said = File::open(place).map(|root| (tell::<FREEZE>(&root), root));
            match said {
                Ok((Ok(()), root)) => self.0.push(root),
                // It cannot be frozen at all, or is already: mounted twice, or asked for twice.
                Ok((Err(Errno::OPNOTSUPP | Errno::BUSY), _)) => {}
                Ok((Err(error), _)) => return Err(self.give_up(place, &error.to_string())),
                Err(error) => return Err(self.give_up(place, &error.to_string())),
            }
        }
        Ok(self.0.len())
    }

    /// Thaws everything, and tells how much that was.
    pub(crate) fn thaw(&mut self) -> usize {
        let count = self.0.len();
        for root in self.0.drain(..) {
            // Somebody in the guest may have done it.
            let _ = tell::<THAW>(&root);
        }
        count
    }

    fn give_up(&mut self, place: &str, error: &str) -> String {
        self.thaw();
        format!("failed to freeze {place}: {error}")
    }
}

#[expect(unsafe_code, reason = "file systems are frozen by ioctl only")]
fn tell<const WHAT: Opcode>(root: &File) -> Result<(), Errno> {
    // SAFETY: both take no argument, whatever their number says, and touch no memory of ours.
    unsafe { ioctl(root, IntegerSetter::<WHAT>::new_usize(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What freezes a real disk is a case of the conformance suite, with a guest of its own.
    #[test]
    fn what_cannot_be_frozen_is_passed_over_and_what_is_not_there_is_told() {
        let mut frozen = Frozen::default();
        assert_eq!(frozen.freeze(&["/proc".to_owned()]), Ok(0));
        assert_eq!((frozen.status(), frozen.thaw()), ("thawed", 0));
        let error = frozen.freeze(&["/nonexistent".to_owned()]).unwrap_err();
        assert!(error.starts_with("failed to freeze /nonexistent: "), "{error}");
    }
}
