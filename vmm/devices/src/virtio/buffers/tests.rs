//! Chains of descriptors, well-formed and hostile: checklist A1 to A7.

use virtio_queue::desc::RawDescriptor;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::device::next_chain;
use crate::virtio::driver::{
    DATA, HIGH_RAM, HIGH_RAM_LEN, HOLE, INDIRECT, NEXT, RAM, RAM_LEN, RING_SIZE, Ring, WRITE, descriptor,
    peek, poke, ram,
};

/// Where indirect tables lie.
const TABLE: u64 = DATA + 0x8000;

/// Loads the chain that begins at descriptor 0 and says how long its two parts are.
fn load_with(table: &[RawDescriptor], max: u16, memory: &GuestMemoryMmap) -> Result<(u64, u64), QueueError> {
    let ring = Ring::new(memory, 0);
    for (index, &descriptor) in (0..).zip(table) {
        ring.store(index, descriptor);
    }
    ring.offer(0);
    let mut queue = ring.queue();
    let chain = next_chain(&mut queue, memory).unwrap().unwrap();
    let mut buffers = Buffers::default();
    buffers.load(chain, memory, max)?;
    let (readable, writable) = buffers.parts();
    Ok((readable.len(), writable.len()))
}

fn load(table: &[RawDescriptor]) -> Result<(u64, u64), QueueError> {
    load_with(table, RING_SIZE, &ram())
}

fn store_table(memory: &GuestMemoryMmap, table: &[RawDescriptor]) {
    for (at, &descriptor) in (TABLE..).step_by(16).zip(table) {
        memory.write_obj(descriptor, GuestAddress(at)).unwrap();
    }
}

/// Loads a chain of one descriptor that refers to a table of these bytes with these entries.
fn load_indirect(len: u32, flags: u16, table: &[RawDescriptor]) -> Result<(u64, u64), QueueError> {
    let memory = ram();
    store_table(&memory, table);
    load_with(&[descriptor(TABLE, len, INDIRECT | flags, 1)], RING_SIZE, &memory)
}

#[test]
fn what_the_device_reads_and_writes_is_kept_apart() {
    let table = [
        descriptor(DATA, 16, NEXT, 1),
        descriptor(DATA + 0x100, 4, NEXT, 2),
        descriptor(DATA + 0x200, 512, NEXT | WRITE, 3),
        descriptor(DATA + 0x800, 1, WRITE, 0),
    ];
    assert_eq!(load(&table).unwrap(), (20, 513));
}

#[test]
fn a_buffer_may_span_adjacent_regions_but_not_a_hole() {
    let regions = [(GuestAddress(RAM), RAM_LEN), (GuestAddress(HOLE), 0x1000)];
    let adjacent = GuestMemoryMmap::from_ranges(&regions).unwrap();
    let table = [descriptor(HOLE - 8, 16, WRITE, 0)];
    assert_eq!(load_with(&table, RING_SIZE, &adjacent).unwrap(), (0, 16));
    assert!(matches!(load(&table), Err(QueueError::OutsideRam(_))));
}

#[test]
fn a_chain_that_loops_is_refused() {
    let to_itself = [descriptor(DATA, 16, NEXT, 0)];
    let two_cycle = [descriptor(DATA, 16, NEXT, 1), descriptor(DATA, 16, NEXT, 0)];
    assert!(matches!(load(&to_itself), Err(QueueError::BrokenChain)));
    assert!(matches!(load(&two_cycle), Err(QueueError::BrokenChain)));
}

#[test]
fn a_next_beyond_the_table_is_refused() {
    assert!(matches!(
        load(&[descriptor(DATA, 16, NEXT, RING_SIZE)]),
        Err(QueueError::BrokenChain)
    ));
    assert!(matches!(
        load(&[descriptor(DATA, 16, NEXT, u16::MAX)]),
        Err(QueueError::BrokenChain)
    ));
}

#[test]
fn a_buffer_outside_ram_is_refused() {
    for addr in [
        0,
        0x1000_0000,
        RAM - 1,
        HOLE - 1,
        HOLE,
        HIGH_RAM + HIGH_RAM_LEN as u64 - 1,
        u64::MAX - 15,
    ] {
        let refused = load(&[descriptor(addr, 16, 0, 0)]);
        assert!(matches!(refused, Err(QueueError::OutsideRam(_))), "{addr:#x}");
    }
}

#[test]
fn an_address_that_wraps_around_is_refused() {
    for (addr, len) in [(u64::MAX, 2), (u64::MAX - 3, 16), (RAM, u32::MAX)] {
        let refused = load(&[descriptor(addr, len, WRITE, 0)]);
        assert!(
            matches!(refused, Err(QueueError::OutsideRam(_))),
            "{addr:#x}+{len:#x}"
        );
    }
}

#[test]
fn empty_buffers_count_nothing_wherever_they_are() {
    let table = [
        descriptor(u64::MAX, 0, NEXT, 1),
        descriptor(DATA, 3, NEXT, 2),
        descriptor(0, 0, WRITE, 0),
    ];
    assert_eq!(load(&table).unwrap(), (3, 0));
}

#[test]
fn a_chain_of_more_than_4_gib_is_refused() {
    const ENTRIES: u16 = 2100;
    let memory = ram();
    let table: Vec<_> = (1..=ENTRIES)
        .map(|next| descriptor(RAM, 0x20_0000, WRITE | NEXT, next % ENTRIES))
        .collect();
    store_table(&memory, &table);
    let chain = [descriptor(TABLE, u32::from(ENTRIES) * 16, INDIRECT, 0)];
    assert!(matches!(
        load_with(&chain, u16::MAX, &memory),
        Err(QueueError::BrokenChain)
    ));
}

