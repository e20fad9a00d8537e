//! How a machine begins: with a guest that runs, or with one that waits for a word.

/// What the vCPUs do once they are there, at the machine's first boot; after a reset they run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStart {
    /// Run.
    #[default]
    Run,
    /// Stand still before the guest's first instruction, until someone lets them go on.
    Pause,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, Spec};

    #[test]
    fn a_machine_is_paused_at_its_first_boot_only() {
        let wish = Spec::builder(Boot::new("Image"));
        let runs = wish.clone().build().unwrap();
        let waits = wish.on_start(OnStart::Pause).build().unwrap();
        assert_eq!(
            (runs.on_start(), waits.on_start()),
            (OnStart::Run, OnStart::Pause)
        );
        assert_eq!(waits.begun(), runs);
    }
}
