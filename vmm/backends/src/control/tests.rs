//! The control socket with the real client at its other end.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use event_manager::{EventManager, SubscriberOps};
use rvmm_control::{Accelerator, Client, ClientError, Device, EndReason, Ending, Event, Info, State};

use super::*;

/// Answers at once, but keeps a `pause` until the next `resume`.
#[derive(Default)]
struct Fake {
    killed: Arc<AtomicBool>,
    pausing: Vec<Answer>,
}

fn info() -> Info {
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
        uptime_seconds: 0,
        agent: false,
        devices: Vec::new(),
        disk_error: None,
    }
}

impl Machine for Fake {
    fn call(&mut self, request: Request, opened: Vec<OwnedFd>, answer: Answer) {
        match request {
            Request::AddDisk { .. } => {
                let mut files: Vec<_> = opened.into_iter().map(File::from).collect();
                let mut id = format!("{} ", files.len());
                files.iter_mut().for_each(|file| {
                    file.read_to_string(&mut id).unwrap();
                });
                let backend = String::new();
                answer.send(Reply::Plugged(Device {
                    id,
                    backend,
                    plugged: true,
                }));
            }
            Request::Info => answer.send(Reply::Info(Box::new(info()))),
            Request::Kill => {
                self.killed.store(true, Ordering::SeqCst);
                answer.send(Reply::Done);
            }
            Request::Pause => self.pausing.push(answer),
            Request::Resume => {
                self.pausing
                    .drain(..)
                    .for_each(|pausing| pausing.send(Reply::Done));
                answer.send(Reply::Done);
            }
            Request::Reset => drop(answer),
            _ => answer.send(Reply::Done),
        }
    }
}

/// Serves until the client on another thread is done, and gives what it found.
fn serve<T: Send + 'static>(client: impl FnOnce(&Path, Notifier) -> T + Send + 'static) -> (T, bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let killed = Arc::new(AtomicBool::new(false));
    let machine = Fake {
        killed: Arc::clone(&killed),
        pausing: Vec::new(),
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
fn a_request_that_takes_time_holds_up_neither_its_client_nor_others() {
    let (done, _) = serve(|path, _| {
        let mut slow = UnixStream::connect(path).unwrap();
        slow.write_all(
            b"{\"v\":1,\"id\":5,\"request\":\"pause\"}\n{\"v\":1,\"id\":6,\"request\":\"info\"}\n",
        )
        .unwrap();
        slow.shutdown(Shutdown::Write).unwrap();
        let mut first = [0; 8];
        slow.read_exact(&mut first).unwrap();
        let mut other = Client::connect(path).unwrap();
        other.info().unwrap();
        other.perform(Request::Resume).unwrap();
        let mut rest = String::new();
        slow.read_to_string(&mut rest).unwrap();
        (first, rest)
    });
    assert_eq!(&done.0, b"{\"id\":6,");
    assert!(done.1.ends_with("{\"id\":5,\"reply\":\"done\"}\n"), "{}", done.1);
}

#[test]
fn unanswered_requests_of_one_client_are_bounded() {
    let (text, _) = serve(|path, _| {
        let mut stream = UnixStream::connect(path).unwrap();
        let call = b"{\"v\":1,\"id\":5,\"request\":\"pause\"}\n";
        stream.write_all(&call.repeat(MAX_CALLS + 1)).unwrap();
        let mut text = [0; 32];
        stream.read_exact(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    assert_eq!(text, "{\"id\":5,\"reply\":{\"refused\":{\"cod");
}

#[test]
fn a_request_that_nobody_answers_is_refused() {
    let (refused, _) = serve(|path, _| Client::connect(path).unwrap().perform(Request::Reset));
    assert!(matches!(refused, Err(ClientError::Refused(refusal)) if refusal.code == RefusalCode::Failed));
}

#[test]
fn an_answer_does_not_reach_whoever_has_the_askers_place_now() {
    let (text, _) = serve(|path, _| {
        let mut gone = UnixStream::connect(path).unwrap();
        gone.write_all(b"{\"v\":1,\"id\":5,\"request\":\"pause\"}\nno request\n")
            .unwrap();
        gone.read_exact(&mut [0; 8]).unwrap();
        drop(gone);
        let mut next = UnixStream::connect(path).unwrap();
        next.write_all(b"{\"v\":1,\"id\":6,\"request\":\"resume\"}\n")
            .unwrap();
        next.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        next.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(text, "{\"id\":6,\"reply\":\"done\"}\n");
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
    let server = Arc::new(Mutex::new(Server::listen(&path, Fake::default()).unwrap()));
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

fn add_disk() -> Request {
    Request::AddDisk {
        id: None,
        disk: (&rvmm_spec::Disk::new("/d")).into(),
    }
}

#[test]
fn descriptors_come_along_with_the_request_that_needs_them() {
    let (said, _) = serve(|path, _| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"an image").unwrap();
        file.rewind().unwrap();
        let mut client = Client::connect(path).unwrap();
        let first = client.plug(add_disk(), &[file.as_fd()]).unwrap();
        // They are used once.
        let second = client.plug(add_disk(), &[]).unwrap();
        [first.id, second.id]
    });
    assert_eq!(said, ["1 an image", "0 "]);
}

#[test]
fn a_client_that_sends_too_many_descriptors_is_given_up() {
    let (result, _) = serve(|path, _| {
        let file = tempfile::tempfile().unwrap();
        let mut client = Client::connect(path).unwrap();
        // None of these takes any.
        (0..MAX_DESCRIPTORS + 2)
            .map(|_| client.plug(Request::Info, &[file.as_fd()]))
            .find(|result| matches!(result, Err(ClientError::Closed | ClientError::Socket(_))))
    });
    assert!(result.is_some());
}
