//! Whatever a driver asks: each request is answered once, the disk holds what the answers say, and nothing but that.

use proptest::prelude::*;

use super::*;

/// Commands that are mostly sensible, and anything else now and then.
fn cdb() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop::sample::select(vec![
        0x00, 0x03, 0x08, 0x0a, 0x12, 0x1a, 0x1b, 0x25, 0x28, 0x2a, 0x35, 0x41, 0x42, 0x5a, 0x88, 0x8a, 0x91,
        0x93, 0x9e, 0xa0, 0xa8, 0xaa,
    ]);
    let opcode = prop_oneof![20 => opcode, 1 => any::<u8>()];
    let byte = prop_oneof![12 => Just(0u8), 4 => 0..10u8, 1 => any::<u8>()];
    (opcode, prop::collection::vec(byte, 15)).prop_map(|(opcode, rest)| [vec![opcode], rest].concat())
}

fn is_read(cdb: &[u8]) -> bool {
    matches!(cdb[0], 0x08 | 0x28 | 0x88 | 0xa8)
}

proptest! {
    #[test]
    fn arbitrary_commands_are_answered_once_and_reach_only_the_disk_and_their_buffers(
        commands in prop::collection::vec((0..4u8, cdb(), any::<bool>(), 0..3000u32), 1..20),
        byte: u8,
    ) {
        let (platter, only_read) = (Platter::new(), Platter::new());
        let options = UnitOptions { read_only: true, ..UnitOptions::default() };
        let (mut rig, _) = up(vec![unit(&platter), Unit::new(Box::new(only_read.clone()), &options)]);
        let memory = rig.memory.clone();
        let untouched = only_read.bytes.lock().unwrap().clone();
        for (lun, cdb, is_in, len) in commands {
            poke(&memory, BUFFER, &[byte; 3000]);
            poke(&memory, BUFFER + u64::from(len), &[0xca; 16]);
            let before = platter.bytes.lock().unwrap().clone();
            let data = if is_in { Data::In(len) } else { Data::Out(len) };
            let answer = ask(&mut rig, lun, &cdb, data);
            let sent = answer.used - 108;
            prop_assert!(answer.response < 2 && sent <= len, "{answer:?}");
            prop_assert_eq!(answer.status != 0, answer.sense != [0; 3], "{:?}", answer);
            prop_assert!(answer.status == 0 && answer.response == 0 || sent == 0, "{answer:?}");
            if !is_in || answer.status != 0 || answer.response != 0 {
                prop_assert_eq!(peek(&memory, BUFFER, len as usize), vec![byte; len as usize]);
                prop_assert!(answer.status == 0 || answer.residual == len);
            }
            prop_assert_eq!(peek(&memory, BUFFER + u64::from(len), 16), [0xca; 16]);
            let after = platter.bytes.lock().unwrap().clone();
            if is_in && is_read(&cdb) && answer.status == 0 && answer.response == 0 && sent > 0 && lun == 0 {
                let found = peek(&memory, BUFFER, sent as usize);
                prop_assert!(after.chunks(512).collect::<Vec<_>>().windows(sent as usize / 512).any(|run| run.concat() == found));
            }
            if lun != 0 || answer.status != 0 || answer.response != 0 {
                prop_assert_eq!(after, before);
            }
        }
        prop_assert_eq!(only_read.bytes.lock().unwrap().clone(), untouched);
        prop_assert_eq!(rig.status() & NEEDS_RESET, 0);
    }
}
