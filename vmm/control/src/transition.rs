//! Which request is taken in which state. The one table that decides it, for both backends.
//!
//! ```text
//!   starting ──► running ◄──pause, resume──► paused ◄── starting, where the machine starts paused
//!      ▲            │ stop                      │ stop: goes on first
//!      │ reset      ▼                           │
//!      └─────── stopping ◄──────────────────────┘        any of them ── kill, power-off, failure ──► ended
//! ```

use crate::message::{Refusal, RefusalCode, Request, State};

/// The columns of [`RULES`].
const STATES: [State; 5] = [
    State::Starting,
    State::Running,
    State::Paused,
    State::Stopping,
    State::Ended,
];

/// Taken.
const YES: bool = true;
/// Refused.
const NO: bool = false;

/// A request and, for each state, whether it is taken.
type Rule = (&'static str, [bool; STATES.len()]);

/// `stop` while stopping joins the one that goes on, and may only shorten it.
const RULES: [Rule; 13] = [
    //               starting running paused stopping ended
    ("info", [YES, YES, YES, YES, YES]),
    ("stats", [YES, YES, YES, YES, YES]),
    ("subscribe", [YES, YES, YES, YES, YES]),
    ("pause", [NO, YES, NO, NO, NO]),
    ("resume", [NO, NO, YES, NO, NO]),
    ("stop", [YES, YES, YES, YES, NO]),
    ("kill", [YES, YES, YES, YES, NO]),
    ("reset", [NO, YES, YES, NO, NO]),
    ("balloon", [NO, YES, NO, NO, NO]),
    ("ask-agent", [NO, YES, NO, NO, NO]),
    ("add-disk", [NO, YES, YES, NO, NO]),
    ("add-net", [NO, YES, YES, NO, NO]),
    ("remove-device", [NO, YES, YES, NO, NO]),
];

/// Whether a machine in this state takes the request.
///
/// # Errors
/// A [`Refusal`] that names the state, and those in which it would be taken.
pub fn check(request: &Request, state: State) -> Result<(), Refusal> {
    let rule = RULES.iter().find(|(name, _)| *name == request.name());
    let taken_in: Vec<State> = STATES
        .into_iter()
        .zip(rule.map_or([NO; STATES.len()], |(_, taken)| *taken))
        .filter_map(|(state, taken)| taken.then_some(state))
        .collect();
    if taken_in.contains(&state) {
        return Ok(());
    }
    let names: Vec<&str> = taken_in.into_iter().map(State::name).collect();
    Err(Refusal::new(
        RefusalCode::State,
        format!(
            "the machine is {}; '{}' needs one that is {}",
            state.name(),
            request.name(),
            names.join(" or ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::requests;

    #[test]
    fn every_request_has_its_row_and_each_is_taken_somewhere() {
        let names: Vec<&str> = requests().iter().map(Request::name).collect();
        assert_eq!(RULES.map(|(name, _)| name).to_vec(), names);
        for (name, taken) in RULES {
            assert!(taken.contains(&YES), "{name}");
        }
    }

    #[test]
    fn a_refusal_names_the_state_and_what_would_be_needed() {
        let refusal = check(&Request::Resume, State::Running).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::State);
        assert_eq!(
            refusal.message,
            "the machine is running; 'resume' needs one that is paused"
        );
    }

    #[test]
    fn nothing_but_looking_is_left_when_the_machine_has_ended() {
        let left = requests()
            .into_iter()
            .filter(|request| check(request, State::Ended).is_ok());
        assert_eq!(
            left.collect::<Vec<_>>(),
            [Request::Info, Request::Stats, Request::Subscribe]
        );
    }

    #[test]
    fn a_machine_can_always_be_killed_before_it_has_ended() {
        for state in [State::Starting, State::Running, State::Paused, State::Stopping] {
            assert_eq!(check(&Request::Kill, state), Ok(()));
        }
    }
}
