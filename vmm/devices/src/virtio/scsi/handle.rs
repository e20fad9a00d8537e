//! The host's side: which units there are, and what the driver has yet to be told of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::spec::{Event, MAX_EVENTS, MAX_UNITS};
use super::unit::Unit;

/// A unit's place. Whoever has begun a command on a unit that is taken out ends it first; then there is none in it.
pub(super) type Place = Arc<Mutex<Option<Unit>>>;

/// A place that may be gone.
pub(super) type WeakPlace = Weak<Mutex<Option<Unit>>>;

/// What others may do with the units, from any thread. Whoever does has queues run then: [`super::Scsi::EVENTS`], so that the
/// driver is told, and after a removal [`super::Scsi::REQUESTS`], so that what waited for the unit is answered.
#[derive(Clone, Default)]
pub struct ScsiHandle(Arc<Shared>);

#[derive(Default)]
pub(super) struct Shared {
    inventory: Mutex<Inventory>,
    events: Mutex<Events>,
}

/// The units, by their numbers.
#[derive(Default)]
struct Inventory {
    places: BTreeMap<u8, Place>,
    /// How often a driver was to be told that they are others.
    changes: u32,
}

#[derive(Default)]
struct Events {
    /// A driver is up that wants to know.
    wanted: bool,
    pending: VecDeque<Event>,
    /// There were more than fit.
    missed: bool,
}

/// The unit's number is taken, or none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is a unit {0} already, or cannot be: they are numbered from 0 to {last}", last = MAX_UNITS - 1)]
pub struct UnitError(pub u8);

// === impl ScsiHandle ===

impl ScsiHandle {
    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Puts a unit in.
    ///
    /// # Errors
    /// [`UnitError`] where its number is taken, or none.
    pub fn insert(&self, lun: u8, mut unit: Unit) -> Result<(), UnitError> {
        let mut inventory = lock(&self.0.inventory);
        if lun >= MAX_UNITS || inventory.places.contains_key(&lun) {
            return Err(UnitError(lun));
        }
        if self.0.note(Event::Came(lun)) {
            inventory.changes = inventory.changes.wrapping_add(1);
        }
        unit.has_heard(inventory.changes);
        inventory.places.insert(lun, Arc::new(Mutex::new(Some(unit))));
        Ok(())
    }

    /// Takes a unit out; false if there is none. The command that it has begun is ended first; then its back end is gone.
    pub fn remove(&self, lun: u8) -> bool {
        let place = {
            let mut inventory = lock(&self.0.inventory);
            let place = inventory.places.remove(&lun);
            if place.is_some() && self.0.note(Event::Went(lun)) {
                inventory.changes = inventory.changes.wrapping_add(1);
            }
            place
        };
        place.is_some_and(|place| lock(&place).take().is_some())
    }
}

// === impl Shared ===

impl Shared {
    /// A unit's place, and how often units have come and gone.
    pub(super) fn find(&self, lun: u8) -> (Option<Place>, u32) {
        let inventory = lock(&self.inventory);
        (inventory.places.get(&lun).cloned(), inventory.changes)
    }

    /// The numbers of all units.
    pub(super) fn luns(&self) -> Vec<u8> {
        lock(&self.inventory).places.keys().copied().collect()
    }

    /// Whether there is no unit.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.inventory).places.is_empty()
    }

    /// A driver is up, or none is. One that comes up looks for itself.
    pub(super) fn listen(&self, wanted: bool) {
        *lock(&self.events) = Events {
            wanted,
            ..Events::default()
        };
    }

    /// Notes what a driver is to be told; false if there is none that wants to know.
    fn note(&self, event: Event) -> bool {
        let mut events = lock(&self.events);
        if events.wanted {
            if events.pending.len() < MAX_EVENTS {
                events.pending.push_back(event);
            } else {
                events.missed = true;
            }
        }
        events.wanted
    }

    /// What comes next, and whether there was more than is told; it stays the next one until [`Shared::told`].
    pub(super) fn next_event(&self) -> Option<(Event, bool)> {
        let events = lock(&self.events);
        let event = events.pending.front().copied();
        event.map(|event| (event, events.missed))
    }

    /// The driver knows the next event now.
    pub(super) fn told(&self) {
        let mut events = lock(&self.events);
        events.pending.pop_front();
        events.missed = false;
    }
}

/// Whoever panicked with the lock left nothing half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
