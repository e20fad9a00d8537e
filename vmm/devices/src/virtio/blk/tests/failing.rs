//! Disks whose back end fails for a while.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

pub struct Told(pub Sender<io::ErrorKind>);

impl Trouble for Told {
    fn tell(&self, error: &io::Error) {
        self.0.send(error.kind()).unwrap();
    }
}

fn failing(platter: &Platter, on_error: OnError) -> (Rig, Receiver<io::ErrorKind>) {
    let (told, heard) = channel();
    let block = Block::new(Box::new(platter.clone()), &BlockOptions::default());
    (Rig::up(block.failing(on_error, Box::new(Told(told)))), heard)
}

pub fn fail(platter: &Platter, kind: Option<io::ErrorKind>) {
    *platter.fails.lock().unwrap() = kind;
}

/// Header, data, status of a request in the place with this number.
pub fn chain(memory: &GuestMemoryMmap, place: u64, kind: u32, sector: u64) -> [(u64, u32, u16); 3] {
    let (header, status) = (HEADER + 0x200 * place, STATUS + 0x200 * place);
    poke(memory, header, &kind.to_le_bytes());
    poke(memory, header + 4, &[0; 4]);
    poke(memory, header + 8, &sector.to_le_bytes());
    poke(memory, status, &[0xee]);
    let flags = if kind == 0 { WRITE } else { 0 };
    let data = BUFFER + 0x1000 * place;
    poke(memory, data, &[0x70 + u8::try_from(place).unwrap(); 512]);
    [(header, 16, 0), (data, 512, flags), (status, 1, WRITE)]
}

#[test]
fn a_request_that_waits_is_done_once_the_back_end_can_and_those_after_it_in_their_order() {
    let platter = Platter::new();
    let (mut rig, heard) = failing(&platter, OnError::Stop);
    rig.set_ready(0, false);
    rig.start_queues();
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    fail(&platter, Some(io::ErrorKind::StorageFull));
    let first = ring.add(&chain(&memory, 0, 1, 2));
    let second = ring.add(&chain(&memory, 1, 1, 2));
    let third = ring.add(&chain(&memory, 2, 0, 2));
    rig.run(0);
    rig.run(0);
    assert!(ring.take_used().is_none());
    assert_eq!(peek(&memory, STATUS, 1), [0xee]);
    assert_eq!(
        heard.try_iter().collect::<Vec<_>>(),
        [io::ErrorKind::StorageFull; 2]
    );
    fail(&platter, None);
    rig.run(0);
    assert_eq!(ring.take_used(), Some((first.into(), 1)));
    assert_eq!(ring.take_used(), Some((second.into(), 1)));
    assert_eq!(ring.take_used(), Some((third.into(), 513)));
    assert_eq!(peek(&memory, BUFFER + 0x2000, 512), [0x71; 512]);
    assert_eq!(rig.status() & NEEDS_RESET, 0);
    assert!(heard.try_recv().is_err());
}

#[test]
fn only_a_write_without_space_waits_where_that_is_the_policy() {
    let platter = Platter::new();
    let (mut rig, heard) = failing(&platter, OnError::Enospc);
    fail(&platter, Some(io::ErrorKind::Other));
    assert_eq!(request(&mut rig, 1, 0, &[(BUFFER, 512, 0)]), (IOERR, 1));
    fail(&platter, Some(io::ErrorKind::StorageFull));
    assert_eq!(request(&mut rig, 0, 0, &[(BUFFER, 512, WRITE)]), (IOERR, 1));
    assert!(heard.try_recv().is_err());
}

#[test]
fn an_error_that_is_ignored_is_a_success_for_the_driver() {
    let platter = Platter::new();
    let (mut rig, heard) = failing(&platter, OnError::Ignore);
    fail(&platter, Some(io::ErrorKind::Other));
    assert_eq!(request(&mut rig, 1, 0, &[(BUFFER, 512, 0)]), (OK, 1));
    assert_eq!(request(&mut rig, 4, 0, &[]), (OK, 1));
    assert!(heard.try_recv().is_err());
}

#[test]
fn a_request_beyond_the_disk_fails_whatever_the_policy() {
    let (mut rig, heard) = failing(&Platter::new(), OnError::Stop);
    assert_eq!(
        request(&mut rig, 1, SECTORS.into(), &[(BUFFER, 512, 0)]),
        (IOERR, 1)
    );
    assert!(heard.try_recv().is_err());
}
