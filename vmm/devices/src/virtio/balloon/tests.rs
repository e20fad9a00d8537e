//! The balloon against well-meaning and hostile drivers: checklist E.

use std::sync::{Arc, Mutex};

use super::*;
use crate::BusDevice;
use crate::virtio::driver::{
    DATA, EVENT_IDX, HIGH_RAM, HOLE, NEEDS_RESET, RAM, Rig, Ring, VERSION_1, WRITE, peek, poke,
};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REPORTING: usize = 3;
const STATS_FEATURE: u64 = 1 << 1;
const REPORTING_FEATURE: u64 = 1 << 5;

/// Notes what is given back, and fills it with `z` as a sign.
#[derive(Clone, Default)]
struct Host {
    requests: Arc<Mutex<Vec<Vec<usize>>>>,
    refuses: bool,
}

impl PageRelease for Host {
    fn release(&mut self, pages: &[VolatileSlice<'_>]) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::other("refused"));
        }
        pages
            .iter()
            .for_each(|page| page.copy_from(&vec![b'z'; page.len()]));
        let lengths = pages.iter().map(VolatileSlice::len).collect();
        self.requests.lock().unwrap().push(lengths);
        Ok(())
    }
}

impl Host {
    /// Bytes of each slice of each request.
    fn requests(&self) -> Vec<Vec<usize>> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn up(host: &Host) -> (Rig, BalloonHandle) {
    let handle = BalloonHandle::default();
    let rig = Rig::up(Balloon::new(Box::new(host.clone()), handle.clone()));
    (rig, handle)
}

fn pfn(addr: u64) -> [u8; 4] {
    u32::try_from(addr >> 12).unwrap().to_le_bytes()
}

/// Puts these addresses' page numbers into one request on this queue.
fn request(rig: &mut Rig, queue: usize, addrs: &[u64]) {
    let numbers: Vec<u8> = addrs.iter().flat_map(|&addr| pfn(addr)).collect();
    poke(&rig.memory, DATA, &numbers);
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, queue);
    let before = ring.used_idx();
    ring.add(&[(DATA, u32::try_from(numbers.len()).unwrap(), 0)]);
    rig.run(queue);
    assert_eq!(ring.used_idx(), before + 1, "a request always comes back");
}

fn config(rig: &mut Rig) -> [u32; 2] {
    let mut config = [0; 8];
    rig.transport.read(0x100, &mut config);
    let (words, _) = config.as_chunks::<4>();
    [u32::from_le_bytes(words[0]), u32::from_le_bytes(words[1])]
}

#[test]
fn the_target_reaches_the_driver_and_what_it_gave_reaches_the_host() {
    let (mut rig, handle) = up(&Host::default());
    handle.set_target(8 << 20);
    assert_eq!((config(&mut rig), handle.target()), ([2048, 0], 8 << 20));
    rig.transport.write(0x104, &2000u32.to_le_bytes());
    assert_eq!((config(&mut rig), handle.actual()), ([2048, 2000], 2000 << 12));
    rig.reset();
    assert_eq!((config(&mut rig), handle.actual()), ([2048, 0], 0));
}

#[test]
fn only_the_driver_s_own_field_can_be_written_and_only_as_a_whole() {
    let (mut rig, _) = up(&Host::default());
    for (offset, data) in [
        (0x100, &[1, 1, 1, 1][..]),
        (0x104, &[1, 1]),
        (0x106, &[1, 1, 1, 1]),
        (0x100, &[1; 8]),
    ] {
        rig.transport.write(offset, data);
    }
    assert_eq!(config(&mut rig), [0, 0]);
}

#[test]
fn a_target_beyond_all_numbers_is_the_largest() {
    let (mut rig, handle) = up(&Host::default());
    handle.set_target(u64::MAX);
    assert_eq!(config(&mut rig), [u32::MAX, 0]);
}

#[test]
fn pages_given_are_released_and_nothing_else() {
    let host = Host::default();
    let (mut rig, handle) = up(&host);
    let page = RAM + 0x18_0000;
    poke(&rig.memory, page - 1, &[1; 0x3002]);
    request(&mut rig, INFLATE, &[page, page + 0x2000]);
    assert_eq!(
        (host.requests(), handle.released()),
        (vec![vec![0x1000; 2]], 0x2000)
    );
    assert_eq!(
        [
            page - 1,
            page,
            page + 0xfff,
            page + 0x1000,
            page + 0x2fff,
            page + 0x3000
        ]
        .map(|at| peek(&rig.memory, at, 1)[0]),
        [1, b'z', b'z', 1, b'z', 1]
    );
}

