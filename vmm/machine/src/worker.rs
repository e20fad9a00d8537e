//! A thread with an event loop of its own, for a device that may wait long for its host: a disk.
//!
//! ```text
//!   main loop: console, control socket, networks …      worker "disk0": that disk's slot, and nothing else
//!                      │                                     ▲
//!                      └ Machine::stop ─ Worker::stop ─ bell ┘ ─► last request done ─► slot dropped ─► joined
//! ```
//!
//! However long a flush takes, the rest of the machine goes on; and whoever stops a worker knows that no request of its
//! device is under way, that its memory is not touched any more, and that its files are closed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use rvmm_sandbox::{Sandbox, Thread};
use std::os::fd::AsRawFd;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A subscriber that another thread may hold.
type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// A running worker.
pub struct Worker {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

struct Stop {
    asked: AtomicBool,
    bell: EventFd,
}

/// Wakes the loop; why is in the flag.
struct Bell(Arc<Stop>);

// === impl Worker ===

impl Worker {
    /// Serves this subscriber from now on, on a thread that is confined to what disks need.
    ///
    /// # Errors
    /// The host has no more threads or descriptors.
    pub fn start(
        name: String,
        slot: impl MutEventSubscriber + Send + 'static,
        sandbox: &Sandbox,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop {
            asked: AtomicBool::new(false),
            bell: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        });
        let mut events = EventManager::<Subscriber>::new().map_err(io::Error::other)?;
        events.add_subscriber(Box::new(Bell(Arc::clone(&stop))));
        events.add_subscriber(Box::new(slot));
        let asked = Arc::clone(&stop);
        let (ready, confined) = mpsc::channel();
        let sandbox = *sandbox;
        let serve = move || {
            // Who started this waits for the word.
            let confined = sandbox.confine(Thread::Disk);
            let is_confined = confined.is_ok();
            ready.send(confined.map(drop)).ok();
            while is_confined && !asked.asked.load(Ordering::Acquire) {
                if let Err(error) = events.run() {
                    tracing::error!(?error, "a disk's event loop failed; its guest waits for ever");
                    return;
                }
            }
        };
        let thread = Builder::new().name(name).spawn(serve)?;
        confined
            .recv()
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        Ok(Self { stop, thread })
    }

    /// Waits for the request that is under way, and ends.
    pub fn stop(self) {
        self.stop.asked.store(true, Ordering::Release);
        // A counter that is full has rung already.
        self.stop.bell.write(1).ok();
        // A worker's thread does not panic; if it did, its panic has been reported, and the device is gone anyway.
        self.thread.join().ok();
    }
}

impl MutEventSubscriber for Bell {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Refused only when the kernel has no memory left.
        ops.add(Events::new_raw(self.0.bell.as_raw_fd(), EventSet::IN))
            .ok();
    }

    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        self.0.bell.read().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A device whose only request takes until it is told to end; it says when it begins and when it is gone.
    struct Slow {
        kick: EventFd,
        end: Receiver<()>,
        said: Sender<&'static str>,
    }

    impl MutEventSubscriber for Slow {
        fn init(&mut self, ops: &mut EventOps<'_>) {
            ops.add(Events::new_raw(self.kick.as_raw_fd(), EventSet::IN))
                .unwrap();
        }

        fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
            self.kick.read().unwrap();
            self.said.send("begun").unwrap();
            self.end.recv().unwrap();
            self.said.send("done").unwrap();
        }
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            self.said.send("gone").ok();
        }
    }

    #[test]
    fn a_stop_waits_for_the_request_under_way_and_leaves_nothing_of_the_device() {
        let (end, ended) = channel();
        let (said, heard) = channel();
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        kick.write(1).unwrap();
        let slow = Slow {
            kick,
            end: ended,
            said: said.clone(),
        };
        let worker = Worker::start("slow".to_owned(), slow, &Sandbox::none()).unwrap();
        // This thread goes on while the request is under way.
        assert_eq!(heard.recv().unwrap(), "begun");
        let stopping = std::thread::spawn(move || {
            worker.stop();
            said.send("stopped").unwrap();
        });
        end.send(()).unwrap();
        stopping.join().unwrap();
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["done", "gone", "stopped"]);
    }

    #[test]
    fn a_worker_with_nothing_to_do_stops() {
        let (_end, ended) = channel();
        let (said, heard) = channel();
        let idle = Slow {
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            end: ended,
            said,
        };
        Worker::start("idle".to_owned(), idle, &Sandbox::none())
            .unwrap()
            .stop();
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["gone"]);
    }
}
