//! The register map against well-meaning and hostile drivers: checklist B, and A12 and A13.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_SHM_SEL, VIRTIO_MMIO_STATUS};
use virtio_queue::Queue;

use super::super::core::Interrupt;
use super::*;
use crate::virtio::driver::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, EVENT_IDX, FEATURES_OK, NEEDS_RESET, Pulses, RAM, Rig, VERSION_1,
};
use crate::virtio::{QueueError, Stop};

const DEVICE_FEATURE: u64 = 1 << 5;

/// What a [`Probe`] was asked to do.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Activate(u64),
    Process(usize),
    Reset,
    WriteConfig(u64, Vec<u8>),
}

/// A device with three queues that does nothing but tell.
struct Probe(Sender<Call>);

impl VirtioDevice for Probe {
    fn id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        DEVICE_FEATURE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16, 32, 64]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        crate::virtio::device::read_config_bytes(b"0123456789", offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.0.send(Call::WriteConfig(offset, data.to_vec())).unwrap();
    }

    fn activate(&mut self, acked: u64) {
        self.0.send(Call::Activate(acked)).unwrap();
    }

    fn process(&mut self, index: usize, _: &mut Queue, _: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        self.0.send(Call::Process(index)).unwrap();
        Ok(Stop::Empty)
    }

    fn reset(&mut self) {
        self.0.send(Call::Reset).unwrap();
    }
}

fn probe() -> (Rig, Receiver<Call>) {
    let (sender, calls) = channel();
    (Rig::new(Probe(sender)), calls)
}

fn probe_up() -> (Rig, Receiver<Call>) {
    let (mut rig, calls) = probe();
    rig.bring_up(VERSION_1);
    calls.try_iter().count();
    (rig, calls)
}

#[test]
fn a_driver_finds_a_version_2_device() {
    let (mut rig, _calls) = probe();
    assert_eq!(rig.read(VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
    assert_eq!(
        (rig.read(VIRTIO_MMIO_VERSION), rig.read(VIRTIO_MMIO_DEVICE_ID)),
        (2, 42)
    );
    assert_eq!(rig.offered(), DEVICE_FEATURE | VERSION_1 | EVENT_IDX | 1 << 28);
}

#[test]
fn bringing_a_device_up_activates_it_and_looks_at_every_queue_once() {
    let (mut rig, calls) = probe();
    rig.negotiate(VERSION_1 | DEVICE_FEATURE);
    rig.start_queues();
    rig.advance(DRIVER_OK);
    assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_eq!(
        calls.try_iter().collect::<Vec<_>>(),
        [Call::Activate(VERSION_1 | DEVICE_FEATURE)]
    );
    assert_eq!(rig.kicked(), [0, 1, 2]);
}

#[test]
fn a_kick_before_driver_ok_does_nothing() {
    let (mut rig, calls) = probe();
    rig.negotiate(VERSION_1);
    rig.start_queues();
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    rig.run(0);
    assert_eq!((rig.kicked(), calls.try_iter().count()), (vec![], 0));
}

#[test]
fn a_kick_of_a_queue_that_is_not_there_or_not_ready_does_nothing() {
    let (mut rig, calls) = probe_up();
    rig.set_ready(1, false);
    for queue in [1, 3, 0xffff, u32::MAX] {
        rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, queue);
    }
    rig.run(1);
    rig.run(3);
    rig.run(usize::MAX);
    assert_eq!((rig.kicked(), calls.try_iter().count()), (vec![], 0));
}

#[test]
fn a_kick_that_reaches_the_register_is_passed_on_and_then_runs_the_queue() {
    let (mut rig, calls) = probe_up();
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 2);
    assert_eq!((rig.kicked(), calls.try_iter().count()), (vec![2], 0));
    rig.run(2);
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), [Call::Process(2)]);
}

#[test]
fn a_kick_after_reset_does_nothing() {
    let (mut rig, calls) = probe_up();
    rig.write(VIRTIO_MMIO_STATUS, 0);
    rig.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    rig.run(0);
    assert_eq!(
        (rig.kicked(), calls.try_iter().collect::<Vec<_>>()),
        (vec![], vec![Call::Reset])
    );
}

#[test]
fn reset_leads_back_to_the_beginning() {
    let (mut rig, _calls) = probe_up();
    rig.write(VIRTIO_MMIO_STATUS, 0);
    assert_eq!((rig.status(), rig.interrupt_status()), (0, 0));
    assert!(!rig.is_ready(0) && !rig.is_ready(1) && !rig.is_ready(2));
    rig.bring_up(VERSION_1);
    assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

#[test]
fn features_that_were_not_offered_are_not_accepted() {
    for features in [VERSION_1 | 1 << 6, VERSION_1 | 1 << 63, u64::MAX] {
        let (mut rig, _calls) = probe();
        rig.negotiate(features);
        assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER, "{features:#x}");
    }
}

