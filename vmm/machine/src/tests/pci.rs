//! The same with its devices on PCI.

use super::*;

/// Puts the BARs of the function in slot 1, the console, where a guest might.
fn place_console() -> Vec<Act> {
    let config = PCI_ECAM.base + 0x8000;
    [(0x10, 0x4000_0000), (0x14, 0), (0x18, 0x4001_0000), (0x04, 6)]
        .map(|(register, value)| write_long(config + register, value))
        .to_vec()
}

#[test]
fn on_pci_the_guest_finds_console_and_rng_behind_the_bridge() {
    let id = |slot: u64| Act::Read(PCI_ECAM.base + slot * 0x8000, 4);
    let script = vec![
        id(0),
        id(1),
        id(2),
        id(3),
        Act::Read(virtio_slot(0).0.base, 4),
        Act::Shutdown,
    ];
    let run = start_with(fake::facts(), vec![script], |wish| wish.transport(Transport::Pci));
    run.outcome();
    assert_eq!(
        run.vm.reads(),
        [
            vec![0x36, 0x1b, 0x08, 0],
            vec![0xf4, 0x1a, 0x43, 0x10],
            vec![0xf4, 0x1a, 0x44, 0x10],
            vec![0xff; 4],
            vec![0xff; 4]
        ]
    );
    run.machine.stop();
}

#[test]
fn doorbells_follow_the_bar_and_every_vector_has_its_event() {
    let moved = write_long(PCI_ECAM.base + 0x8010, 0x4002_0000);
    let script = [place_console(), vec![moved, Act::Shutdown]].concat();
    // The second vCPU keeps the devices in place.
    let run = start_with(fake::facts(), vec![script, vec![]], |wish| {
        wish.transport(Transport::Pci)
    });
    run.outcome();
    let doorbell = |queue: u64| (0x4002_3000 + 4 * queue, None);
    assert_eq!(run.vm.doorbells(), [0, 1, 2, 3, 4, 5].map(doorbell));
    // Six queues of the console and one of the rng, and one each for the configuration.
    assert_eq!(run.vm.attached(), [64, 65, 66, 67, 68, 69, 70, 128, 129]);
    drop(run.feeds);
    run.machine.stop();
    assert_eq!(
        (run.vm.doorbells(), run.vm.attached()),
        (vec![], vec![]),
        "nothing is left"
    );
}

#[test]
fn where_not_every_identity_arrives_the_devices_that_come_too_late_have_wires() {
    let mut facts = fake::facts();
    facts.interrupts = Interrupts::Aia { ids: 255, sound: 19 };
    // The second vCPU keeps the devices in place.
    let run = start_with(facts, vec![vec![Act::Shutdown], vec![]], |wish| {
        wish.transport(Transport::Pci)
    });
    run.outcome();
    // Room for eight: the console's seven, and the rng's two are too many.
    assert_eq!(run.vm.attached(), [64, 65, 66, 67, 68, 69, 70]);
    run.machine.stop();
}

#[test]
fn a_message_is_routed_when_its_vector_is_unmasked() {
    let entry = PCI_LOW.base + 0x1_0000;
    let msix = write_long(PCI_ECAM.base + 0x8000 + MSIX, 0x8000_0000);
    let table = [(0, 0x2800_0000), (8, 41), (12, 0)].map(|(field, value)| write_long(entry + field, value));
    let script = [place_console(), vec![msix], table.to_vec(), vec![Act::Shutdown]].concat();
    let run = start_with(fake::facts(), vec![script], |wish| wish.transport(Transport::Pci));
    run.outcome();
    let message = rvmm_hypervisor::Message {
        address: 0x2800_0000,
        data: 41,
    };
    assert_eq!(run.vm.messages(), [(64, message)]);
    run.machine.stop();
}

/// Where the function's MSI-X capability is: behind five of virtio.
const MSIX: u64 = 0x40 + 3 * 16 + 2 * 20;

/// Makes the console in slot 1 break a rule of its driver, which it announces by an interrupt.
fn break_a_queue() -> Vec<Act> {
    let bar = PCI_LOW.base;
    let status = |value: u8| Act::Write(bar + 20, vec![value]);
    let half = |offset: u64, value: u16| Act::Write(bar + offset, value.to_le_bytes().to_vec());
    vec![
        status(3),
        write_long(bar + 8, 1),
        write_long(bar + 12, 1),
        status(11),
        status(15),
        // A queue at address 0 is not in RAM.
        half(28, 1),
    ]
}

#[test]
fn without_aia_a_function_pulls_its_line_at_the_plic_until_the_isr_is_read() {
    let source = pci_source(1, 0);
    let word = |offset: u64, value: u32| write_long(PLIC.base + offset, value);
    let enable = vec![word(u64::from(source) * 4, 1), word(0x2004, 1 << (source - 32))];
    let isr = Act::Read(PCI_LOW.base + 0x1000, 1);
    let script = [place_console(), enable, break_a_queue(), vec![isr, Act::Shutdown]].concat();
    let facts = Facts {
        interrupts: Interrupts::Plic,
        ..fake::facts()
    };
    let run = start_with(facts, vec![script], |wish| wish.transport(Transport::Pci));
    run.outcome();
    assert_eq!(run.vm.externals(), [(0, true), (0, false)]);
    assert_eq!((run.vm.reads(), run.vm.attached()), (vec![vec![2]], vec![]));
    run.machine.stop();
}

#[test]
fn with_aia_a_driver_without_messages_gets_a_level_at_the_aplic() {
    let isr = Act::Read(PCI_LOW.base + 0x1000, 1);
    let script = [place_console(), break_a_queue(), vec![isr, Act::Shutdown]].concat();
    let run = start_with(fake::facts(), vec![script], |wish| wish.transport(Transport::Pci));
    run.outcome();
    assert_eq!(run.vm.levels(), [(33, true), (33, false)]);
    run.machine.stop();
}
