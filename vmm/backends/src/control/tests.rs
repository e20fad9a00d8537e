//! The control socket with the real client at its other end.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use event_manager::{EventManager, SubscriberOps};
use rvmm_control::{Accelerator, Client, EndReason, Ending, State};

use super::*;

struct Fake {
    killed: Arc<AtomicBool>,
}

impl Machine for Fake {
    fn info(&self) -> Info {
        Info {
            name: "vm".to_owned(),
            uid: None,
            pid: 1,
            version: "0".to_owned(),
            accelerator: Accelerator::Tcg,
            accelerator_reason: "a test".to_owned(),
            state: State::Running,
            cpus: 1,
            memory_bytes: 1,
            resets: 0,
        }
    }

    fn kill(&mut self) {
        self.killed.store(true, Ordering::SeqCst);
    }
}

/// Serves until the client on another thread is done, and gives what it found.
fn serve<T: Send + 'static>(client: impl FnOnce(&Path, Notifier) -> T + Send + 'static) -> (T, bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let killed = Arc::new(AtomicBool::new(false));
    let machine = Fake {
        killed: Arc::clone(&killed),
    };
    let server = Server::listen(&path, machine).unwrap();
    let notifier = server.notifier();
    let mut events = EventManager::new().unwrap();
    events.add_subscriber(server);
    let client = thread::spawn(move || client(&path, notifier));
    while !client.is_finished() {
        events.run_with_timeout(10).unwrap();
    }
    (client.join().unwrap(), killed.load(Ordering::SeqCst))
}

#[test]
fn a_client_learns_who_the_machine_is_and_kills_it() {
    let ((name, done), killed) = serve(|path, _| {
        let mut client = Client::connect(path).unwrap();
        (client.info().unwrap().name, client.kill().is_ok())
    });
    assert_eq!((name.as_str(), done, killed), ("vm", true, true));
}

#[test]
fn a_subscriber_learns_what_happens_in_its_order() {
    let ended = Event::Ended(Ending {
        reason: EndReason::Poweroff,
        message: "off".to_owned(),
    });
    let sent = vec![Event::Running, Event::Reset, ended];
    let wanted = sent.clone();
    let (got, _) = serve(move |path, notifier| {
        let events = Client::connect(path).unwrap().subscribe().unwrap();
        sent.into_iter().for_each(|event| notifier.notify(event));
        events.take(3).map(Result::unwrap).collect::<Vec<_>>()
    });
    assert_eq!(got, wanted);
}

#[test]
fn a_client_that_shuts_its_half_gets_its_answer_and_then_the_end() {
    let (text, _) = serve(|path, _| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream
            .write_all(b"{\"v\":1,\"id\":5,\"request\":\"info\"}\n")
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    assert!(text.starts_with("{\"id\":5,\"reply\":{\"info\":"), "{text}");
}

#[test]
fn places_are_bounded_and_come_free_again() {
    let (refused, _) = serve(|path, _| {
        let mut held: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| Client::connect(path).unwrap())
            .collect();
        held.iter_mut().for_each(|client| assert!(client.info().is_ok()));
        let refused = Client::connect(path).unwrap().info().is_err();
        drop(held);
        refused
    });
    assert!(refused);
}

#[test]
fn a_line_without_end_closes_the_connection() {
    let (text, _) = serve(|path, _| {
        let mut stream = UnixStream::connect(path).unwrap();
        // The server may close while this is being written.
        stream
            .write_all(&vec![b'x'; rvmm_control::frame::MAX_LINE + 1])
            .ok();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok();
        text
    });
    assert!(text.contains("longer than"), "{text}");
}

#[test]
fn drain_sends_the_last_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let machine = Fake {
        killed: Arc::default(),
    };
    let server = Arc::new(Mutex::new(Server::listen(&path, machine).unwrap()));
    let mut events = EventManager::new().unwrap();
    events.add_subscriber(Arc::clone(&server));
    let subscribing = thread::spawn(move || Client::connect(&path).unwrap().subscribe().unwrap());
    while !subscribing.is_finished() {
        events.run_with_timeout(10).unwrap();
    }
    server.lock().unwrap().notifier().notify(Event::Reset);
    server
        .lock()
        .unwrap()
        .drain(Instant::now() + Duration::from_secs(20));
    drop((events, server));
    let got: Vec<_> = subscribing.join().unwrap().map(Result::unwrap).collect();
    assert_eq!(got, [Event::Reset]);
}
