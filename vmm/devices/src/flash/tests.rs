//! The bank against what a driver does, right and wrong.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

/// Four blocks.
const LEN: u64 = 4 * BLOCK;
/// The first byte of the second block.
const FIRST_OF_SECOND: usize = 256 << 10;

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    shown: Vec<bool>,
    full: bool,
}

#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Kept>>);

impl FlashArray for Bytes {
    fn len(&self) -> u64 {
        LEN
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let at = usize::try_from(offset).unwrap();
        data.copy_from_slice(&self.0.lock().unwrap().bytes[at..at + data.len()]);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let mut kept = self.0.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        kept.bytes[at..at + data.len()].copy_from_slice(data);
        !kept.full
    }

    fn show(&mut self, shown: bool) {
        self.0.lock().unwrap().shown.push(shown);
    }
}

fn flash() -> (Flash, Bytes) {
    let bytes = Bytes::default();
    bytes.0.lock().unwrap().bytes = vec![0xff; usize::try_from(LEN).unwrap()];
    (Flash::new(Box::new(bytes.clone())), bytes)
}

/// A command to both chips.
fn send(flash: &mut Flash, offset: u64, commands: &[u8]) {
    for &command in commands {
        flash.write(offset, &(u32::from(command) * 0x1_0001).to_le_bytes());
    }
}