#[test]
fn an_indirect_table_is_followed() {
    let table = [descriptor(DATA, 16, NEXT, 1), descriptor(DATA, 1, WRITE, 0)];
    assert_eq!(load_indirect(32, 0, &table).unwrap(), (16, 1));
}

#[test]
fn an_indirect_table_may_lie_anywhere_but_as_a_whole_in_ram() {
    let memory = ram();
    let table = [descriptor(DATA, 16, NEXT, 1), descriptor(DATA, 1, WRITE, 0)];
    for start in [TABLE + 1, TABLE + 4, TABLE + 8] {
        for (at, &entry) in (start..).step_by(16).zip(&table) {
            memory.write_obj(entry, GuestAddress(at)).unwrap();
        }
        let to_it = [descriptor(start, 32, INDIRECT, 0)];
        assert_eq!(
            load_with(&to_it, RING_SIZE, &memory).unwrap(),
            (16, 1),
            "{start:#x}"
        );
    }
    let last = HOLE - 16;
    memory
        .write_obj(descriptor(DATA, 16, 0, 0), GuestAddress(last))
        .unwrap();
    let whole = [descriptor(last, 16, INDIRECT, 0)];
    assert_eq!(load_with(&whole, RING_SIZE, &memory).unwrap(), (16, 0));
    let cut = [descriptor(last, 32, INDIRECT, 0)];
    let refused = load_with(&cut, RING_SIZE, &memory);
    assert!(matches!(refused, Err(QueueError::BrokenChain)));
}

#[test]
fn a_next_flag_beside_an_indirect_table_is_not_followed() {
    let table = [descriptor(DATA, 16, 0, 0)];
    assert_eq!(load_indirect(16, NEXT, &table).unwrap(), (16, 0));
}

#[test]
fn an_indirect_table_in_an_indirect_table_is_refused() {
    let table = [descriptor(TABLE, 16, INDIRECT, 0)];
    assert!(matches!(
        load_indirect(16, 0, &table),
        Err(QueueError::BrokenChain)
    ));
    let table = [descriptor(DATA, 16, NEXT, 1), descriptor(TABLE, 16, INDIRECT, 0)];
    assert!(matches!(
        load_indirect(32, 0, &table),
        Err(QueueError::BrokenChain)
    ));
}

#[test]
fn an_indirect_table_of_a_bad_length_is_refused() {
    let table = [descriptor(DATA, 16, 0, 0)];
    for len in [0, 1, 15, 17, 0x10_0000, u32::MAX] {
        let refused = load_indirect(len, 0, &table);
        assert!(matches!(refused, Err(QueueError::BrokenChain)), "{len}");
    }
}

#[test]
fn an_indirect_table_outside_ram_is_refused() {
    for addr in [0, HOLE, u64::MAX - 15] {
        let refused = load(&[descriptor(addr, 32, INDIRECT, 0)]);
        assert!(matches!(refused, Err(QueueError::BrokenChain)), "{addr:#x}");
    }
}

#[test]
fn a_loop_in_an_indirect_table_is_refused() {
    let table = [descriptor(DATA, 1, NEXT, 1), descriptor(DATA, 1, NEXT, 0)];
    assert!(matches!(
        load_indirect(32, 0, &table),
        Err(QueueError::BrokenChain)
    ));
}

#[test]
fn a_chain_longer_than_the_queue_is_refused_even_when_indirect() {
    let mut table: Vec<_> = (1..=RING_SIZE + 1)
        .map(|next| descriptor(DATA, 1, NEXT, next))
        .collect();
    table[usize::from(RING_SIZE)] = descriptor(DATA, 1, 0, 0);
    let len = u32::from(RING_SIZE + 1) * 16;
    assert!(matches!(
        load_indirect(len, 0, &table),
        Err(QueueError::LongChain(RING_SIZE))
    ));
    table[usize::from(RING_SIZE) - 1] = descriptor(DATA, 1, 0, 0);
    assert_eq!(load_indirect(len, 0, &table).unwrap(), (u64::from(RING_SIZE), 0));
}

#[test]
fn a_readable_buffer_after_a_writable_one_is_refused() {
    let table = [descriptor(DATA, 16, WRITE | NEXT, 1), descriptor(DATA, 16, 0, 0)];
    assert!(matches!(load(&table), Err(QueueError::MixedChain)));
}

#[test]
fn a_part_is_read_and_written_across_its_buffers() {
    let memory = ram();
    let mut slices: Vec<_> = [(DATA, 2), (DATA, 0), (DATA + 0x10, 3), (DATA + 0x20, 0)]
        .iter()
        .map(|&(addr, len)| memory.get_slice(GuestAddress(addr), len).unwrap())
        .collect();
    let mut part = Part {
        slices: &mut slices.clone(),
    };
    assert_eq!(part.write(b"abcdefg"), 5);
    assert_eq!((part.len(), part.write(b"x")), (0, 0));
    assert_eq!(
        (peek(&memory, DATA, 3), peek(&memory, DATA + 0x10, 4)),
        (b"ab\0".to_vec(), b"cde\0".to_vec())
    );

    poke(&memory, DATA + 0x12, b"E");
    let mut part = Part { slices: &mut slices };
    let mut text = [0; 3];
    assert_eq!((part.read(&mut text), &text), (3, b"abc"));
    assert_eq!((part.len(), part.slices()[0].len()), (2, 2));
    let (mut rest, last) = part.split_last_byte().unwrap();
    let mut byte = [0];
    last.copy_to(&mut byte);
    assert_eq!((rest.read(&mut text), text[0], byte), (1, b'd', *b"E"));
    assert!(rest.split_last_byte().is_none());
}