#[test]
fn a_driver_without_version_1_is_not_accepted() {
    let (mut rig, _calls) = probe();
    rig.negotiate(DEVICE_FEATURE);
    assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER);
    rig.accept(VERSION_1);
    rig.advance(FEATURES_OK);
    assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

#[test]
fn features_are_fixed_once_agreed_upon() {
    let (mut rig, calls) = probe();
    rig.negotiate(VERSION_1);
    rig.accept(u64::MAX);
    rig.advance(DRIVER_OK);
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), [Call::Activate(VERSION_1)]);
}

#[test]
fn steps_that_are_skipped_are_not_taken() {
    let (mut rig, calls) = probe();
    rig.accept(VERSION_1);
    rig.advance(FEATURES_OK | DRIVER_OK);
    assert_eq!(rig.status(), 0);
    rig.advance(ACKNOWLEDGE | DRIVER);
    rig.advance(DRIVER_OK);
    assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER);
    assert_eq!(calls.try_iter().count(), 0);
}

#[test]
fn a_driver_that_does_not_acknowledge_again_after_its_reset_is_served() {
    let (mut rig, calls) = probe();
    rig.advance(ACKNOWLEDGE);
    rig.write(VIRTIO_MMIO_STATUS, 0);
    rig.advance(DRIVER);
    rig.accept(VERSION_1);
    rig.advance(FEATURES_OK);
    rig.start_queues();
    rig.advance(DRIVER_OK);
    assert_eq!(rig.status(), DRIVER | FEATURES_OK | DRIVER_OK);
    assert_eq!(
        calls.try_iter().collect::<Vec<_>>(),
        [Call::Reset, Call::Activate(VERSION_1)]
    );
}

#[test]
fn a_driver_cannot_clear_or_invent_status_bits() {
    let (mut rig, calls) = probe_up();
    let status = rig.status();
    rig.write(VIRTIO_MMIO_STATUS, ACKNOWLEDGE);
    rig.write(VIRTIO_MMIO_STATUS, NEEDS_RESET | 0x10 | 0x20 | 0xffff_ff00);
    assert_eq!(rig.status(), status);
    rig.write(VIRTIO_MMIO_STATUS, status);
    assert_eq!(calls.try_iter().count(), 0, "DRIVER_OK activates once");
}

#[test]
fn a_device_given_up_by_its_driver_stands_still() {
    let (mut rig, calls) = probe_up();
    rig.advance(128);
    rig.run(0);
    assert_eq!(calls.try_iter().count(), 0);
}

#[test]
fn registers_take_aligned_words_only() {
    let (mut rig, _calls) = probe();
    for (offset, width) in [(0, 1), (0, 2), (0, 8), (0, 3), (1, 4), (2, 4), (0xfe, 4)] {
        let mut data = vec![0; width];
        rig.transport.read(offset, &mut data);
        assert!(
            data.iter().all(|&byte| byte == 0xff),
            "{width} bytes at {offset:#x}"
        );
        rig.transport
            .write(u64::from(VIRTIO_MMIO_STATUS) + offset, &vec![1; width]);
    }
    assert_eq!(rig.status(), 0);
}

#[test]
fn registers_that_do_not_exist_read_zero_and_write_nothing() {
    let (mut rig, _calls) = probe();
    for register in [
        0x18, 0x28, 0x2c, 0x3c, 0x40, 0x48, 0x54, 0x58, 0x68, 0xa8, 0xc0, 0xf8,
    ] {
        rig.write(register, u32::MAX);
        assert_eq!(rig.read(register), 0, "{register:#x}");
    }
}

#[test]
fn writing_read_only_registers_changes_nothing() {
    let (mut rig, _calls) = probe();
    for register in (0..0x100).step_by(4) {
        let before = rig.read(register);
        let writable = [
            VIRTIO_MMIO_STATUS,
            VIRTIO_MMIO_QUEUE_SEL,
            VIRTIO_MMIO_DEVICE_FEATURES_SEL,
        ];
        rig.write(register, if writable.contains(&register) { 0 } else { 0x55 });
        assert_eq!(rig.read(register), before, "{register:#x}");
    }
}

