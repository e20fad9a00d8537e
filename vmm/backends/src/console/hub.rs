//! The middle of a machine's console: where the guest's output and the viewers' input meet.
//!
//! ```text
//!   UART, virtio console, QEMU ──write──► backlog ──wake──► event loop ──► terminal, sockets, log   (server.rs)
//!           ▲                                                    │
//!           └──── GuestInput ◄──── input queue, MAX_INPUT ◄──────┘
//! ```
//!
//! A [`Hub`] lives as long as rvmm: a guest's reset swaps the [`GuestInput`], while the backlog, what was typed and the viewers
//! stay. It may be written to from any thread. Writing costs a lock and a copy; only the first write after a pause
//! costs a system call, to wake the event loop.
//!
//! Locks: `write` and `input_room` may be called with a device's lock held. Neither touches the lock under which
//! [`GuestInput::push`] is called, so a device may lock itself there.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rvmm_devices::ConsoleOutput;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::backlog::{BACKLOG, Backlog};
use super::cursor::Cursor;
use super::log::{LOG_BATCH, Log, MAX_LOG};

/// Most bytes of input that wait for the guest. Beyond that viewers are not read, so that nothing typed is lost.
pub const MAX_INPUT: usize = 4 << 10;

/// The guest's end of the input.
pub trait GuestInput {
    /// Takes as many of these bytes as there is room for, and says how many. After it took less than all, the guest's
    /// device calls [`Hub::input_room`] once there is room again.
    fn push(&mut self, bytes: &[u8]) -> usize;
}

/// A machine's console; all clones are the same one.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    output: Mutex<Output>,
    input: Mutex<Input>,
    /// Tells the event loop of output. Signalled only by the one who sets `awake`.
    wake: EventFd,
    awake: AtomicBool,
    /// Tells the event loop that the guest takes input again. Signalled only by the one who clears `starved`.
    room: EventFd,
    starved: AtomicBool,
}

struct Output {
    backlog: Backlog,
    log: Option<Log>,
}

#[derive(Default)]
struct Input {
    guest: Option<Box<dyn GuestInput + Send>>,
    queue: VecDeque<u8>,
}

// === impl Hub ===

