//! A shared folder in the event loop, with a driver before it and a server of a few lines behind it.

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use event_manager::{EventManager, SubscriberOps};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rvmm_devices::virtio::MmioTransport;
use rvmm_devices::{BusDevice, IrqLine};
use rvmm_spec::MemorySize;

use super::*;
use crate::slots::{Doorbells, Slot};

const RAM: u32 = 0x8000_0000;
const NEEDS_RESET: u32 = 64;

/// What the server got with its queues' messages: kick and call, by queue.
type Ends = Vec<(u64, u32, OwnedFd)>;

#[derive(Default)]
struct Pulses(AtomicU32);

impl IrqLine for Pulses {
    fn trigger(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// One message with its descriptor: request and first number of its body.
fn heard(stream: &UnixStream) -> Option<(u32, u64, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let mut header = [0; 12];
    let came = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut header)],
        &mut along,
        RecvFlags::WAITALL,
    );
    came.ok().filter(|came| came.bytes == header.len())?;
    let descriptor = along.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let mut body = vec![0; word(8) as usize];
    std::io::Read::read_exact(&mut &*stream, &mut body).unwrap();
    body.resize(8, 0);
    Some((
        word(0),
        u64::from_ne_bytes(body[..8].try_into().unwrap()),
        descriptor,
    ))
}

/// Agrees to everything until both queues are enabled, and then gives the descriptors that it got; lives until it is told
/// to die.
fn serve(listener: &UnixListener, ends: &Sender<Ends>, die: &Receiver<()>) {
    let (stream, _) = listener.accept().unwrap();
    let mut got = Vec::new();
    let mut enabled = 0;
    while enabled < 2 {
        let (request, number, descriptor) = heard(&stream).unwrap();
        let value: Option<u64> = match request {
            1 => Some(1 << 32 | 1 << 30),
            15 => Some(1),
            17 => Some(2),
            _ => None,
        };
        if let Some(value) = value {
            let words = [request, 5, 8].map(u32::to_ne_bytes).concat();
            (&stream)
                .write_all(&[&words[..], &value.to_ne_bytes()].concat())
                .unwrap();
        }
        enabled += u32::from(request == 18);
        got.extend(descriptor.map(|descriptor| (number, request, descriptor)));
    }
    ends.send(got).unwrap();
    die.recv().unwrap();
}

/// A server at a socket in a folder.
struct Served {
    _folder: tempfile::TempDir,
    share: Share,
    ends: Receiver<Ends>,
    die: Sender<()>,
    thread: JoinHandle<()>,
}

fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fs.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (said, ends) = channel();
    let (die, dies) = channel();
    Served {
        share: Share::new("data", path).unwrap(),
        ends,
        die,
        thread: thread::spawn(move || serve(&listener, &said, &dies)),
        _folder: folder,
    }
}

fn write(transport: &mut MmioTransport, register: u64, value: u32) {
    transport.write(register, &value.to_le_bytes());
}

fn status(transport: &mut MmioTransport) -> u32 {
    let mut status = [0; 4];
    transport.read(0x70, &mut status);
    u32::from_le_bytes(status)
}

/// From reset to DRIVER_OK, with both queues.
fn bring_up(transport: &mut MmioTransport) {
    write(transport, 0x70, 3);
    write(transport, 0x24, 1);
    write(transport, 0x20, 1);
    write(transport, 0x70, 11);
    for queue in [0, 1] {
        let rings = RAM + 0x4000 * queue;
        let fields = [(0x30, queue), (0x38, 16), (0x80, rings), (0x90, rings + 0x1000)];
        for (register, value) in fields.into_iter().chain([(0xa0, rings + 0x2000), (0x44, 1)]) {
            write(transport, register, value);
        }
    }
    write(transport, 0x70, 15);
}

fn written(ends: &Ends, queue: u64, request: u32) -> &OwnedFd {
    let end = ends
        .iter()
        .find(|(of, as_what, _)| (*of, *as_what) == (queue, request));
    &end.unwrap().2
}

#[test]
fn kicks_reach_the_server_its_calls_the_guest_and_its_death_the_driver() {
    let served = served();
    let backing = rvmm_spec::MemoryBacking {
        shared: true,
        ..rvmm_spec::MemoryBacking::default()
    };
    let ram = rvmm_boot::memory::back(MemorySize::from_mib(32), backing).unwrap();
    let memory = ram.memory();
    let (device, mut backend) = folder(&served.share, &Servers::default(), memory).unwrap();
    let doorbells = Doorbells::new(&*device, backend.as_mut()).unwrap();
    let irq = Arc::new(Pulses::default());
    let line = Arc::<Pulses>::clone(&irq);
    let mut transport = MmioTransport::new(device, memory.clone(), line, doorbells.kick());
    let slot = Slot::new(Arc::clone(transport.core()), doorbells.clone(), backend);
    let mut events = EventManager::<Slot>::new().unwrap();
    events.add_subscriber(slot);

    bring_up(&mut transport);
    events.run().unwrap();
    let ends = served.ends.recv().unwrap();

    // What KVM rings is what the server has; it was kicked once at the start.
    let mut count = [0; 8];
    rustix::io::read(written(&ends, 1, 12), &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
    doorbells.caught().nth(1).unwrap().write(1).unwrap();
    rustix::io::read(written(&ends, 1, 12), &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);

    assert_eq!(irq.0.load(Ordering::SeqCst), 0);
    rustix::io::write(written(&ends, 1, 13), &1u64.to_ne_bytes()).unwrap();
    events.run().unwrap();
    assert_eq!(irq.0.load(Ordering::SeqCst), 1);

    assert_eq!(status(&mut transport) & NEEDS_RESET, 0);
    served.die.send(()).unwrap();
    served.thread.join().unwrap();
    events.run().unwrap();
    assert_ne!(status(&mut transport) & NEEDS_RESET, 0);
}