#[test]
fn numbers_that_are_no_ram_mean_nothing() {
    let host = Host::default();
    let (mut rig, handle) = up(&host);
    request(
        &mut rig,
        INFLATE,
        &[0, HOLE, 0x1000_0000, 0x0fff_ffff_f000, HIGH_RAM],
    );
    assert_eq!((host.requests(), handle.released()), (vec![vec![0x1000]], 0x1000));
    request(&mut rig, INFLATE, &[0, HOLE]);
    assert_eq!((host.requests(), rig.status() & NEEDS_RESET), (vec![], 0));
}

#[test]
fn the_same_page_twice_and_pages_in_use_are_the_guest_s_own_loss() {
    let host = Host::default();
    let (mut rig, _) = up(&host);
    let kernel = RAM + 0x8_0000;
    request(&mut rig, INFLATE, &[kernel, kernel, DATA]);
    assert_eq!(host.requests(), [[0x1000; 3]]);
    request(&mut rig, INFLATE, &[kernel]);
    assert_eq!((host.requests().len(), rig.status() & NEEDS_RESET), (1, 0));
}

#[test]
fn a_request_is_looked_at_up_to_a_limit() {
    let host = Host::default();
    let (mut rig, _) = up(&host);
    let numbers: Vec<u8> = pfn(RAM + 0x18_0000).repeat(3 * MAX_PAGES_PER_REQUEST);
    poke(&rig.memory, DATA, &numbers);
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, INFLATE);
    ring.add(&[(DATA, u32::try_from(numbers.len()).unwrap(), 0)]);
    rig.run(INFLATE);
    assert_eq!(ring.take_used(), Some((0, 0)));
    assert_eq!(
        host.requests().iter().map(Vec::len).sum::<usize>(),
        MAX_PAGES_PER_REQUEST
    );
}

#[test]
fn half_a_number_is_none() {
    let host = Host::default();
    let (mut rig, _) = up(&host);
    poke(&rig.memory, DATA, &pfn(RAM + 0x18_0000).repeat(2));
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, INFLATE);
    ring.add(&[(DATA, 7, 0)]);
    ring.add(&[(DATA, 3, 0)]);
    ring.add(&[(DATA, 0, 0)]);
    ring.add(&[(DATA, 4, WRITE)]);
    rig.run(INFLATE);
    assert_eq!((ring.used_idx(), host.requests()), (4, vec![vec![0x1000]]));
}

#[test]
fn pages_taken_back_release_nothing() {
    let host = Host::default();
    let (mut rig, _) = up(&host);
    request(&mut rig, DEFLATE, &[RAM + 0x18_0000]);
    assert_eq!(host.requests(), [[0usize; 0]; 0]);
}

#[test]
fn a_host_that_refuses_changes_nothing_for_the_guest() {
    let host = Host {
        refuses: true,
        ..Host::default()
    };
    let (mut rig, handle) = up(&host);
    request(&mut rig, INFLATE, &[RAM + 0x18_0000]);
    assert_eq!((handle.released(), rig.status() & NEEDS_RESET), (0, 0));
}

#[test]
fn free_pages_that_are_reported_are_released_in_one_request() {
    let host = Host::default();
    let (mut rig, handle) = up(&host);
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, REPORTING);
    let page = RAM + 0x18_0000;
    ring.add(&[(page, 0x2000, WRITE), (page + 0x4000, 0x1000, WRITE)]);
    rig.run(REPORTING);
    assert_eq!(ring.take_used(), Some((0, 0)));
    assert_eq!(
        (host.requests(), handle.released()),
        (vec![vec![0x2000, 0x1000]], 0x3000)
    );
}

#[test]
fn buffers_that_may_only_be_read_are_no_report() {
    let host = Host::default();
    let (mut rig, _) = up(&host);
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, REPORTING);
    ring.add(&[(RAM + 0x18_0000, 0x1000, 0)]);
    rig.run(REPORTING);
    assert_eq!((ring.used_idx(), host.requests()), (1, vec![]));
}

#[test]
fn a_report_of_memory_that_is_not_the_guest_s_stops_the_device() {
    let host = Host::default();
    let (mut rig, _) = up(&host);
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, REPORTING);
    ring.add(&[(RAM + 0x18_0000, 0x1000, WRITE), (HOLE - 0x1000, 0x2000, WRITE)]);
    rig.run(REPORTING);
    assert_eq!(
        (ring.take_used(), host.requests(), rig.status() & NEEDS_RESET),
        (None, vec![], NEEDS_RESET)
    );
}