fn word(flash: &mut Flash, offset: u64) -> u32 {
    let mut data = [0; 4];
    flash.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn status(flash: &mut Flash) -> u32 {
    send(flash, 0, &[0x70]);
    word(flash, 0)
}

#[test]
fn a_word_is_programmed_and_erased_with_its_block() {
    let (mut flash, _) = flash();
    send(&mut flash, BLOCK, &[0x40]);
    flash.write(BLOCK, &0x1234_5678u32.to_le_bytes());
    assert_eq!(status(&mut flash), 0x0080_0080);
    send(&mut flash, 0, &[0xff]);
    assert_eq!(word(&mut flash, BLOCK), 0x1234_5678);
    // Only an erased bit can be set again.
    send(&mut flash, BLOCK, &[0x10]);
    flash.write(BLOCK, &0xffff_0000u32.to_le_bytes());
    send(&mut flash, BLOCK, &[0xff]);
    assert_eq!(word(&mut flash, BLOCK), 0x1234_0000);
    send(&mut flash, BLOCK + 64, &[0x20, 0xd0, 0xff]);
    assert_eq!(word(&mut flash, BLOCK), u32::MAX);
}

#[test]
fn a_buffer_is_programmed_when_it_is_confirmed() {
    let (mut flash, bytes) = flash();
    send(&mut flash, 0x100, &[0xe8, 1]);
    flash.write(0x100, &[1; 4]);
    flash.write(0x104, &[2; 4]);
    assert_eq!(bytes.0.lock().unwrap().bytes[0x100], 0xff);
    send(&mut flash, 0x100, &[0xd0, 0xff]);
    assert_eq!(
        bytes.0.lock().unwrap().bytes[0x100..0x108],
        [1, 1, 1, 1, 2, 2, 2, 2]
    );
}

#[test]
fn a_locked_block_stays_as_it_is() {
    let (mut flash, bytes) = flash();
    send(&mut flash, BLOCK, &[0x60, 0x01, 0x90]);
    assert_eq!(
        (word(&mut flash, BLOCK + 8), word(&mut flash, 8)),
        (0x0001_0001, 0)
    );
    send(&mut flash, BLOCK, &[0x40, 0, 0x20, 0xd0]);
    assert_eq!(status(&mut flash), 0x00b2_00b2);
    assert_eq!(bytes.0.lock().unwrap().bytes[FIRST_OF_SECOND], 0xff);
    send(&mut flash, BLOCK, &[0x50, 0x60, 0xd0, 0x40, 0]);
    assert_eq!(status(&mut flash), 0x0080_0080);
    assert_eq!(bytes.0.lock().unwrap().bytes[FIRST_OF_SECOND], 0);
}

#[test]
fn identity_and_query_are_those_of_qemus_flash() {
    let (mut flash, _) = flash();
    send(&mut flash, 0, &[0x90]);
    assert_eq!(
        (word(&mut flash, 0), word(&mut flash, 4)),
        (0x0089_0089, 0x0018_0018)
    );
    send(&mut flash, 0x55 * 4, &[0x98]);
    let query: Vec<u32> = (0x10..0x13).map(|at| word(&mut flash, at * 4)).collect();
    assert_eq!(query, [0x0051_0051, 0x0052_0052, 0x0059_0059]);
    let geometry: Vec<u32> = [0x27, 0x2a, 0x2c, 0x2d, 0x30]
        .map(|at| word(&mut flash, at * 4) & 0xff)
        .to_vec();
    assert_eq!(geometry, [24, 11, 1, 127, 2]);
    let extended: Vec<u32> = (0x31..0x34).map(|at| word(&mut flash, at * 4) & 0xff).collect();
    assert_eq!(extended, [0x50, 0x52, 0x49]);
}

#[test]
fn the_guest_reads_by_itself_in_array_mode_alone() {
    let (mut flash, bytes) = flash();
    send(&mut flash, 0, &[0x40, 0, 0x70, 0xff, 0xff, 0x90, 0xff]);
    assert_eq!(bytes.0.lock().unwrap().shown, [true, false, true, false, true]);
}

#[test]
fn sequences_that_are_none_end_in_the_status_and_change_nothing() {
    for commands in [&[0x20, 0x00][..], &[0x60, 0x2f], &[0xe8, 0x00, 0x00, 0x00]] {
        let (mut flash, bytes) = flash();
        send(&mut flash, 0, commands);
        assert_eq!(status(&mut flash), 0x00b0_00b0, "{commands:x?}");
        assert!(bytes.0.lock().unwrap().bytes.iter().all(|&byte| byte == 0xff));
    }
    let (mut flash, _) = flash();
    send(&mut flash, 0, &[0xe8]);
    flash.write(0, &1024u32.to_le_bytes());
    assert_eq!(status(&mut flash), 0x00b0_00b0);
}

#[test]
fn a_buffer_that_leaves_its_block_is_an_error() {
    let (mut flash, bytes) = flash();
    send(&mut flash, BLOCK - 4, &[0xe8, 1]);
    flash.write(BLOCK - 4, &[0; 4]);
    flash.write(BLOCK, &[0; 4]);
    assert_eq!(status(&mut flash), 0x00b0_00b0);
    assert_eq!(bytes.0.lock().unwrap().bytes[FIRST_OF_SECOND - 1], 0xff);
}

#[test]
fn what_could_not_be_kept_is_an_error() {
    let (mut flash, bytes) = flash();
    bytes.0.lock().unwrap().full = true;
    send(&mut flash, 0, &[0x40, 0]);
    assert_eq!(status(&mut flash), 0x0090_0090);
    send(&mut flash, 0, &[0x50, 0x20, 0xd0]);
    assert_eq!(status(&mut flash), 0x00a0_00a0);
}

proptest! {
    #[test]
    fn any_accesses_are_survived_and_the_guest_reads_its_bytes_in_the_end(accesses in proptest::collection::vec((any::<bool>(), prop_oneof![0..LEN + 16, any::<u64>()], prop_oneof![Just(0xe8u64), Just(0xd0), Just(0x20), Just(0x40), Just(0x60), 0u64..5, any::<u64>()], 0usize..9), 0..200)) {
        let (mut flash, bytes) = flash();
        for (is_write, offset, value, len) in accesses {
            let mut data = value.to_le_bytes();
            if is_write { flash.write(offset & !3, &data[..len]) } else { flash.read(offset, &mut data[..len]) }
        }
        // Enough to end every sequence.
        for _ in 0..BUFFER_WORDS + 2 { send(&mut flash, 0, &[0xff]); }
        prop_assert!(bytes.0.lock().unwrap().shown.ends_with(&[true]));
        prop_assert_eq!(&word(&mut flash, 64).to_le_bytes()[..], &bytes.0.lock().unwrap().bytes[64..68]);
    }
}
