//! virtio-pci against well-meaning and hostile drivers: checklist B for PCI, and the same rings behind both transports.

use proptest::prelude::*;
use virtio_queue::Queue;

use super::*;
use crate::virtio::device::{QueueError, Stop, drain, read_config_bytes};
use crate::virtio::driver::pci::{BAR0, BAR2, PciDriver};
use crate::virtio::driver::{
    ACKNOWLEDGE, DATA, DRIVER, DRIVER_OK, EVENT_IDX, FEATURES_OK, NEEDS_RESET, RAM, RING_SIZE, Registers,
    Rig, Ring, VERSION_1, WRITE, peek,
};

const VECTORS: usize = 3;

/// A disk by its type, with two queues, that writes an `x` into each buffer.
struct Filler;

impl VirtioDevice for Filler {
    fn id(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        1 << 5
    }

    fn queue_sizes(&self) -> &[u16] {
        &[RING_SIZE, RING_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(b"0123456789", offset, data);
    }

    fn process(&mut self, _: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        drain(queue, memory, |buffers| {
            Ok(u32::try_from(buffers.parts().1.write(b"x")).unwrap())
        })
    }
}

fn rig() -> Rig<PciDriver> {
    Rig::on_pci(Box::new(Filler), VECTORS)
}

fn without_messages() -> Rig<PciDriver> {
    Rig::on_pci(Box::new(Filler), 0)
}

fn up(mut rig: Rig<PciDriver>) -> Rig<PciDriver> {
    rig.come_up();
    rig
}

/// What any driver does with any transport.
fn fill_a_buffer<T: Registers>(rig: &mut Rig<T>) {
    rig.bring_up(VERSION_1);
    let memory = rig.memory.clone();
    let mut ring = Ring::new(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!(
        (ring.take_used(), peek(&memory, DATA, 2)),
        (Some((0, 1)), b"x\0".to_vec())
    );
    rig.reset();
    assert_eq!(
        (rig.status(), rig.is_ready(0), rig.is_ready(1)),
        (0, false, false)
    );
    rig.bring_up(VERSION_1 | EVENT_IDX);
}

#[test]
fn the_same_device_works_behind_both_transports() {
    fill_a_buffer(&mut Rig::new(Filler));
    fill_a_buffer(&mut rig());
    fill_a_buffer(&mut without_messages());
}

#[test]
fn a_driver_finds_a_modern_block_device_and_all_structures() {
    let rig = rig();
    let pci = &rig.transport;
    assert_eq!((pci.config(0), pci.config(8) >> 8), (0x1042_1af4, 0x01_8000));
    let capabilities = pci.capabilities();
    let ids: Vec<_> = capabilities.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [9, 9, 9, 9, 9, 0x11]);
    let structures: Vec<_> = capabilities[..5]
        .iter()
        .map(|&(at, _)| {
            (
                pci.config(at) >> 24,
                pci.config(at + 4) & 0xff,
                pci.config(at + 8),
            )
        })
        .collect();
    assert_eq!(
        structures,
        [
            (1, 0, 0),
            (3, 0, 0x1000),
            (4, 0, 0x2000),
            (2, 0, 0x3000),
            (5, 0, 0)
        ]
    );
    let (msix, _) = capabilities[5];
    assert_eq!(
        (pci.config(msix) >> 16, pci.config(msix + 4), pci.config(msix + 8)),
        (2, 2, 0x802)
    );
    assert_eq!(without_messages().transport.capabilities().len(), 5);
}

#[test]
fn each_queue_has_its_vector_and_so_has_the_configuration() {
    let mut rig = up(rig());
    rig.transport.use_messages(2);
    let memory = rig.memory.clone();
    Ring::new(&memory, 1).add(&[(DATA, 1, WRITE)]);
    rig.run(1);
    // An index that makes no sense.
    Ring::new(&memory, 0).set_avail_idx(RING_SIZE + 1);
    rig.run(0);
    assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
    let outside = &rig.transport.outside;
    assert_eq!(*outside.sent.lock().unwrap(), [2, 0]);
    let data: Vec<_> = outside
        .routed
        .lock()
        .unwrap()
        .iter()
        .map(|(vector, message)| (*vector, message.address, message.data))
        .collect();
    assert_eq!(
        data,
        [(0, 0x2800_0000, 40), (1, 0x2800_0000, 41), (2, 0x2800_0000, 42)]
    );
    assert!(outside.levels.lock().unwrap().is_empty());
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let mut rig = up(rig());
    rig.transport.use_messages(2);
    rig.transport.store(BAR2 + 16 + 12, 4, 1);
    let memory = rig.memory.clone();
    Ring::new(&memory, 0).add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!((rig.irq.count(), rig.transport.load(BAR2 + 0x800, 8)), (0, 0b10));
    rig.transport.store(BAR2 + 16 + 12, 4, 0);
    assert_eq!((rig.irq.count(), rig.transport.load(BAR2 + 0x800, 8)), (1, 0));
    let msix = rig.transport.capabilities()[5].0;
    rig.transport.set_config(msix, 0xc000_0000);
    Ring::watch(&memory, 0).offer(0);
    rig.run(0);
    assert_eq!((rig.irq.count(), rig.transport.load(BAR2 + 0x800, 4)), (1, 0b10));
    rig.transport.set_config(msix, 0x8000_0000);
    assert_eq!((rig.irq.count(), rig.transport.load(BAR2 + 0x800, 4)), (2, 0));
}

#[test]
fn a_vector_is_routed_again_only_when_its_message_changed() {
    let rig = up(rig());
    rig.transport.use_messages(2);
    rig.transport.store(BAR2 + 12, 4, 1);
    rig.transport.store(BAR2 + 12, 4, 0);
    assert_eq!(rig.transport.outside.routed.lock().unwrap().len(), 3);
    rig.transport.store(BAR2 + 12, 4, 1);
    rig.transport.store(BAR2, 8, 0x2800_1000);
    rig.transport.store(BAR2 + 12, 4, 0);
    let routed = rig.transport.outside.routed.lock().unwrap();
    assert_eq!(
        routed[3],
        (
            0,
            crate::pci::Message {
                address: 0x2800_1000,
                data: 40
            }
        )
    );
}

#[test]
fn vectors_that_do_not_exist_read_back_as_none() {
    let rig = rig();
    for vector in [3, 0x7ff, 0x800, 0xfffe, 0xffff] {
        rig.transport.store(BAR0 + 16, 2, 1);
        rig.transport.store(BAR0 + 16, 2, vector);
        rig.transport.store(BAR0 + 26, 2, vector);
        assert_eq!(
            (rig.transport.load(BAR0 + 16, 2), rig.transport.load(BAR0 + 26, 2)),
            (0xffff, 0xffff)
        );
    }
    rig.transport.store(BAR0 + 22, 2, 0xffff);
    rig.transport.store(BAR0 + 26, 2, 0);
    assert_eq!(rig.transport.load(BAR0 + 26, 2), 0xffff);
}

#[test]
fn the_table_ends_with_its_last_vector() {
    let rig = rig();
    let end = BAR2 + 16 * VECTORS as u64;
    for address in [end, end + 12, BAR2 + 0x7fc, BAR2 + 0xffc] {
        rig.transport.store(address, 4, 0xffff_ffff);
        assert_eq!(rig.transport.load(address, 4), 0, "{address:#x}");
    }
    for (address, width) in [
        (BAR2 + 1, 4),
        (BAR2 + 4, 8),
        (BAR2, 1),
        (BAR2, 2),
        (BAR2 + 0xffc, 8),
    ] {
        rig.transport.store(address, width, 0);
        assert_eq!(
            rig.transport.load(address, width),
            u64::MAX >> (64 - 8 * width),
            "{address:#x}"
        );
    }
    assert_eq!(rig.transport.load(BAR2 + 12, 4), 1, "still masked");
}

#[test]
fn without_messages_the_line_is_high_until_the_isr_is_read() {
    let mut rig = up(without_messages());
    let memory = rig.memory.clone();
    Ring::new(&memory, 0).add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    assert_eq!(*rig.transport.outside.levels.lock().unwrap(), [true]);
    assert_eq!(
        rig.transport.config(4) >> 16 & 8,
        8,
        "the status register says so"
    );
    assert_eq!(rig.transport.load(BAR0 + 0x1000, 1), 1);
    assert_eq!(rig.transport.load(BAR0 + 0x1000, 1), 0);
    assert_eq!(*rig.transport.outside.levels.lock().unwrap(), [true, false]);
    assert_eq!(rig.transport.config(4) >> 16 & 8, 0);
}

#[test]
fn the_line_can_be_switched_off_and_messages_take_its_place() {
    let mut rig = up(rig());
    let memory = rig.memory.clone();
    Ring::new(&memory, 0).add(&[(DATA, 1, WRITE)]);
    rig.run(0);
    rig.transport.set_config(4, 0x406);
    rig.transport.set_config(4, 0x6);
    rig.transport.use_messages(2);
    rig.transport.set_config(rig.transport.capabilities()[5].0, 0);
    rig.reset();
    assert_eq!(
        *rig.transport.outside.levels.lock().unwrap(),
        [true, false, true, false, true, false]
    );
}

#[test]
fn the_isr_and_the_table_answer_while_the_device_is_at_work() {
    let rig = rig();
    let core = rig.core.clone();
    let at_work = core.lock().unwrap();
    assert_eq!(rig.transport.load(BAR0 + 0x1000, 4), 0);
    rig.transport.store(BAR2 + 8, 4, 7);
    assert_eq!(rig.transport.load(BAR2 + 8, 4), 7);
    drop(at_work);
}

#[test]
fn a_kick_that_reaches_the_register_is_passed_on_once_the_driver_is_ready() {
    let mut rig = rig();
    rig.transport.store(BAR0 + 0x3004, 2, 1);
    assert!(rig.kicked().is_empty());
    rig.come_up();
    for (offset, width) in [(0, 2), (4, 4), (8, 2), (0xffc, 4), (2, 2), (0, 1), (0, 8)] {
        rig.transport.store(BAR0 + 0x3000 + offset, width, 0);
    }
    assert_eq!(rig.kicked(), [0, 1]);
    assert_eq!(rig.transport.load(BAR0 + 0x3000, 4), 0xffff_ffff);
}

#[test]
fn fields_take_accesses_of_their_own_width_only() {
    let rig = rig();
    for (offset, width) in [
        (0, 1),
        (0, 2),
        (0, 8),
        (2, 4),
        (16, 4),
        (16, 1),
        (17, 2),
        (20, 2),
        (20, 4),
        (23, 1),
        (32, 1),
        (32, 2),
        (34, 4),
        (36, 8),
        (56, 8),
        (64, 4),
        (0xffc, 4),
    ] {
        rig.transport.store(BAR0 + offset, width, u64::MAX);
        let all_ones = u64::MAX >> (64 - 8 * width);
        assert_eq!(
            rig.transport.load(BAR0 + offset, width),
            all_ones,
            "{width} at {offset}"
        );
    }
    rig.transport.store(BAR0 + 32, 8, 0x1234_5678_9abc_def0);
    assert_eq!(
        (rig.transport.load(BAR0 + 32, 4), rig.transport.load(BAR0 + 36, 4)),
        (0x9abc_def0, 0x1234_5678)
    );
}

#[test]
fn what_cannot_be_written_stays_and_selectors_out_of_range_select_nothing() {
    let mut rig = rig();
    for (offset, width) in [
        (4, 4),
        (18, 2),
        (21, 1),
        (30, 2),
        (56, 2),
        (58, 2),
        (60, 2),
        (62, 2),
    ] {
        let before = rig.transport.load(BAR0 + offset, width);
        rig.transport.store(BAR0 + offset, width, 0x55);
        assert_eq!(rig.transport.load(BAR0 + offset, width), before, "{offset}");
    }
    rig.transport.store(BAR0, 4, 2);
    assert_eq!(rig.transport.load(BAR0 + 4, 4), 0);
    rig.transport.store(BAR0, 4, 0xffff_ffff);
    assert_eq!(rig.transport.load(BAR0 + 4, 4), 0);
    rig.negotiate(VERSION_1);
    rig.transport.store(BAR0 + 8, 4, 7);
    rig.transport.store(BAR0 + 12, 4, 0xffff_ffff);
    rig.place_queue(2, 16, RAM, RAM, RAM);
    rig.set_ready(2, true);
    assert_eq!((rig.is_ready(2), rig.transport.load(BAR0 + 24, 2)), (false, 0));
    assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

#[test]
fn a_queue_is_not_stopped_by_writing_zero() {
    let mut rig = up(rig());
    rig.set_ready(0, false);
    assert!(rig.is_ready(0));
}

#[test]
fn a_function_that_may_not_reach_memory_waits_until_it_may() {
    let mut rig = up(rig());
    let memory = rig.memory.clone();
    let mut ring = Ring::watch(&memory, 0);
    ring.add(&[(DATA, 1, WRITE)]);
    rig.kicked();
    rig.transport.set_config(0x04, 0x2);
    rig.run(0);
    assert_eq!((ring.used_idx(), peek(&memory, DATA, 1)), (0, vec![0]));
    rig.transport.store(BAR0 + 0x3000, 2, 0);
    assert!(rig.kicked().is_empty());
    rig.transport.set_config(0x04, 0x6);
    assert_eq!(rig.kicked(), [0, 1]);
    rig.run(0);
    assert_eq!((ring.used_idx(), peek(&memory, DATA, 1)), (1, b"x".to_vec()));
}

#[test]
fn device_config_is_read_in_any_width() {
    let rig = rig();
    assert_eq!(rig.transport.load(BAR0 + 0x2001, 1), u64::from(b'1'));
    assert_eq!(
        rig.transport.load(BAR0 + 0x2000, 8),
        u64::from_le_bytes(*b"01234567")
    );
    assert_eq!(rig.transport.load(BAR0 + 0x2ffc, 4), 0);
}

#[test]
fn a_config_that_changed_is_told_with_a_new_generation() {
    let rig = up(rig());
    rig.transport.use_messages(2);
    rig.core.lock().unwrap().config_changed();
    assert_eq!((rig.irq.count(), rig.transport.load(BAR0 + 21, 1)), (1, 1));
    assert_eq!(*rig.transport.outside.sent.lock().unwrap(), [0]);
}

#[test]
fn configuration_space_leads_to_the_structures_even_where_no_bar_is_decoded() {
    let rig = rig();
    let pci = &rig.transport;
    pci.set_config(4, 0);
    let at = pci.capabilities()[4].0;
    let access = |bar: u32, offset: u32, length: u32| {
        pci.set_config(at + 4, bar);
        pci.set_config(at + 8, offset);
        pci.set_config(at + 12, length);
    };
    access(0, 20, 1);
    pci.set_config(at + 16, 1);
    assert_eq!(pci.config(at + 16), 0xffff_ff01);
    access(0, 0x2000, 4);
    assert_eq!(pci.config(at + 16), u32::from_le_bytes(*b"0123"));
    access(2, 12, 4);
    assert_eq!(pci.config(at + 16), 1);
    for (bar, offset, length) in [
        (0, 0x4000, 4),
        (0, 0x3ffd, 4),
        (0, 0xffff_fffc, 4),
        (0, 0, 3),
        (0, 0, 0),
        (0, 2, 4),
        (0, 0, 0xffff_ffff),
        (1, 0, 4),
        (2, 0x1000, 4),
        (5, 0, 4),
        (6, 0, 1),
        (255, 0, 1),
    ] {
        access(bar, offset, length);
        pci.set_config(at + 16, 0);
        assert_eq!(
            pci.config(at + 16),
            0xffff_ffff,
            "bar {bar}, {length} at {offset:#x}"
        );
    }
    access(0, 20, 1);
    assert_eq!(pci.config(at + 16) & 0xff, 1, "nothing of that was written");
}

proptest! {
    #[test]
    fn arbitrary_accesses_neither_panic_nor_touch_ram(
        accesses in proptest::collection::vec(
            (
                prop_oneof![
                    3 => (0u64..0x40).prop_map(|offset| BAR0 + offset),
                    1 => (0u64..0x4010).prop_map(|offset| BAR0 + offset),
                    2 => (0u64..0x1010).prop_map(|offset| BAR2 + offset),
                    3 => (0u64..0x140).prop_map(|offset| 0x3000_8000 + offset),
                    1 => (0u64..0x10_0010).prop_map(|offset| 0x3000_0000 + offset),
                    1 => any::<u64>(),
                ],
                prop_oneof![6 => Just(4usize), 4 => Just(2usize), 4 => Just(1usize), 1 => 0usize..9],
                prop_oneof![4 => 0u64..16, 1 => Just(u64::MAX), 2 => any::<u64>(), 1 => Just(BAR0 & 0xffff_ffff)],
                any::<bool>(),
            ),
            0..200,
        ),
        started: bool,
        vectors in 0usize..4,
    ) {
        let mut rig = Rig::on_pci(Box::new(Filler), vectors);
        if started {
            rig.bring_up(VERSION_1);
        }
        let before = peek(&rig.memory, DATA, 0x1000);
        for &(address, width, value, write) in &accesses {
            let mut data = value.to_le_bytes()[..width.min(8)].to_vec();
            if write {
                rig.transport.bus.write(address, &data);
            } else {
                rig.transport.bus.read(address, &mut data);
            }
            rig.run(0);
            rig.run(1);
        }
        prop_assert_eq!(peek(&rig.memory, DATA, 0x1000), before);
        rig.transport.set_config(4, 0);
        // Whatever was done, the device can be found and used again.
        let placed = rig.transport.outside.placed.lock().unwrap().last().copied();
        prop_assert_eq!(placed, Some(None));
        rig.transport.place();
        rig.reset();
        rig.bring_up(VERSION_1);
        prop_assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }
}