#[test]
fn selectors_out_of_range_select_nothing() {
    let (mut rig, _calls) = probe();
    rig.advance(ACKNOWLEDGE | DRIVER);
    for select in [2, 3, u32::MAX] {
        rig.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
        assert_eq!(rig.read(VIRTIO_MMIO_DEVICE_FEATURES), 0);
        rig.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
        rig.write(VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    }
    rig.accept(VERSION_1);
    rig.advance(FEATURES_OK);
    assert_eq!(rig.status() & FEATURES_OK, FEATURES_OK);
    for queue in [3, 0x8000_0000, u32::MAX] {
        rig.place_queue(queue, 16, RAM, RAM, RAM);
        rig.set_ready(queue, true);
        assert_eq!(
            (
                rig.read(VIRTIO_MMIO_QUEUE_NUM_MAX),
                rig.read(VIRTIO_MMIO_QUEUE_READY)
            ),
            (0, 0)
        );
    }
    rig.write(VIRTIO_MMIO_SHM_SEL, 7);
    assert_eq!(rig.read(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
}

#[test]
fn config_space_is_read_in_any_width_and_is_zero_beyond_its_end() {
    let (mut rig, _calls) = probe();
    for (offset, expected) in [
        (0, &b"0"[..]),
        (2, b"23"),
        (1, b"1234"),
        (8, b"89\0\0\0\0\0\0"),
        (10, b"\0\0"),
    ] {
        let mut data = vec![0xee; expected.len()];
        rig.transport.read(CONFIG + offset, &mut data);
        assert_eq!(data, expected);
    }
    for offset in [0x200, 0xeff, u64::MAX - CONFIG] {
        let mut data = [0xee; 4];
        rig.transport.read(CONFIG + offset, &mut data);
        assert_eq!(data, [0; 4], "{offset:#x}");
    }
}

#[test]
fn config_writes_reach_the_device_as_they_are() {
    let (mut rig, calls) = probe();
    rig.transport.write(CONFIG + 3, &[1, 2]);
    assert_eq!(
        calls.try_iter().collect::<Vec<_>>(),
        [Call::WriteConfig(3, vec![1, 2])]
    );
}

#[test]
fn the_interrupt_registers_answer_while_the_device_is_at_work() {
    let (mut rig, _calls) = probe();
    let core = rig.core.clone();
    let at_work = core.lock().unwrap();
    rig.transport.interrupt.queue(0);
    assert_eq!(rig.interrupt_status(), 1);
    rig.write(VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(rig.interrupt_status(), 0);
    drop(at_work);
}

#[test]
fn every_notification_pulses_even_if_the_last_one_is_not_acknowledged() {
    let (mut rig, _calls) = probe();
    rig.transport.interrupt.queue(0);
    rig.transport.interrupt.queue(0);
    rig.transport.interrupt.config();
    assert_eq!((rig.irq.count(), rig.interrupt_status()), (3, 3));
    rig.write(VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(rig.interrupt_status(), 2);
    rig.write(VIRTIO_MMIO_INTERRUPT_ACK, u32::MAX);
    assert_eq!(rig.interrupt_status(), 0);
}

#[test]
fn a_config_that_changed_is_told_with_a_new_generation() {
    let (mut rig, _calls) = probe();
    rig.core.lock().unwrap().config_changed();
    assert_eq!((rig.irq.count(), rig.read(0xfc)), (0, 1));
    rig.bring_up(VERSION_1);
    rig.core.lock().unwrap().config_changed();
    assert_eq!(
        (rig.irq.count(), rig.interrupt_status(), rig.read(0xfc)),
        (1, 2, 2)
    );
}

#[test]
fn an_acknowledgement_that_was_caught_counts_as_one_that_came() {
    let acks = Arc::new(AtomicBool::new(false));
    let caught = acks.clone();
    let irq = Arc::new(Pulses::default());
    let line: Arc<dyn IrqLine> = irq.clone();
    let interrupt = StatusInterrupt::new(line, Box::new(move || caught.swap(false, Ordering::SeqCst)));
    interrupt.queue(0);
    interrupt.config();
    assert_eq!(interrupt.status(), 3);
    acks.store(true, Ordering::SeqCst);
    assert_eq!((interrupt.status(), interrupt.status()), (2, 2));
    interrupt.acknowledge(2);
    interrupt.queue(0);
    // What was acknowledged before the next buffer does not hide that one.
    acks.store(true, Ordering::SeqCst);
    interrupt.queue(0);
    assert_eq!((interrupt.status(), irq.count()), (1, 4));
    acks.store(true, Ordering::SeqCst);
    interrupt.reset();
    interrupt.queue(0);
    assert_eq!(interrupt.status(), 1);
}
