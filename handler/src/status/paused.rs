//! A machine that stands still: by somebody's wish, or for a disk that could not do what the guest asked of it. In KubeVirt's words.

use jiff::Timestamp;
use rvm_types::VirtualMachineInstance;
use rvm_types::condition::{self, Condition};
use rvm_types::names::{conditions, events, reasons};
use rvmm_control::{Info, State};

use super::{Edit, bounded};
use crate::events::Happening;
use crate::hotplug;
use crate::translate::disks;

/// Says whether it stands still, and why.
pub(super) fn apply(edit: &mut Edit, info: &Info, now: Timestamp) {
    if info.state != State::Paused {
        edit.without_condition(conditions::PAUSED);
        return;
    }
    let (reason, message) = if info.disk_error.is_some() {
        let message = "VMI was paused, low-level IO error detected";
        (reasons::PAUSED_IO_ERROR, message)
    } else {
        (reasons::PAUSED_BY_USER, "VMI was paused by user")
    };
    let paused = Condition::new(conditions::PAUSED, condition::TRUE);
    edit.condition(paused.because(reason, message), now);
}

/// What is recorded when a disk has failed; `vmi` is the object before that was said.
pub(super) fn event(info: &Info, vmi: &VirtualMachineInstance) -> Option<Happening> {
    let error = info.disk_error.as_ref().filter(|_| info.state == State::Paused)?;
    let conditions = vmi.status.as_ref().map(|status| &status.conditions);
    let paused = conditions.and_then(|all| condition::find(all, conditions::PAUSED));
    if paused.is_some() {
        return None;
    }
    // The disks of a checked VMI are in this order.
    let number = error.disk.strip_prefix("disk");
    let number = number.and_then(|number| number.parse::<usize>().ok());
    let disks = disks::wishes(vmi).unwrap_or_default();
    let volume = number
        .and_then(|number| disks.get(number))
        .map(|disk| disk.volume.as_str());
    let volume = volume.or_else(|| hotplug::volume(vmi, &error.disk));
    let volume = volume.unwrap_or(&error.disk);
    let text = format!(
        "VM Paused due to IO error at the volume: {volume}: {}",
        error.message
    );
    Some(Happening::warning(events::IO_ERROR, bounded(&text)))
}
