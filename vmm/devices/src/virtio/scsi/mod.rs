//! The virtio SCSI host (5.6): a controller from the start, whose disks come and go while the guest runs.
//!
//! ```text
//!   requests:  header, CDB │ response │ data ─► Command::parse ─► Unit::serve ─► Medium ─► sense, residual, used
//!                                                     └ has to wait (limits, host's trouble): parked, others go on
//!   ScsiHandle::insert, remove ─► Event ─► events: a buffer of the driver's ─► it looks at that unit, or lets go of it
//!   control:   about what is parked: it is answered on its own queue first, then the wish is
//! ```
//!
//! There is one target, whose units are the disks; without a unit there is none. Its driver needs no bus with hot-plug, and
//! nothing is needed of it: a unit that was taken out is gone, and commands to it are told so.
//!
//! A command is read from guest memory anew each time that it is tried, and checked anew. What a driver is told of units is
//! what a standard target says: first the event, then attention from each unit at its next command.

mod command;
mod handle;
mod pages;
mod request;
mod sense;
mod spec;
mod task;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::VecDeque;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_SCSI;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use self::command::Command;
pub use self::handle::{ScsiHandle, UnitError};
use self::handle::{WeakPlace, lock};
pub use self::pages::MAX_SERIAL;
use self::request::{Header, Room, Verdict};
use self::sense::Sense;
use self::spec::{Config, MAX_UNITS, Response};
use self::unit::{Done, answer};
pub use self::unit::{Unit, UnitOptions};
use super::buffers::{Buffers, Part};
use super::chain::Chain;
use super::device::{MAX_BYTES_PER_TURN, QueueError, Stop, VirtioDevice, next_chain, read_config_bytes};

/// The device.
pub struct Scsi {
    handle: ScsiHandle,
    config: Config,
    /// Commands that wait, oldest first; never more than the queue has places.
    parked: VecDeque<Parked>,
    /// The queue that another one waits for.
    follow_up: Option<usize>,
}

/// A command that waits for its unit.
struct Parked {
    head: u16,
    unit: u8,
    id: u64,
    /// Whom it waits for: not for another unit that has the number later.
    place: WeakPlace,
    /// The driver wants it no more.
    ended: Option<Response>,
}

/// What came of a request.
enum Outcome {
    Answered(u32),
    Waits { unit: u8, id: u64, place: WeakPlace },
}

/// The units that have commands waiting, a bit each: no later one overtakes those.
#[derive(Clone, Copy, Default)]
struct Blocked(u64);

// === impl Blocked ===

impl Blocked {
    fn has(self, unit: u8) -> bool {
        self.0 >> unit & 1 != 0
    }

    fn add(&mut self, unit: u8) {
        self.0 |= 1 << unit;
    }
}

// === impl Scsi ===

impl Scsi {
    /// The queue to run when units came or went.
    pub const EVENTS: usize = spec::EVENTS;
    /// The queue to run when a unit went, or what one waits for is there.
    pub const REQUESTS: usize = spec::REQUESTS;
    /// Most units.
    pub const MAX_UNITS: u8 = MAX_UNITS;

    /// A controller with the units of this handle.
    pub fn new(handle: ScsiHandle) -> Self {
        Self {
            handle,
            config: Config::default(),
            parked: VecDeque::new(),
            follow_up: None,
        }
    }

    fn requests(&mut self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        let mut blocked = Blocked::default();
        let mut bytes = 0;
        self.try_again(queue, memory, &mut blocked, &mut bytes)?;
        let mut buffers = Buffers::default();
        for _ in 0..queue.size() {
            if bytes >= MAX_BYTES_PER_TURN {
                break;
            }
            let Some(chain) = next_chain(queue, memory)? else {
                return Ok(Stop::Empty);
            };
            let head = chain.head_index();
            buffers.load(chain, memory, queue.size())?;
            bytes += buffers.len();
            match self.serve(&mut buffers, &mut blocked)? {
                Outcome::Answered(written) => queue.add_used(memory, head, written)?,
                Outcome::Waits { .. } if self.parked.len() >= queue.size().into() => {
                    return Err(QueueError::TooManyChains);
                }
                Outcome::Waits { unit, id, place } => self.parked.push_back(Parked {
                    head,
                    unit,
                    id,
                    place,
                    ended: None,
                }),
            }
        }
        Ok(Stop::Busy)
    }

