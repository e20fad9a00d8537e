//! The console's promises, seen from its viewers. The event loop is turned by hand until something is so, and the test
//! fails when it does not become so within [`PATIENCE`].

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use event_manager::{EventManager, SubscriberOps};

use super::*;
use crate::console::testing::pty;
use crate::console::{BACKLOG, GuestInput, MAX_INPUT};

const PATIENCE: Duration = Duration::from_secs(20);

struct Console {
    hub: Hub,
    server: Arc<Mutex<Server>>,
    events: EventManager<Arc<Mutex<Server>>>,
    folder: tempfile::TempDir,
}

impl Console {
    fn start(prepare: impl FnOnce(&mut Server)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::new().unwrap();
        let mut server = Server::new(hub.clone()).unwrap();
        server.listen(&folder.path().join("console.sock")).unwrap();
        prepare(&mut server);
        let server = Arc::new(Mutex::new(server));
        let mut events = EventManager::new().unwrap();
        events.add_subscriber(Arc::clone(&server));
        Self {
            hub,
            server,
            events,
            folder,
        }
    }

    /// Connects, without waiting for the server to notice.
    fn view(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join("console.sock")).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    fn turn_until(&mut self, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < end, "the loop was turned for long enough");
            self.events.run_with_timeout(10).unwrap();
        }
    }

    /// Turns the loop until exactly this was read.
    fn expect(&mut self, viewer: &mut (impl Read + ?Sized), text: &[u8]) {
        let mut got = Vec::new();
        self.turn_until(|| {
            let mut buffer = [0; 4096];
            let count = viewer.read(&mut buffer).unwrap_or(0);
            got.extend_from_slice(&buffer[..count]);
            got.len() >= text.len()
        });
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(text));
    }

    fn guest(&self) -> Arc<Mutex<Guest>> {
        let guest = Arc::new(Mutex::new(Guest::default()));
        self.hub.set_input(Some(Box::new(Port(Arc::clone(&guest)))));
        guest
    }
}

/// A guest that takes as much input as it is told to.
#[derive(Default)]
struct Guest {
    room: usize,
    got: Vec<u8>,
}

struct Port(Arc<Mutex<Guest>>);

impl GuestInput for Port {
    fn push(&mut self, bytes: &[u8]) -> usize {
        let mut guest = self.0.lock().unwrap();
        let count = bytes.len().min(guest.room);
        guest.room -= count;
        guest.got.extend_from_slice(&bytes[..count]);
        count
    }
}

fn non_blocking(fd: impl AsFd) {
    rustix::io::ioctl_fionbio(fd, true).unwrap();
}

#[test]
fn a_late_viewer_gets_the_backlog_and_then_what_follows() {
    let mut console = Console::start(|_| {});
    console.hub.write(b"before ");
    let mut viewer = console.view();
    console.expect(&mut viewer, b"before ");
    console.hub.write(b"after");
    console.expect(&mut viewer, b"after");
}

#[test]
fn two_viewers_see_the_same_bytes() {
    let mut console = Console::start(|_| {});
    let (mut first, mut second) = (console.view(), console.view());
    console.hub.write(b"one ");
    console.hub.write(b"two");
    console.expect(&mut first, b"one two");
    console.expect(&mut second, b"one two");
}

#[test]
fn a_viewer_that_does_not_read_stalls_nobody_and_is_told_what_it_lost() {
    let mut console = Console::start(|_| {});
    let (mut slow, mut quick) = (console.view(), console.view());
    let piece = vec![b'x'; BACKLOG / 2];
    console.hub.write(b"<");
    console.expect(&mut quick, b"<");
    for _ in 0..6 {
        console.hub.write(&piece);
        console.expect(&mut quick, &piece);
    }
    let mut got = Vec::new();
    console.turn_until(|| {
        let mut buffer = [0; 65536];
        let count = slow.read(&mut buffer).unwrap_or(0);
        got.extend_from_slice(&buffer[..count]);
        String::from_utf8_lossy(&got).contains("bytes skipped]\r\n")
    });
}

#[test]
fn input_of_several_viewers_reaches_the_guest() {
    let mut console = Console::start(|_| {});
    let guest = console.guest();
    guest.lock().unwrap().room = usize::MAX;
    let (mut first, mut second) = (console.view(), console.view());
    first.write_all(b"ab").unwrap();
    console.turn_until(|| guest.lock().unwrap().got == b"ab");
    second.write_all(b"cd").unwrap();
    console.turn_until(|| guest.lock().unwrap().got == b"abcd");
}

#[test]
fn no_input_is_lost_while_the_guest_takes_none() {
    let mut console = Console::start(|_| {});
    let guest = console.guest();
    let mut viewer = console.view();
    let typed: Vec<u8> = (b'a'..=b'z').cycle().take(5 * MAX_INPUT).collect();
    viewer.write_all(&typed).unwrap();
    console.turn_until({
        let hub = console.hub.clone();
        move || hub.input_space() == 0
    });
    let hub = console.hub.clone();
    console.turn_until(|| {
        guest.lock().unwrap().room = 64;
        hub.input_room();
        guest.lock().unwrap().got.len() >= typed.len()
    });
    assert!(guest.lock().unwrap().got == typed);
}

