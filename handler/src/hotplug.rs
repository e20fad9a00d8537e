//! Volumes that come and go while a machine runs: what is to be plugged in or pulled out, and what is said of all volumes. Pure.
//!
//! ```text
//!   in the spec, not in the machine ──► Pending ── plugged in ──► Ready
//!   in the machine, not in the spec ──► Detaching ── pulled out ─► gone
//! ```
//!
//! What the machine has is rvmm's word ([`Info::devices`]), so a handler that starts anew goes on from there. A machine is laid out
//! without these volumes: they come when it is up, after a restart, too.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rvm_types::names::events;
use rvm_types::status::{ClaimInfo, HotplugVolumeStatus, VolumeStatus};
use rvm_types::volume::Volume;
use rvm_types::{VirtualMachineInstance, admission};
use rvmm_control::{Info, State};
use rvmm_spec::DiskBus;
use rvmm_spec::limits::MAX_DEVICE_ID;
use sha2::{Digest, Sha256};

use crate::events::Happening;
use crate::plan::{self, Step};
use crate::status::bounded;
use crate::translate::disks;

/// What the names of our devices begin with; no other device is pulled out.
const PREFIX: &str = "vol-";

/// Digits of its hash in the name of a device whose volume's name is too long for one.
const HASH_DIGITS: usize = 12;

/// Phases of a volume, as KubeVirt has them.
pub const PENDING: &str = "Pending";
/// The machine has it.
pub const READY: &str = "Ready";
/// It is being pulled out.
pub const DETACHING: &str = "Detaching";

/// What became of the devices of a machine that were to come or go, by their names.
pub type Attempts = BTreeMap<String, Attempt>;

/// What became of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempt {
    /// Its size in bytes, where it came.
    pub size: Option<u64>,
    /// It neither came nor went.
    pub failed: Option<Failed>,
}

/// Why a device neither came nor went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// One word.
    pub reason: &'static str,
    /// What went wrong.
    pub message: String,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

/// What is to be done to a machine next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// The disk of this volume is to come.
    Plug(String),
    /// This device is to go.
    Unplug(String),
    /// Nothing before this time.
    At(Timestamp),
}

/// The name of a volume's device.
pub fn device(volume: &str) -> String {
    let name = format!("{PREFIX}{volume}");
    // No volume's name has a `_`.
    if name.len() <= MAX_DEVICE_ID {
        return name;
    }
    let hash = Sha256::digest(volume.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let room = MAX_DEVICE_ID - HASH_DIGITS - 1;
    let head = name.get(..room).unwrap_or(&name);
    format!("{head}_{}", hash.get(..HASH_DIGITS).unwrap_or(&hash))
}

/// The volume that this device is, where it comes and goes.
pub fn volume<'a>(vmi: &'a VirtualMachineInstance, name: &str) -> Option<&'a str> {
    let mut all = vmi.hotpluggable().map(|volume| volume.name.as_str());
    all.find(|volume| device(volume) == name)
}

/// The steps to what is to be done to a machine, once what there is was told.
pub fn steps(vmi: &VirtualMachineInstance, info: &Info, attempts: &Attempts, now: Timestamp) -> Vec<Step> {
    let next = next(vmi, info, attempts, now).map(|next| match next {
        Next::Plug(volume) => Step::Plug(volume),
        Next::Unplug(device) => Step::Unplug(device),
        Next::At(later) => Step::Wait(plan::until(later, now)),
    });
    next.into_iter().collect()
}

/// What is to be done to a machine, if anything.
fn next(vmi: &VirtualMachineInstance, info: &Info, attempts: &Attempts, now: Timestamp) -> Option<Next> {
    if !matches!(info.state, State::Running | State::Paused) {
        return None;
    }
    let there = there(info);
    let wanted: BTreeMap<String, &str> = vmi
        .hotpluggable()
        .map(|volume| (device(&volume.name), volume.name.as_str()))
        .collect();
    let retry = |name: &str| attempts.get(name)?.failed.as_ref().map(|failed| failed.retry_at);
    let waits = |name: &str| retry(name).filter(|at| *at > now);
    // What goes makes room.
    let surplus: Vec<&str> = there
        .iter()
        .copied()
        .filter(|name| !wanted.contains_key(*name))
        .collect();
    if let Some(name) = surplus.iter().find(|name| waits(name).is_none()) {
        return Some(Next::Unplug((*name).to_owned()));
    }
    let missing = || wanted.iter().filter(|(name, _)| !there.contains(name.as_str()));
    if let Some((_, volume)) = missing().find(|(name, _)| waits(name).is_none()) {
        return Some(Next::Plug((*volume).to_owned()));
    }
    let waiting = surplus.iter().filter_map(|name| waits(name));
    let waiting = waiting.chain(missing().filter_map(|(name, _)| waits(name)));
    waiting.min().map(Next::At)
}