#[test]
fn queues_move_up_where_a_feature_is_not_agreed_upon() {
    for (features, queue) in [
        (REPORTING_FEATURE, 2),
        (REPORTING_FEATURE, 4),
        (REPORTING_FEATURE | STATS_FEATURE, 3),
        (REPORTING_FEATURE | STATS_FEATURE, 4),
    ] {
        let host = Host::default();
        let mut rig = Rig::new(Balloon::new(Box::new(host.clone()), BalloonHandle::default()));
        rig.bring_up(features | VERSION_1);
        let memory = rig.memory.clone();
        let mut ring = Ring::watch(&memory, queue);
        ring.add(&[(RAM + 0x18_0000, 0x1000, WRITE)]);
        rig.run(queue);
        assert_eq!(host.requests(), [[0x1000]], "{features:#x} {queue}");
    }
}

#[test]
fn a_queue_without_its_feature_does_nothing() {
    let host = Host::default();
    let mut rig = Rig::new(Balloon::new(Box::new(host.clone()), BalloonHandle::default()));
    rig.bring_up(VERSION_1);
    let memory = rig.memory.clone();
    for queue in 2..5 {
        let mut ring = Ring::watch(&memory, queue);
        ring.add(&[(RAM + 0x18_0000, 0x1000, WRITE)]);
        rig.run(queue);
        assert_eq!(ring.used_idx(), 0);
    }
    assert_eq!(host.requests(), [[0usize; 0]; 0]);
}

fn stat(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

#[test]
fn statistics_are_kept_and_their_buffer_is_held_until_newer_ones_are_wanted() {
    let (mut rig, handle) = up(&Host::default());
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, Balloon::STATS);
    poke(&memory, DATA, &[stat(4, 100), stat(5, 200)].concat());
    ring.add(&[(DATA, 20, 0)]);
    rig.run(Balloon::STATS);
    assert_eq!(ring.take_used(), None);
    assert_eq!(
        handle.stats().iter().collect::<Vec<_>>(),
        [("free-memory", 100), ("total-memory", 200)]
    );
    handle.refresh_stats();
    rig.run(Balloon::STATS);
    assert_eq!((ring.take_used(), rig.irq.count()), (Some((0, 0)), 1));
    poke(&memory, DATA, &stat(4, 90));
    ring.add(&[(DATA, 10, 0)]);
    rig.run(Balloon::STATS);
    assert_eq!(handle.stats().iter().collect::<Vec<_>>(), [("free-memory", 90)]);
}

#[test]
fn a_driver_with_many_buffers_for_statistics_has_one_held() {
    let (mut rig, handle) = up(&Host::default());
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, Balloon::STATS);
    let stats = [(DATA, 10, 0)];
    assert_eq!([&stats; 5].map(|chain| ring.add(chain)), [0, 1, 2, 3, 4]);
    rig.run(Balloon::STATS);
    assert_eq!(ring.used_idx(), 4);
    handle.refresh_stats();
    rig.run(Balloon::STATS);
    rig.run(Balloon::STATS);
    assert_eq!(ring.used_idx(), 5);
}

#[test]
fn nonsense_statistics_are_left_out() {
    let (mut rig, handle) = up(&Host::default());
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, Balloon::STATS);
    let many = stat(16, 1).repeat(MAX_STATS_PER_REQUEST);
    let said = [stat(0xffff, 1), stat(0, 7), stat(0, 8), many, stat(1, 9)].concat();
    poke(&memory, DATA, &said);
    ring.add(&[(DATA, u32::try_from(said.len()).unwrap(), 0)]);
    rig.run(Balloon::STATS);
    assert_eq!(handle.stats().iter().collect::<Vec<_>>(), [("swap-in", 8)]);
    ring.add(&[(DATA, 9, 0)]);
    ring.add(&[(DATA, 10, WRITE)]);
    rig.run(Balloon::STATS);
    assert_eq!(handle.stats(), BalloonStats::default());
}

#[test]
fn a_reset_forgets_the_held_buffer() {
    let (mut rig, handle) = up(&Host::default());
    let memory = rig.memory.clone();
    Ring::watch(&memory, Balloon::STATS).add(&[(DATA, 10, 0)]);
    rig.run(Balloon::STATS);
    rig.reset();
    let features = rig.offered() & !EVENT_IDX;
    rig.bring_up(features);
    handle.refresh_stats();
    rig.run(Balloon::STATS);
    assert_eq!(Ring::watch(&memory, Balloon::STATS).used_idx(), 0);
}
