//! The file system device against well-meaning and hostile drivers, and against servers that die.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::virtio::driver::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, EVENT_IDX, FEATURES_OK, NEEDS_RESET, RAM, RING_SIZE, Rig, VERSION_1,
};
use crate::virtio::served::Rings;

/// What the server was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Start(usize, u16, u64),
    Kick(usize),
    Stop(usize),
}

#[derive(Clone, Default)]
struct Server {
    told: Arc<Mutex<Vec<Told>>>,
    dead: Arc<Mutex<bool>>,
    features: u64,
}

impl Server {
    fn tell(&self, told: Told) -> io::Result<()> {
        if *self.dead.lock().unwrap() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.told.lock().unwrap().push(told);
        Ok(())
    }

    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl RingServer for Server {
    fn features(&self) -> u64 {
        self.features
    }

    fn start(&mut self, index: usize, rings: Rings, features: u64) -> io::Result<()> {
        assert!(rings.descriptors >= RAM && rings.available >= RAM && rings.used >= RAM);
        self.tell(Told::Start(index, rings.size, features))
    }

    fn kick(&mut self, index: usize) -> io::Result<()> {
        self.tell(Told::Kick(index))
    }

    fn stop(&mut self, index: usize) {
        self.tell(Told::Stop(index)).ok();
    }
}

fn server() -> Server {
    Server {
        features: u64::MAX,
        ..Server::default()
    }
}

fn rig(server: &Server) -> Rig {
    Rig::up(Fs::new(Box::new(server.clone()), "data"))
}

fn up(server: &Server) -> Rig {
    let rig = rig(server);
    rig.core.lock().unwrap().run_queue(0);
    rig.core.lock().unwrap().run_queue(1);
    server.told();
    rig
}

#[test]
fn the_driver_reads_tag_and_number_of_queues() {
    let fs = Fs::new(Box::new(server()), "data");
    let mut config = [0xff; 44];
    fs.read_config(0, &mut config);
    assert_eq!(&config[..5], b"data\0");
    assert_eq!(config[36..], [1, 0, 0, 0, 0, 0, 0, 0]);
    let mut beyond = [0xff; 4];
    fs.read_config(u64::MAX, &mut beyond);
    assert_eq!(beyond, [0; 4]);
}

#[test]
fn what_the_server_does_not_know_is_not_offered() {
    let knows = Server {
        features: VERSION_1,
        ..Server::default()
    };
    let mut rig = Rig::new(Fs::new(Box::new(knows), "data"));
    assert_eq!(rig.offered(), VERSION_1);
    assert_ne!(
        Rig::new(Fs::new(Box::new(server()), "data")).offered() & EVENT_IDX,
        0
    );
}

#[test]
fn a_queue_is_started_once_and_kicked_from_then_on() {
    let server = server();
    let rig = rig(&server);
    assert_eq!(server.told(), [], "nothing is done on the vCPU's thread");
    rig.core.lock().unwrap().run_queue(1);
    rig.core.lock().unwrap().run_queue(1);
    let told = server.told();
    assert!(matches!(told[0], Told::Start(1, RING_SIZE, features) if features & VERSION_1 != 0));
    assert_eq!(told[1..], [Told::Kick(1), Told::Kick(1)]);
    rig.core.lock().unwrap().run_queue(7);
    assert_eq!(server.told(), []);
}

#[test]
fn a_reset_gives_back_what_was_started() {
    let server = server();
    let mut rig = rig(&server);
    rig.core.lock().unwrap().run_queue(1);
    server.told();
    rig.reset();
    assert_eq!(server.told(), [Told::Stop(1)]);
    rig.come_up();
    rig.core.lock().unwrap().run_queue(0);
    assert!(matches!(server.told()[..], [Told::Start(0, ..), Told::Kick(0)]));
    drop(rig);
    assert_eq!(server.told(), [Told::Stop(0)]);
}

#[test]
fn a_queue_that_is_taken_back_is_started_anew() {
    let server = server();
    let mut rig = up(&server);
    rig.set_ready(1, false);
    assert_eq!(server.told(), [Told::Stop(1)]);
    rig.core.lock().unwrap().run_queue(1);
    assert_eq!(server.told(), [], "a queue that is not ready is not served");
    rig.set_ready(1, true);
    rig.core.lock().unwrap().run_queue(1);
    assert!(matches!(server.told()[..], [Told::Start(1, ..), Told::Kick(1)]));
}

#[test]
fn a_dead_server_leaves_a_device_that_needs_a_reset_each_time() {
    let server = server();
    let mut rig = up(&server);
    *server.dead.lock().unwrap() = true;
    rig.core.lock().unwrap().run_queue(0);
    assert_ne!(rig.status() & NEEDS_RESET, 0);
    rig.reset();
    assert_eq!(rig.status(), 0);
    rig.come_up();
    rig.core.lock().unwrap().run_queue(0);
    assert_ne!(rig.status() & NEEDS_RESET, 0);
}

#[test]
fn what_the_server_used_is_an_interrupt_while_the_driver_is_up() {
    let server = server();
    let mut rig = Rig::new(Fs::new(Box::new(server.clone()), "data"));
    rig.core.lock().unwrap().announce(1);
    assert_eq!(rig.irq.count(), 0);
    rig.come_up();
    rig.core.lock().unwrap().announce(1);
    assert_eq!(rig.irq.count(), 1);
    rig.core.lock().unwrap().announce(2);
    assert_eq!(rig.irq.count(), 1, "a queue that does not exist");
}

#[test]
fn rings_that_are_not_in_ram_never_reach_the_server() {
    let server = server();
    let mut rig = Rig::new(Fs::new(Box::new(server.clone()), "data"));
    rig.accept(VERSION_1);
    rig.advance(ACKNOWLEDGE | DRIVER);
    rig.accept(VERSION_1);
    rig.advance(FEATURES_OK);
    rig.place_queue(1, RING_SIZE.into(), 0x1000, 0x2000, 0x3000);
    rig.set_ready(1, true);
    rig.advance(DRIVER_OK);
    rig.core.lock().unwrap().run_queue(1);
    assert_ne!(rig.status() & NEEDS_RESET, 0);
    assert_eq!(server.told(), []);
}
