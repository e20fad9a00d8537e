//! The disk against a model: whatever requests come, its bytes and its answers are those of an array.

use proptest::prelude::*;

use super::*;

/// A request: type, sector, sectors of data, what to fill them with, and how the data is cut into two buffers.
#[derive(Debug, Clone)]
struct Order {
    kind: u32,
    sector: u64,
    sectors: u32,
    fill: u8,
    cut: u32,
}

fn order() -> impl Strategy<Value = Order> {
    let kind = prop_oneof![4 => 0u32..2, 1 => Just(4u32), 1 => Just(11u32), 2 => Just(13u32)];
    let sector = prop_oneof![8 => 0..u64::from(SECTORS) + 1, 1 => any::<u64>()];
    (kind, sector, 0u32..4, any::<u8>(), 0u32..600).prop_map(|(kind, sector, sectors, fill, cut)| Order {
        kind,
        sector,
        sectors,
        fill,
        cut,
    })
}

/// What an array does with it: its new bytes, what is read, the status.
fn on_model(model: &mut [u8], order: &Order) -> (u8, Vec<u8>) {
    let end = order.sector.checked_add(u64::from(order.sectors));
    let on_disk = end.is_some_and(|end| end <= u64::from(SECTORS));
    if !on_disk && order.kind != 4 {
        return (IOERR, Vec::new());
    }
    let start = usize::try_from(order.sector.min(u64::from(SECTORS))).unwrap() * 512;
    let range = start..(start + order.sectors as usize * 512).min(model.len());
    match order.kind {
        0 => return (OK, model[range].to_vec()),
        1 => model[range].fill(order.fill),
        11 => model[range].fill(0xdd),
        13 => model[range].fill(0),
        _ => {}
    }
    (OK, Vec::new())
}

fn on_disk(rig: &mut Rig, order: &Order) -> (u8, Vec<u8>) {
    let len = order.sectors * 512;
    let cut = order.cut.min(len);
    let buffers = |flags| [(BUFFER, cut, flags), (BUFFER + u64::from(cut), len - cut, flags)];
    let (status, written) = match order.kind {
        0 => request(rig, 0, order.sector, &buffers(WRITE)),
        1 => {
            poke(&rig.memory, BUFFER, &vec![order.fill; len as usize]);
            request(rig, 1, order.sector, &buffers(0))
        }
        4 => request(rig, 4, order.sector, &[]),
        kind => {
            let segment = [
                &order.sector.to_le_bytes()[..],
                &order.sectors.to_le_bytes(),
                &[0; 4],
            ]
            .concat();
            poke(&rig.memory, BUFFER, &segment);
            request(rig, kind, 0, &[(BUFFER, 7, 0), (BUFFER + 7, 9, 0)])
        }
    };
    (status, peek(&rig.memory, BUFFER, written as usize - 1))
}

proptest! {
    #[test]
    fn a_disk_holds_what_was_written_and_nothing_else(orders in proptest::collection::vec(order(), 1..30)) {
        let platter = Platter::new();
        let mut model = platter.bytes.lock().unwrap().clone();
        let mut rig = rig(&platter);
        for order in &orders {
            let wanted = on_model(&mut model, order);
            prop_assert_eq!(on_disk(&mut rig, order), wanted, "{:?}", order);
        }
        prop_assert_eq!(&*platter.bytes.lock().unwrap(), &model);
    }
}
