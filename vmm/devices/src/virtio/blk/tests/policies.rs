//! Whatever fails, for as long as it does, and whatever is done about it: each request is answered once, in order, and the disk
//! holds what the answers say.

use std::sync::mpsc::channel;

use proptest::prelude::*;

use super::failing::{Told, chain, fail};
use super::*;

/// Most requests at once: what the ring has room for.
const MOST: usize = 5;

/// A request of one sector.
#[derive(Debug, Clone, Copy)]
struct Order {
    writes: bool,
    sector: u8,
}

/// What the back end fails with while the device looks once.
type Fault = Option<io::ErrorKind>;

fn orders() -> impl Strategy<Value = Vec<Order>> {
    let order = (any::<bool>(), 0..SECTORS).prop_map(|(writes, sector)| Order { writes, sector });
    proptest::collection::vec(order, 1..=MOST)
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let kinds = [None, Some(io::ErrorKind::StorageFull), Some(io::ErrorKind::Other)];
    proptest::collection::vec(proptest::sample::select(kinds.to_vec()), 0..6)
}

fn policy() -> impl Strategy<Value = OnError> {
    let all = [OnError::Report, OnError::Stop, OnError::Enospc, OnError::Ignore];
    proptest::sample::select(all.to_vec())
}

/// The answer to a request; none where it waits.
fn answer(policy: OnError, order: Order, fault: Fault) -> Option<u8> {
    let full = order.writes && fault == Some(io::ErrorKind::StorageFull);
    match (fault, policy) {
        (None, _) | (_, OnError::Ignore) => Some(OK),
        (_, OnError::Stop) => None,
        (_, OnError::Enospc) if full => None,
        (_, OnError::Report | OnError::Enospc) => Some(IOERR),
    }
}

/// What is answered while the back end is so: the first that waits has all after it wait. What is written is on the disk.
fn round(policy: OnError, waiting: &[(usize, Order)], fault: Fault, disk: &mut [u8]) -> Vec<u8> {
    let answers = waiting.iter().map(|&(_, order)| answer(policy, order, fault));
    let answers: Vec<u8> = answers.map_while(|answer| answer).collect();
    let done = waiting.iter().take(answers.len());
    for &(place, order) in done.filter(|(_, order)| order.writes && fault.is_none()) {
        let start = usize::from(order.sector) * 512;
        disk[start..start + 512].fill(0x70 + u8::try_from(place).unwrap());
    }
    answers
}

proptest! {
    #[test]
    fn each_request_is_answered_once_in_its_order_and_as_the_policy_says(
        policy in policy(), orders in orders(), faults in faults(),
    ) {
        let platter = Platter::new();
        let mut disk = platter.bytes.lock().unwrap().clone();
        let (told, heard) = channel();
        let block = Block::new(Box::new(platter.clone()), &BlockOptions::default());
        let mut rig = Rig::up(block.failing(policy, Box::new(Told(told))));
        rig.set_ready(0, false);
        rig.start_queues();
        let memory = rig.memory.clone();
        let mut ring = Ring::new(&memory, 0);
        let add = |(place, order): (usize, Order)| {
            let kind = u32::from(order.writes);
            ring.add(&chain(&memory, place as u64, kind, order.sector.into()))
        };
        let mut waiting: Vec<(usize, Order)> = orders.into_iter().enumerate().collect();
        let mut heads = waiting.iter().copied().map(add).collect::<Vec<_>>().into_iter();
        for fault in faults.into_iter().chain([None]) {
            fail(&platter, fault);
            rig.run(0);
            for status in round(policy, &waiting, fault, &mut disk) {
                let (place, _) = waiting.remove(0);
                let used = ring.take_used();
                prop_assert_eq!(used.map(|(head, _)| head), heads.next().map(u32::from));
                prop_assert_eq!(peek(&memory, STATUS + 0x200 * place as u64, 1)[0], status);
            }
            prop_assert!(ring.take_used().is_none(), "what waits is not answered");
            prop_assert_eq!(heard.try_iter().count(), usize::from(!waiting.is_empty()));
            prop_assert_eq!(&*platter.bytes.lock().unwrap(), &disk);
        }
        prop_assert_eq!(waiting.len(), 0, "nothing waits for a back end that works");
        prop_assert_eq!(rig.status() & NEEDS_RESET, 0);
    }
}