#[test]
fn what_a_vanished_viewer_typed_still_reaches_the_guest() {
    let mut console = Console::start(|_| {});
    let mut viewer = console.view();
    viewer.write_all(&vec![b'x'; 2 * MAX_INPUT]).unwrap();
    drop(viewer);
    let hub = console.hub.clone();
    console.turn_until(|| hub.input_space() == 0);
    let guest = console.guest();
    guest.lock().unwrap().room = usize::MAX;
    console.turn_until(|| guest.lock().unwrap().got.len() == 2 * MAX_INPUT);
}

#[test]
fn a_viewer_that_closed_its_sending_half_still_sees_output() {
    let mut console = Console::start(|_| {});
    let guest = console.guest();
    guest.lock().unwrap().room = usize::MAX;
    let mut viewer = console.view();
    viewer.write_all(b"bye").unwrap();
    viewer.shutdown(std::net::Shutdown::Write).unwrap();
    console.turn_until(|| guest.lock().unwrap().got == b"bye");
    console.hub.write(b"still here");
    console.expect(&mut viewer, b"still here");
}

#[test]
fn a_vanished_viewer_gives_its_place_to_another() {
    let mut console = Console::start(|_| {});
    console.hub.write(b"hi");
    for _ in 0..MAX_VIEWERS {
        let mut viewer = console.view();
        console.expect(&mut viewer, b"hi");
    }
    let server = Arc::clone(&console.server);
    console.turn_until(|| server.lock().unwrap().places.iter().all(Option::is_none));
    let mut viewers: Vec<_> = (0..MAX_VIEWERS).map(|_| console.view()).collect();
    for viewer in &mut viewers {
        console.expect(viewer, b"hi");
    }
    let mut refused = console.view();
    console.expect(&mut refused, FULL);
}

#[test]
fn ctrl_right_bracket_leaves_a_terminal_and_is_not_sent() {
    let (far, near) = pty();
    let left = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&left);
    let mut console = Console::start(|server| {
        let terminal = Terminal::over(near.as_fd(), near.as_fd()).unwrap();
        server.attach(terminal, Box::new(move || tell.store(true, Ordering::SeqCst)));
    });
    let guest = console.guest();
    guest.lock().unwrap().room = usize::MAX;
    rustix::io::write(&far, b"ls\r\x03\x1dgone").unwrap();
    console.turn_until(|| left.load(Ordering::SeqCst));
    assert_eq!(guest.lock().unwrap().got, b"ls\r\x03");
    non_blocking(&far);
    console.hub.write(b"last\n");
    console.expect(&mut std::fs::File::from(far), b"last\n");
}

#[test]
fn without_a_terminal_every_byte_is_input_and_the_end_of_input_ends_only_input() {
    let (input, mut typist) = io::pipe().unwrap();
    let (mut reader, output) = io::pipe().unwrap();
    let mut console = Console::start(|server| {
        let terminal = Terminal::over(input.as_fd(), output.as_fd()).unwrap();
        server.attach(terminal, Box::new(|| panic!("nobody can leave here")));
    });
    let guest = console.guest();
    guest.lock().unwrap().room = usize::MAX;
    typist.write_all(b"a\x1db").unwrap();
    drop(typist);
    console.turn_until(|| guest.lock().unwrap().got == b"a\x1db");
    non_blocking(&reader);
    console.hub.write(b"goes on");
    console.expect(&mut reader, b"goes on");
}

#[test]
fn a_file_as_input_is_read_as_the_guest_takes_it() {
    let mut input = tempfile::tempfile().unwrap();
    let text: Vec<u8> = (b'a'..=b'z').cycle().take(3 * MAX_INPUT).collect();
    input.write_all(&text).unwrap();
    rustix::fs::seek(&input, rustix::fs::SeekFrom::Start(0)).unwrap();
    let output = tempfile::tempfile().unwrap();
    let mut console = Console::start(|server| {
        let terminal = Terminal::over(input.as_fd(), output.as_fd()).unwrap();
        server.attach(terminal, Box::new(|| ()));
    });
    let guest = console.guest();
    let hub = console.hub.clone();
    console.turn_until(|| {
        guest.lock().unwrap().room = 100;
        hub.input_room();
        guest.lock().unwrap().got.len() >= text.len()
    });
    assert!(guest.lock().unwrap().got == text);
}

#[test]
fn drain_brings_out_everything_that_a_slow_reader_takes() {
    let (input, _typist) = io::pipe().unwrap();
    let (mut reader, output) = io::pipe().unwrap();
    let console = Console::start(|server| {
        let terminal = Terminal::over(input.as_fd(), output.as_fd()).unwrap();
        server.attach(terminal, Box::new(|| ()));
    });
    drop(output);
    let text = vec![b'x'; BACKLOG];
    console.hub.write(&text);
    let reading = std::thread::spawn(move || {
        let mut got = vec![0; BACKLOG];
        reader.read_exact(&mut got).map(|()| got)
    });
    console.server.lock().unwrap().drain(Instant::now() + PATIENCE);
    assert!(reading.join().unwrap().unwrap() == text);
}

#[test]
fn drain_gives_up_on_a_reader_who_takes_nothing() {
    let (input, _typist) = io::pipe().unwrap();
    let (_reader, output) = io::pipe().unwrap();
    let console = Console::start(|server| {
        let terminal = Terminal::over(input.as_fd(), output.as_fd()).unwrap();
        server.attach(terminal, Box::new(|| ()));
    });
    console.hub.write(&vec![b'x'; BACKLOG]);
    console
        .server
        .lock()
        .unwrap()
        .drain(Instant::now() + Duration::from_millis(20));
}