impl Hub {
    /// A console that nobody watches yet.
    ///
    /// # Errors
    /// The kernel's, when it gives no event descriptors.
    pub fn new() -> io::Result<Self> {
        let output = Output {
            backlog: Backlog::new(BACKLOG),
            log: None,
        };
        let shared = Shared {
            output: Mutex::new(output),
            input: Mutex::default(),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            awake: AtomicBool::new(false),
            room: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            starved: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// From now on all output also goes into this file, emptied first, at most [`MAX_LOG`] bytes and as many in
    /// `.old`. What the backlog holds already is written first.
    ///
    /// # Errors
    /// The file system's.
    pub fn log_to(&self, path: &Path) -> io::Result<()> {
        let log = Log::create(path, MAX_LOG)?;
        self.output().log = Some(log);
        self.flush_log();
        Ok(())
    }

    /// Takes what the guest printed. Never waits for a viewer.
    pub fn write(&self, bytes: &[u8]) {
        let mut output = self.output();
        for piece in bytes.chunks(LOG_BATCH) {
            let Output { backlog, log } = &mut *output;
            backlog.push(piece);
            if let Some(log) = log.as_mut().filter(|log| log.is_due(backlog)) {
                log.flush(backlog);
            }
        }
        drop(output);
        if !self.shared.awake.swap(true, Ordering::SeqCst) {
            signal(&self.shared.wake);
        }
    }

    /// Connects the input to a guest, or disconnects it. When this returns, the former guest is no longer used. Not
    /// to be called with a device's lock held.
    pub fn set_input(&self, guest: Option<Box<dyn GuestInput + Send>>) {
        self.input().guest = guest;
        signal(&self.shared.room);
    }

    /// The guest's device has room for input again.
    pub fn input_room(&self) {
        if self.shared.starved.swap(false, Ordering::SeqCst) {
            signal(&self.shared.room);
        }
    }

    /// Has the event loop look again for input, of terminals too that were another job's.
    pub fn look_for_input(&self) {
        signal(&self.shared.room);
    }

    /// How many bytes [`Hub::offer`] takes now.
    pub(super) fn input_space(&self) -> usize {
        MAX_INPUT.saturating_sub(self.input().queue.len())
    }

    /// Queues input, at most as much as there is space for, and gives the guest what it takes.
    pub(super) fn offer(&self, bytes: &[u8]) {
        let mut input = self.input();
        let space = MAX_INPUT.saturating_sub(input.queue.len());
        input.queue.extend(bytes.iter().take(space));
        drop(input);
        self.deliver();
    }

    /// Gives the guest as much of the queue as it takes.
    pub(super) fn deliver(&self) {
        // Set before the guest is asked: room that comes up after it refused is then signalled, never missed.
        self.shared.starved.store(true, Ordering::SeqCst);
        let mut input = self.input();
        let Input { guest, queue } = &mut *input;
        while let (Some(guest), (front, _)) = (guest.as_mut(), queue.as_slices()) {
            // An empty push would make some devices say that they have room, which brings us here again.
            let taken = if front.is_empty() {
                0
            } else {
                guest.push(front).min(front.len())
            };
            if taken == 0 {
                break;
            }
            queue.drain(..taken);
        }
        if queue.is_empty() {
            self.shared.starved.store(false, Ordering::SeqCst);
        }
    }

    /// A reader that begins with the replay.
    pub(super) fn replay(&self) -> Cursor {
        Cursor::at_start(&self.output().backlog)
    }

    /// Copies what comes next for a reader.
    pub(super) fn peek(&self, cursor: &mut Cursor, out: &mut [u8]) -> usize {
        cursor.peek(&self.output().backlog, out)
    }

    /// Offset of the next byte the guest will print.
    pub fn end(&self) -> u64 {
        self.output().backlog.end()
    }

    /// Brings the log up to date.
    pub(super) fn flush_log(&self) {
        let mut output = self.output();
        let Output { backlog, log } = &mut *output;
        if let Some(log) = log {
            log.flush(backlog);
        }
    }

    /// The event loop saw the output; the next write wakes it again.
    pub(super) fn rest(&self) {
        self.shared.awake.store(false, Ordering::SeqCst);
    }

    /// Becomes readable after the first write that follows [`Hub::rest`].
    pub(super) fn wake_event(&self) -> &EventFd {
        &self.shared.wake
    }

    /// Becomes readable when [`Hub::deliver`] should be called.
    pub(super) fn room_event(&self) -> &EventFd {
        &self.shared.room
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.shared.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn input(&self) -> MutexGuard<'_, Input> {
        self.shared.input.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConsoleOutput for Hub {
    fn write(&self, bytes: &[u8]) {
        Self::write(self, bytes);
    }
}

impl io::Write for Hub {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::write(self, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Drop for Shared {
    fn drop(&mut self) {
        let Output { backlog, log } = self.output.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = log {
            log.flush(backlog);
        }
    }
}

fn signal(event: &EventFd) {
    // Fails only when the counter is about to overflow, and then the reader is awake anyway.
    event.write(1).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest with room for so many bytes.
    struct Guest {
        room: usize,
        got: Arc<Mutex<Vec<u8>>>,
    }

    impl GuestInput for Guest {
        fn push(&mut self, bytes: &[u8]) -> usize {
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.got.lock().unwrap().extend_from_slice(&bytes[..count]);
            count
        }
    }

    fn connect(hub: &Hub, room: usize) -> Arc<Mutex<Vec<u8>>> {
        let got = Arc::default();
        hub.set_input(Some(Box::new(Guest {
            room,
            got: Arc::clone(&got),
        })));
        hub.room_event().read().unwrap();
        hub.deliver();
        got
    }

    #[test]
    fn input_that_a_reset_guest_did_not_take_reaches_the_next_one() {
        let hub = Hub::new().unwrap();
        let first = connect(&hub, 3);
        hub.offer(b"hello");
        let second = connect(&hub, 10);
        assert_eq!(*first.lock().unwrap(), b"hel");
        assert_eq!(*second.lock().unwrap(), b"lo");
    }

    #[test]
    fn only_the_first_write_wakes_the_loop() {
        let hub = Hub::new().unwrap();
        hub.write(b"a");
        hub.write(b"b");
        assert_eq!(hub.wake_event().read().unwrap(), 1);
        hub.rest();
        hub.write(b"c");
        assert_eq!(hub.wake_event().read().unwrap(), 1);
    }

    #[test]
    fn room_is_signalled_only_to_those_who_wait_for_it() {
        let hub = Hub::new().unwrap();
        let _got = connect(&hub, 1);
        hub.offer(b"a");
        hub.input_room();
        assert!(hub.room_event().read().is_err());
        hub.offer(b"b");
        hub.input_room();
        assert!(hub.room_event().read().is_ok());
    }

    #[test]
    fn a_guest_that_signals_room_whenever_it_is_asked_does_not_keep_the_loop_busy() {
        struct Eager(Hub);
        impl GuestInput for Eager {
            fn push(&mut self, bytes: &[u8]) -> usize {
                self.0.input_room();
                bytes.len()
            }
        }
        let hub = Hub::new().unwrap();
        hub.set_input(Some(Box::new(Eager(hub.clone()))));
        hub.offer(b"a");
        assert!(hub.room_event().read().is_ok());
        hub.deliver();
        assert!(hub.room_event().read().is_err());
    }

    #[test]
    fn the_log_misses_nothing_though_the_loop_never_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let hub = Hub::new().unwrap();
        hub.log_to(&path).unwrap();
        let text: Vec<u8> = (b'a'..=b'z').cycle().take(3 * BACKLOG).collect();
        hub.write(&text);
        drop(hub);
        assert!(std::fs::read(&path).unwrap() == text);
    }
}
