//! Several commands that are done as one: each after the answer to the one before, all taken back if one is refused.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::bays::Step;
use crate::qmp::Refusal;

/// How long a guest may take to let go of a device, where it has a say in that.
const LET_GO: Duration = Duration::from_secs(5);

/// Told what came of it.
pub(crate) type OnDone = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Commands that are under way.
pub(crate) struct Errand {
    /// The first one was sent.
    steps: VecDeque<Step>,
    /// What takes back those that are done, the last one first.
    undo: VecDeque<Step>,
    /// The device that is waited for, and by when it has to be gone.
    waits: Option<(String, Instant)>,
    /// The device of the step that was sent went before its answer came: QEMU promises no order of the two.
    went: bool,
    failed: Option<String>,
}

/// What is next.
#[derive(Debug)]
pub(crate) enum Next {
    /// This step is to be sent.
    Send,
    /// Its answer, or a device's end, is waited for.
    Wait,
    /// It is over.
    Over(Result<(), String>),
}

// === impl Errand ===

impl Errand {
    /// These steps, none of which is sent yet.
    pub(crate) fn new(steps: Vec<Step>) -> Self {
        Self {
            steps: steps.into(),
            undo: VecDeque::new(),
            waits: None,
            went: false,
            failed: None,
        }
    }

    /// The step that is to be sent now.
    pub(crate) fn step(&self) -> Option<&Step> {
        self.steps.front()
    }

    /// By when something has to happen.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waits.as_ref().map(|(_, deadline)| *deadline)
    }

    /// The step that was sent was done, or refused.
    pub(crate) fn answered(&mut self, answer: Result<(), Refusal>) -> Next {
        let Some(step) = self.steps.pop_front() else {
            return Next::Wait;
        };
        let went = std::mem::take(&mut self.went);
        match (answer, step.gone) {
            (Ok(()), Some(_)) if went => self.next(),
            // It went after it had been given up, or while nobody waited.
            (Err(refusal), Some(_)) if refusal.is_about_nobody() => self.next(),
            (Ok(()), Some(device)) => {
                self.waits = Some((device, Instant::now() + LET_GO));
                Next::Wait
            }
            (Ok(()), None) => {
                step.undo
                    .into_iter()
                    .for_each(|undo| self.undo.push_front(Step::undoing(undo)));
                self.next()
            }
            // What cannot be taken back stays.
            (Err(_), None) if self.failed.is_some() => self.next(),
            (Err(refusal), _) => {
                self.failed = Some(refusal.into_text());
                self.steps = std::mem::take(&mut self.undo);
                self.next()
            }
        }
    }

    /// A device is gone.
    pub(crate) fn gone(&mut self, device: &str) -> Next {
        if self.waits.take_if(|(waits, _)| waits == device).is_some() {
            return self.next();
        }
        self.went |= self
            .step()
            .is_some_and(|step| step.gone.as_deref() == Some(device));
        Next::Wait
    }

    /// The time is over.
    pub(crate) fn overdue(&mut self, now: Instant) -> Next {
        match self.waits.take_if(|(_, deadline)| *deadline <= now) {
            Some(_) => Next::Over(Err("the guest does not let go of it".to_owned())),
            None => Next::Wait,
        }
    }

    fn next(&mut self) -> Next {
        if !self.steps.is_empty() {
            return Next::Send;
        }
        Next::Over(self.failed.take().map_or(Ok(()), Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(why: &str) -> Refusal {
        serde_json::from_value(json!({"class": "GenericError", "desc": why})).unwrap()
    }

    fn step(name: &str) -> Step {
        Step {
            undo: Some(json!(format!("undo {name}"))),
            ..Step::undoing(json!(name))
        }
    }

    fn removal() -> Errand {
        let delete = Step {
            gone: Some("d".to_owned()),
            ..Step::undoing(json!("delete"))
        };
        Errand::new(vec![delete, Step::undoing(json!("close"))])
    }

    #[test]
    fn a_refusal_takes_back_what_was_done() {
        let mut errand = Errand::new(vec![step("a"), step("b"), step("c")]);
        assert!(matches!(errand.answered(Ok(())), Next::Send));
        assert!(matches!(errand.answered(Ok(())), Next::Send));
        assert!(matches!(errand.answered(Err(refusal("no"))), Next::Send));
        assert_eq!(errand.step().unwrap().command, "undo b");
        assert!(matches!(errand.answered(Err(refusal("neither"))), Next::Send));
        assert_eq!(errand.step().unwrap().command, "undo a");
        assert!(matches!(errand.answered(Ok(())), Next::Over(Err(why)) if why == "no"));
    }

    #[test]
    fn a_device_has_to_be_gone_before_what_is_behind_it_is_closed() {
        let mut errand = removal();
        assert!(matches!(errand.answered(Ok(())), Next::Wait));
        assert!(matches!(errand.gone("another"), Next::Wait));
        assert!(matches!(errand.gone("d"), Next::Send));
        assert!(matches!(errand.answered(Ok(())), Next::Over(Ok(()))));
    }

    #[test]
    fn a_device_may_be_gone_before_the_answer() {
        let mut errand = removal();
        assert!(matches!(errand.gone("another"), Next::Wait));
        assert!(matches!(errand.gone("d"), Next::Wait));
        assert!(matches!(errand.answered(Ok(())), Next::Send));
        assert!(matches!(errand.answered(Ok(())), Next::Over(Ok(()))));
        let mut errand = removal();
        assert!(matches!(errand.gone("another"), Next::Wait));
        assert!(matches!(errand.answered(Ok(())), Next::Wait));
    }

    #[test]
    fn a_guest_that_does_not_let_go_is_not_waited_for_for_ever() {
        let mut errand = removal();
        assert!(matches!(errand.answered(Ok(())), Next::Wait));
        let deadline = errand.deadline().unwrap();
        assert!(matches!(errand.overdue(deadline), Next::Over(Err(_))));
    }

    #[test]
    fn a_device_that_went_meanwhile_is_as_good_as_pulled_out() {
        let mut errand = removal();
        let nobody = json!({"class": "DeviceNotFound", "desc": ""});
        let nobody = serde_json::from_value(nobody).unwrap();
        assert!(matches!(errand.answered(Err(nobody)), Next::Send));
    }
}
