//! A watchdog: what becomes of a guest that no longer feeds it.

use std::fmt;
use std::str::FromStr;

/// The one model that there is: the watchdog of Intel's 6300ESB, a function on the PCI bus, as QEMU and KubeVirt have it.
pub const MODEL: &str = "i6300esb";

/// A watchdog, for a guest whose kernel drives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watchdog {
    /// What is done to a guest that does not feed it in time.
    pub action: WatchdogAction,
}

/// What is done to a guest that does not feed its watchdog in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchdogAction {
    /// As if it had asked for a reset.
    #[default]
    Reset,
    /// Its power is cut, and rvmm fails.
    Poweroff,
    /// Its vCPUs stand still, to be looked at.
    Pause,
}

/// The text is no watchdog.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseWatchdogError {
    /// Another one, or none.
    #[error("the watchdog is '{MODEL}', not '{0}'")]
    Model(String),
    /// Not an option of it.
    #[error("'{0}' is not known; 'action=reset', 'action=poweroff' and 'action=pause' are")]
    Option(String),
}

// === impl Watchdog ===

impl FromStr for Watchdog {
    type Err = ParseWatchdogError;

    /// `i6300esb[,action=reset|poweroff|pause]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let model = parts.next().unwrap_or_default();
        if model != MODEL {
            return Err(ParseWatchdogError::Model(model.to_owned()));
        }
        let mut watchdog = Self::default();
        for part in parts {
            let action = part.strip_prefix("action=").and_then(WatchdogAction::named);
            watchdog.action = action.ok_or_else(|| ParseWatchdogError::Option(part.to_owned()))?;
        }
        Ok(watchdog)
    }
}

// === impl WatchdogAction ===

impl WatchdogAction {
    const ALL: [Self; 3] = [Self::Reset, Self::Poweroff, Self::Pause];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Poweroff => "poweroff",
            Self::Pause => "pause",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

impl fmt::Display for WatchdogAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, Disk, Spec, SpecError, Transport};

    #[test]
    fn a_watchdog_resets_unless_told_otherwise() {
        let action = |text: &str| text.parse::<Watchdog>().map(|watchdog| watchdog.action);
        assert_eq!(action("i6300esb"), Ok(WatchdogAction::Reset));
        assert_eq!(action("i6300esb,action=poweroff"), Ok(WatchdogAction::Poweroff));
        assert_eq!(action("i6300esb,action=pause"), Ok(WatchdogAction::Pause));
    }

    #[test]
    fn other_models_and_actions_are_named() {
        let error = |text: &str| text.parse::<Watchdog>().unwrap_err().to_string();
        assert_eq!(error("ib700"), "the watchdog is 'i6300esb', not 'ib700'");
        assert_eq!(
            error("i6300esb,action=none"),
            "'action=none' is not known; 'action=reset', 'action=poweroff' and 'action=pause' are"
        );
    }

    #[test]
    fn it_takes_a_place_on_the_bus_but_none_of_virtio_mmio() {
        let full = |disks, transport| {
            let wish = Spec::builder(Boot::new("Image")).transport(transport);
            let wish = wish.watchdog(Watchdog::default());
            (0..disks).fold(wish, |wish, _| wish.disk(Disk::new("d"))).build()
        };
        assert!(full(6, Transport::Mmio).is_ok() && full(28, Transport::Pci).is_ok());
        assert_eq!(
            full(29, Transport::Pci),
            Err(SpecError::Devices(32, Transport::Pci))
        );
    }
}