/// The devices of a machine that come and go.
fn there(info: &Info) -> BTreeSet<&str> {
    let plugged = info.devices.iter().filter(|device| device.plugged);
    let names = plugged.map(|device| device.id.as_str());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// What is said of a machine's volumes, by their names.
pub fn statuses(vmi: &VirtualMachineInstance, info: &Info, attempts: &Attempts) -> Vec<VolumeStatus> {
    let (there, before) = (there(info), before(vmi));
    let mut all = fixed(vmi);
    let mut taken: BTreeSet<String> = all.iter().map(|volume| volume.target.clone()).collect();
    let old = |name: &str| before.iter().find(|old| old.name == name);
    let stays =
        |old: &&VolumeStatus| old.hotplug_volume.is_some() && there.contains(device(&old.name).as_str());
    taken.extend(before.iter().filter(stays).map(|old| old.target.clone()));
    for volume in vmi.hotpluggable() {
        let name = device(&volume.name);
        let attempt = attempts.get(&name).cloned().unwrap_or_default();
        let mut status = VolumeStatus {
            name: volume.name.clone(),
            hotplug_volume: Some(HotplugVolumeStatus::default()),
            persistent_volume_claim_info: claim(volume),
            size: attempt.size.and_then(|size| size.try_into().ok()),
            ..VolumeStatus::default()
        };
        if there.contains(name.as_str()) {
            let kept = old(&volume.name).filter(|old| !old.target.is_empty());
            status.target = kept.map_or_else(|| free(&taken), |old| old.target.clone());
            taken.insert(status.target.clone());
            status.size = status.size.or(old(&volume.name).and_then(|old| old.size));
            status.phase = Some(READY.to_owned());
            status.reason = Some(events::VOLUME_READY.to_owned());
            status.message = Some(ready(&volume.name));
        } else {
            status.phase = Some(PENDING.to_owned());
            tell(&mut status, attempt.failed);
        }
        all.push(status);
    }
    // What is there and nobody wants any more.
    let gone = |old: &&VolumeStatus| stays(old) && !all.iter().any(|new| new.name == old.name);
    let leaving: Vec<VolumeStatus> = before.iter().filter(gone).cloned().collect();
    for mut status in leaving {
        let attempt = attempts.get(&device(&status.name)).cloned().unwrap_or_default();
        status.phase = Some(DETACHING.to_owned());
        (status.reason, status.message) = (None, None);
        tell(&mut status, attempt.failed);
        all.push(status);
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// What is recorded when that is news.
pub fn events(vmi: &VirtualMachineInstance, info: &Info, attempts: &Attempts) -> Vec<Happening> {
    let (before, now) = (before(vmi), statuses(vmi, info, attempts));
    let find = |all: &[VolumeStatus], name: &str| all.iter().find(|volume| volume.name == name).cloned();
    let came = now.iter().filter_map(|volume| {
        volume.hotplug_volume.as_ref()?;
        let old = find(before, &volume.name);
        let told = |field: fn(&VolumeStatus) -> Option<String>| old.as_ref().and_then(field) == field(volume);
        match volume.phase.as_deref() {
            Some(READY) if !told(|volume| volume.phase.clone()) => {
                Some(Happening::normal(events::VOLUME_READY, ready(&volume.name)))
            }
            Some(PENDING | DETACHING) if !told(|volume| volume.message.clone()) => {
                let message = volume.message.clone()?;
                Some(Happening::warning(events::HOTPLUG_FAILED, message))
            }
            _ => None,
        }
    });
    let had = |old: &&VolumeStatus| old.hotplug_volume.is_some() && !old.target.is_empty();
    let went = before
        .iter()
        .filter(had)
        .filter(|old| find(&now, &old.name).is_none());
    let went = went.map(|old| {
        let message = format!("Volume {} has been unplugged from VM", old.name);
        Happening::normal(events::VOLUME_UNPLUGGED, message)
    });
    came.chain(went).collect()
}

fn ready(volume: &str) -> String {
    format!("Successfully attach hotplugged volume {volume} to VM")
}

fn tell(status: &mut VolumeStatus, failed: Option<Failed>) {
    if let Some(failed) = failed {
        status.reason = Some(failed.reason.to_owned());
        status.message = Some(bounded(&failed.message));
    }
}

fn before(vmi: &VirtualMachineInstance) -> &[VolumeStatus] {
    vmi.status.as_ref().map_or(&[], |status| &status.volume_status)
}

fn claim(volume: &Volume) -> Option<ClaimInfo> {
    let name = volume.claim()?.to_owned();
    Some(ClaimInfo {
        claim_name: Some(name),
        ..ClaimInfo::default()
    })
}

/// The volumes that are there from the start, by the devices that they are.
fn fixed(vmi: &VirtualMachineInstance) -> Vec<VolumeStatus> {
    let mut whole = vmi.clone();
    admission::default(&mut whole);
    let wishes = disks::wishes(&whole).unwrap_or_default();
    let (mut virtio, mut scsi) = (0, 0);
    let mut targets = BTreeMap::new();
    for wish in &wishes {
        let (kind, count) = match wish.bus {
            DiskBus::Virtio => ("vd", &mut virtio),
            DiskBus::Scsi => ("sd", &mut scsi),
        };
        targets.insert(wish.volume.clone(), format!("{kind}{}", letters(*count)));
        *count += 1;
    }
    let volumes = vmi.spec.volumes.iter().filter(|volume| !volume.is_hotpluggable());
    let told = volumes.map(|volume| VolumeStatus {
        name: volume.name.clone(),
        target: targets.remove(&volume.name).unwrap_or_default(),
        persistent_volume_claim_info: claim(volume),
        ..VolumeStatus::default()
    });
    told.collect()
}

/// The first device that nobody has: rvmm takes the lowest number that is free.
fn free(taken: &BTreeSet<String>) -> String {
    let names = (0..).map(|number| format!("sd{}", letters(number)));
    let mut left = names.filter(|name| !taken.contains(name));
    left.next().unwrap_or_default()
}

/// The letters of a disk's number: a to z, then aa.
fn letters(number: usize) -> String {
    let letter = |number: usize| char::from(b'a' + u8::try_from(number % 26).unwrap_or_default());
    match number / 26 {
        0 => letter(number).to_string(),
        more => format!("{}{}", letter(more - 1), letter(number)),
    }
}

#[cfg(test)]
mod tests;
