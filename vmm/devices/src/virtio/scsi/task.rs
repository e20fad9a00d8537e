//! What is on the control queue: wishes about commands under way (5.6.6.2), and about news that there are none of.

use virtio_bindings::virtio_scsi::{
    VIRTIO_SCSI_T_AN_QUERY, VIRTIO_SCSI_T_AN_SUBSCRIBE, VIRTIO_SCSI_T_TMF, VIRTIO_SCSI_T_TMF_ABORT_TASK,
    VIRTIO_SCSI_T_TMF_ABORT_TASK_SET, VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET, VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET,
    VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, VIRTIO_SCSI_T_TMF_QUERY_TASK, VIRTIO_SCSI_T_TMF_QUERY_TASK_SET,
};

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::handle::lock;
use super::spec::{self, NOTIFICATION_LEN, Response, TASK_LEN, unit_of};
use super::{Scsi, Unit};
use crate::virtio::buffers::{Buffers, Part};
use crate::virtio::device::{QueueError, Stop, next_chain};

/// A wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Task {
        what: Task,
        /// The unit, `None` for a target that is not.
        unit: Option<u8>,
        id: u64,
    },
    /// To hear of media and power, of which there is nothing to hear.
    Notification { unit: Option<u8> },
    /// None that is known, or not all of it.
    Unknown,
}

/// What is to become of commands that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Abort,
    AbortAll,
    ResetUnit,
    ResetAll,
    Query,
    QueryAll,
    /// Of those that are known, but not here.
    Rejected,
}

// === impl Scsi ===

impl Scsi {
    /// Serves the control queue.
    pub(super) fn control(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError> {
        let mut buffers = Buffers::default();
        for _ in 0..queue.size() {
            let Some(chain) = next_chain(queue, memory)? else {
                return Ok(Stop::Empty);
            };
            let head = chain.head_index();
            buffers.load(chain, memory, queue.size())?;
            let (mut from, mut to) = buffers.parts();
            let wish = Wish::read(&mut from);
            if self.ends_some(wish) {
                // It is the next one again, when those are answered.
                queue.set_next_avail(queue.next_avail().wrapping_sub(1));
                self.follow_up = Some(spec::REQUESTS);
                return Ok(Stop::BackendIdle);
            }
            let written = wish.answer(&mut to, self.respond_to(wish));
            if written == 0 {
                return Err(QueueError::NoStatus);
            }
            queue.add_used(memory, head, u32::try_from(written).unwrap_or(0))?;
        }
        Ok(Stop::Busy)
    }

    /// Ends what waits and what this is to end; whether there was any.
    fn ends_some(&mut self, wish: Wish) -> bool {
        let Wish::Task {
            what,
            unit: Some(unit),
            id,
        } = wish
        else {
            return false;
        };
        let Some(response) = what.ends_with() else {
            return false;
        };
        let mut any = false;
        for parked in &mut self.parked {
            if what.concerns(unit, id, parked.unit, parked.id) {
                parked.ended = Some(response);
                any = true;
            }
        }
        any
    }

    fn respond_to(&self, wish: Wish) -> Response {
        let (unit, task) = match wish {
            Wish::Task { unit, what, id } => (unit, Some((what, id))),
            Wish::Notification { unit } => (unit, None),
            Wish::Unknown => return Response::Failure,
        };
        let shared = self.handle.shared();
        let Some(lun) = unit.filter(|_| !shared.is_empty()) else {
            return Response::BadTarget;
        };
        let Some((what, id)) = task else {
            return Response::Ok;
        };
        let (place, _) = shared.find(lun);
        match what {
            Task::Rejected => Response::Rejected,
            Task::ResetAll => {
                self.reset_units();
                Response::Ok
            }
            _ if place.is_none() => Response::IncorrectLun,
            Task::ResetUnit => {
                place
                    .iter()
                    .for_each(|place| lock(place).iter_mut().for_each(Unit::reset));
                Response::Ok
            }
            Task::Abort | Task::AbortAll => Response::Ok,
            Task::Query | Task::QueryAll => {
                let mut parked = self.parked.iter();
                let is_there = parked.any(|parked| what.concerns(lun, id, parked.unit, parked.id));
                if is_there {
                    Response::Succeeded
                } else {
                    Response::Ok
                }
            }
        }
    }
}

// === impl Wish ===

impl Wish {
    pub(super) fn read(from: &mut Part<'_, '_>) -> Self {
        let mut bytes = [0; TASK_LEN];
        let len = from.read(&mut bytes);
        let [t0, t1, t2, t3, s0, s1, s2, s3, lun @ ..] = bytes;
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            VIRTIO_SCSI_T_TMF if len == TASK_LEN => {
                let [l0, l1, l2, l3, l4, l5, l6, l7, id @ ..] = lun;
                Self::Task {
                    what: Task::of(u32::from_le_bytes([s0, s1, s2, s3])),
                    unit: unit_of([l0, l1, l2, l3, l4, l5, l6, l7]),
                    id: u64::from_le_bytes(id),
                }
            }
            VIRTIO_SCSI_T_AN_QUERY | VIRTIO_SCSI_T_AN_SUBSCRIBE if len >= NOTIFICATION_LEN => {
                let [l4, l5, l6, l7, ..] = lun;
                Self::Notification {
                    unit: unit_of([s0, s1, s2, s3, l4, l5, l6, l7]),
                }
            }
            _ => Self::Unknown,
        }
    }

    /// Writes the answer; how many bytes that are.
    pub(super) fn answer(self, to: &mut Part<'_, '_>, response: Response) -> usize {
        match self {
            // Of the news that were asked for, none is to come.
            Self::Notification { .. } => to.write(&[0, 0, 0, 0, response as u8]),
            Self::Task { .. } | Self::Unknown => to.write(&[response as u8]),
        }
    }
}

// === impl Task ===

impl Task {
    fn of(subtype: u32) -> Self {
        match subtype {
            VIRTIO_SCSI_T_TMF_ABORT_TASK => Self::Abort,
            VIRTIO_SCSI_T_TMF_ABORT_TASK_SET | VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET => Self::AbortAll,
            VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET => Self::ResetUnit,
            VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET => Self::ResetAll,
            VIRTIO_SCSI_T_TMF_QUERY_TASK => Self::Query,
            VIRTIO_SCSI_T_TMF_QUERY_TASK_SET => Self::QueryAll,
            _ => Self::Rejected,
        }
    }

    /// What commands that it ends are answered; `None` if it ends none.
    pub(super) fn ends_with(self) -> Option<Response> {
        match self {
            Self::Abort | Self::AbortAll => Some(Response::Aborted),
            Self::ResetUnit | Self::ResetAll => Some(Response::Reset),
            Self::Query | Self::QueryAll | Self::Rejected => None,
        }
    }

    /// Whether it is about a command with this id, of this unit.
    pub(super) fn concerns(self, unit: u8, id: u64, of: u8, with: u64) -> bool {
        match self {
            Self::Abort | Self::Query => unit == of && id == with,
            Self::AbortAll | Self::QueryAll | Self::ResetUnit => unit == of,
            Self::ResetAll => true,
            Self::Rejected => false,
        }
    }
}