    /// Tries what is parked, in its order; what has to wait stays.
    fn try_again(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
        blocked: &mut Blocked,
        bytes: &mut u64,
    ) -> Result<(), QueueError> {
        let mut buffers = Buffers::default();
        for _ in 0..self.parked.len() {
            let Some(mut parked) = self.parked.pop_front() else {
                break;
            };
            let has_turn = !blocked.has(parked.unit) && *bytes < MAX_BYTES_PER_TURN;
            if parked.ended.is_none() && !has_turn {
                blocked.add(parked.unit);
                self.parked.push_back(parked);
                continue;
            }
            let table = GuestAddress(queue.desc_table());
            let chain = Chain::new(memory, table, queue.size(), parked.head);
            buffers.load(chain, memory, queue.size())?;
            let outcome = match parked.ended {
                Some(response) => self.end(&mut buffers, &Verdict::Carried(response))?,
                None if parked.place.strong_count() == 0 => {
                    self.end(&mut buffers, &Verdict::Done(Done::Check(Sense::NO_SUCH_UNIT)))?
                }
                None => {
                    *bytes += buffers.len();
                    self.serve(&mut buffers, blocked)?
                }
            };
            match outcome {
                Outcome::Answered(written) => queue.add_used(memory, parked.head, written)?,
                Outcome::Waits { unit, id, place } => {
                    // A driver that has changed it under way waits under the new name.
                    (parked.unit, parked.id, parked.place) = (unit, id, place);
                    self.parked.push_back(parked);
                }
            }
        }
        Ok(())
    }

    /// Serves a request: how many bytes were written for the answer, or who has to wait.
    fn serve(&self, buffers: &mut Buffers<'_>, blocked: &mut Blocked) -> Result<Outcome, QueueError> {
        let (mut from, mut to) = buffers.parts();
        let response = Room::take(self.config, &mut to)?;
        let Some(header) = Header::read(self.config, &mut from) else {
            return Ok(Outcome::Answered(
                response.fill(&Verdict::Carried(Response::Failure), 0),
            ));
        };
        let all = from.len() + to.len();
        let (Some(unit), id) = (header.unit, header.id) else {
            return Ok(Outcome::Answered(
                response.fill(&Verdict::Carried(Response::BadTarget), all),
            ));
        };
        Ok(
            match self.perform(unit, &header.cdb, &mut from, &mut to, blocked) {
                Ok(verdict) => Outcome::Answered(response.fill(&verdict, all)),
                Err(place) => Outcome::Waits { unit, id, place },
            },
        )
    }

    /// Answers a request that the driver wants no more, or whose unit is gone.
    fn end(&self, buffers: &mut Buffers<'_>, verdict: &Verdict) -> Result<Outcome, QueueError> {
        let (_, mut to) = buffers.parts();
        let room = Room::take(self.config, &mut to)?;
        Ok(Outcome::Answered(room.fill(verdict, to.len())))
    }

    /// Does a command; where it has to wait, for whom.
    fn perform(
        &self,
        lun: u8,
        cdb: &[u8; spec::CDB_LEN],
        from: &mut Part<'_, '_>,
        to: &mut Part<'_, '_>,
        blocked: &mut Blocked,
    ) -> Result<Verdict, WeakPlace> {
        let shared = self.handle.shared();
        if shared.is_empty() {
            return Ok(Verdict::Carried(Response::BadTarget));
        }
        let command = Command::parse(cdb);
        let (place, changes) = shared.find(lun);
        let place = place.unwrap_or_default();
        let mut unit = lock(&place);
        let Some(unit) = unit.as_mut() else {
            return Ok(Verdict::Done(self.without_unit(command, to)));
        };
        if !command.is_ok_and(Command::passes_attention)
            && let Some(attention) = unit.take_attention(changes)
        {
            return Ok(Verdict::Done(Done::Check(attention)));
        }
        let done = match command {
            Err(sense) => Done::Check(sense),
            Ok(Command::ReportLuns { select, room }) => {
                unit.has_heard(changes);
                self.report_luns(select, room, to)
            }
            Ok(Command::RequestSense { room }) => {
                let sense = unit.take_attention(changes).unwrap_or(Sense::NONE);
                answer(to, &sense.bytes(), room)
            }
            Ok(command) if command.is_io() => {
                let done = attempt(unit, lun, command, from, to, blocked);
                done.ok_or_else(|| Arc::downgrade(&place))?
            }
            Ok(command) => unit.serve(command, from, to),
        };
        Ok(Verdict::Done(done))
    }

