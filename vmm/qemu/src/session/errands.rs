//! Devices that are plugged in and pulled out: one errand at a time, each command after the answer to the last.
//!
//! What is plugged in before a boot is there before its guest's first instruction.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rvmm_spec::DeviceId;

use super::{Progress, Session};
use crate::QemuError;
use crate::bays::Step;
use crate::errand::{Errand, Next, OnDone};
use crate::wishes::Wish;

/// What is under way.
pub(super) struct UnderWay {
    errand: Errand,
    device: DeviceId,
    is_plug: bool,
    /// Who wants to know; nobody where the start needs it.
    on_done: Option<OnDone>,
}

// === impl Session ===

impl Session {
    /// Takes up the next errand if none is under way. When those of a start are done, the guest runs, or is ready to.
    pub(super) fn next_errand(&mut self) -> Result<(), QemuError> {
        let may = matches!(self.progress, Progress::Plugging | Progress::Started);
        while may && self.under_way.is_none() {
            let Some((wish, on_done)) = self.ends.wishes.take_errand() else {
                if self.progress == Progress::Plugging {
                    self.tell_vcpus(Progress::Listening)?;
                }
                return Ok(());
            };
            let (device, is_plug, steps) = match wish {
                Wish::Plug {
                    device,
                    is_block_device,
                } => {
                    let id = device.id.clone();
                    (id, true, self.bays.plug(device, is_block_device))
                }
                Wish::Unplug(id) => {
                    let steps = self.bays.unplug(&id);
                    (id, false, steps)
                }
            };
            self.under_way = Some(UnderWay {
                errand: Errand::new(steps.unwrap_or_default()),
                device,
                is_plug,
                on_done,
            });
            self.go_on(|errand| match errand.step() {
                Some(_) => Next::Send,
                None => Next::Over(Err("there is no place for it".to_owned())),
            })?;
        }
        Ok(())
    }

    /// Does what follows from something that happened.
    pub(super) fn go_on(&mut self, happened: impl FnOnce(&mut Errand) -> Next) -> Result<(), QemuError> {
        let Some(under_way) = &mut self.under_way else {
            return Ok(());
        };
        match happened(&mut under_way.errand) {
            Next::Wait => Ok(()),
            Next::Send => match under_way.errand.step() {
                Some(step) => send(&self.sockets.qmp, step),
                None => Ok(()),
            },
            Next::Over(result) => self.over(result),
        }
    }

    fn over(&mut self, result: Result<(), String>) -> Result<(), QemuError> {
        let Some(done) = self.under_way.take() else {
            return Ok(());
        };
        if done.is_plug == result.is_err() {
            self.bays.forget(&done.device);
        }
        match (done.on_done, result) {
            (Some(on_done), result) => on_done(result),
            (None, Err(why)) => return Err(QemuError::Start(format!("device '{}': {why}", done.device))),
            (None, Ok(())) => {}
        }
        Ok(())
    }

    /// By when something has to happen: the start, or a guest's consent.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let start = (self.progress != Progress::Started).then_some(self.deadline);
        let consent = self
            .under_way
            .as_ref()
            .and_then(|under_way| under_way.errand.deadline());
        start.into_iter().chain(consent).min()
    }
}

/// Sends a command, and what goes along. It is a short line, for which the socket has room.
fn send(socket: impl AsFd, step: &Step) -> Result<(), QemuError> {
    let line = format!("{}\n", step.command);
    let along: Vec<_> = step.along.iter().map(AsFd::as_fd).collect();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut room);
    if !along.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&along));
    }
    let pieces = [IoSlice::new(line.as_bytes())];
    match sendmsg(socket, &pieces, &mut ancillary, SendFlags::NOSIGNAL) {
        Ok(sent) if sent == line.len() => Ok(()),
        Ok(_) => Err(QemuError::System(std::io::ErrorKind::WouldBlock.into())),
        Err(errno) => Err(QemuError::System(errno.into())),
    }
}
