//! The JSON form of [`Watchdog`].

use serde::{Deserialize, Serialize};

use super::wire_enum;
use crate::{Watchdog, WatchdogAction};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct WatchdogDocument {
    #[serde(default)]
    action: WatchdogActionDocument,
}

wire_enum!(WatchdogActionDocument, WatchdogAction, Reset, Poweroff, Pause);

impl From<WatchdogDocument> for Watchdog {
    fn from(document: WatchdogDocument) -> Self {
        Self {
            action: document.action.into(),
        }
    }
}

impl From<Watchdog> for WatchdogDocument {
    fn from(watchdog: Watchdog) -> Self {
        Self {
            action: watchdog.action.into(),
        }
    }
}