    /// What a target says for a unit that it has not.
    fn without_unit(&self, command: Result<Command, Sense>, to: &mut Part<'_, '_>) -> Done {
        match command {
            Ok(Command::ReportLuns { select, room }) => self.report_luns(select, room, to),
            Ok(Command::Inquiry { page: None, room }) => answer(to, &pages::nobody(), room),
            Ok(Command::RequestSense { room }) => answer(to, &Sense::NO_SUCH_UNIT.bytes(), room),
            _ => Done::Check(Sense::NO_SUCH_UNIT),
        }
    }

    fn report_luns(&self, select: u8, room: u32, to: &mut Part<'_, '_>) -> Done {
        match pages::units(select, &self.handle.shared().luns()) {
            Ok(bytes) => answer(to, &bytes, room),
            Err(sense) => Done::Check(sense),
        }
    }

    fn reset_units(&self) {
        let shared = self.handle.shared();
        for lun in shared.luns() {
            let (place, _) = shared.find(lun);
            place
                .iter()
                .for_each(|place| lock(place).iter_mut().for_each(Unit::reset));
        }
    }

    /// Tells the driver what it has buffers for.
    fn events(&self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        let mut buffers = Buffers::default();
        let shared = self.handle.shared();
        while let Some((event, missed)) = shared.next_event() {
            let Some(chain) = next_chain(queue, memory)? else {
                return Ok(Stop::Empty);
            };
            let head = chain.head_index();
            buffers.load(chain, memory, queue.size())?;
            let (_, mut to) = buffers.parts();
            let written = to.write(&event.bytes(missed));
            queue.add_used(memory, head, u32::try_from(written).unwrap_or(0))?;
            shared.told();
        }
        Ok(Stop::BackendIdle)
    }
}

/// Has a unit do what has to do with its medium, unless that has to wait: for those before it, its limits, or the host.
fn attempt(
    unit: &mut Unit,
    lun: u8,
    command: Command,
    from: &mut Part<'_, '_>,
    to: &mut Part<'_, '_>,
    blocked: &mut Blocked,
) -> Option<Done> {
    if blocked.has(lun) || unit.medium().is_ahead() {
        blocked.add(lun);
        return None;
    }
    unit.medium().count(from.len() + to.len());
    let done = unit.serve(command, from, to);
    if let Some(error) = unit.medium().waits_for() {
        blocked.add(lun);
        unit.medium().tell(&error);
        return None;
    }
    Some(done)
}

impl VirtioDevice for Scsi {
    fn id(&self) -> u32 {
        VIRTIO_ID_SCSI
    }

    fn features(&self) -> u64 {
        spec::FEATURE_HOTPLUG
    }

    fn queue_sizes(&self) -> &[u16] {
        &spec::QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config.bytes(), offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.config.write(offset, data);
    }

    fn activate(&mut self, acked: u64) {
        let shared = self.handle.shared();
        shared.listen(acked & spec::FEATURE_HOTPLUG != 0);
    }

    fn process(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError> {
        match index {
            spec::CONTROL => self.control(queue, memory),
            spec::EVENTS => self.events(queue, memory),
            _ => {
                let had_ended = self.parked.iter().any(|parked| parked.ended.is_some());
                let stop = self.requests(queue, memory)?;
                if had_ended {
                    self.follow_up = Some(spec::CONTROL);
                }
                Ok(stop)
            }
        }
    }

    fn follow_up(&mut self) -> Option<usize> {
        self.follow_up.take()
    }

    fn stop_queue(&mut self, index: usize) {
        if index == spec::REQUESTS {
            self.parked.clear();
        }
    }

    fn reset(&mut self) {
        self.config = Config::default();
        self.parked.clear();
        self.follow_up = None;
        self.handle.shared().listen(false);
        self.reset_units();
    }
}
