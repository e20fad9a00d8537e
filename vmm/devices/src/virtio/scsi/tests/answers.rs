//! What a disk tells of itself, byte by byte.

use super::*;

/// What a command that gives data gives.
fn data(rig: &mut Rig, lun: u8, cdb: &[u8]) -> Vec<u8> {
    poke(&rig.memory, BUFFER, &[0xee; 1024]);
    let answer = ask(rig, lun, cdb, Data::In(1024));
    assert_eq!((answer.response, answer.status), (0, 0), "{cdb:x?}: {answer:?}");
    let len = answer.used - 108;
    assert_eq!(answer.residual, 1024 - len);
    assert_eq!(
        peek(&rig.memory, BUFFER + u64::from(len), 1),
        [0xee],
        "not more than that"
    );
    peek(&rig.memory, BUFFER, len as usize)
}

fn page(rig: &mut Rig, lun: u8, page: u8) -> Vec<u8> {
    data(rig, lun, &[0x12, 1, page, 2, 0, 0])
}

fn disks() -> (Rig, ScsiHandle) {
    let options = UnitOptions {
        read_only: true,
        cache: Cache::Writethrough,
        ..UnitOptions::default()
    };
    let plain = Unit::new(Box::new(Platter::new()), &options);
    up(vec![unit(&Platter::new()), plain])
}

#[test]
fn a_disk_has_the_names_that_qemu_gives() {
    let (mut rig, _) = disks();
    let standard = data(&mut rig, 0, &[0x12, 0, 0, 0, 96, 0]);
    assert_eq!(standard[..8], [0, 0, 5, 0x12, 31, 0, 0, 0x12]);
    assert_eq!(&standard[8..], b"QEMU    QEMU HARDDISK   2.5+");
    assert_eq!(data(&mut rig, 0, &[0x12, 0, 0, 0, 5, 0]), standard[..5]);
    assert_eq!(
        page(&mut rig, 0, 0),
        [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]
    );
    assert_eq!(page(&mut rig, 0, 0x80), *b"\0\x80\0\x06data-1");
    assert_eq!(page(&mut rig, 0, 0x83), *b"\0\x83\0\x0a\x02\0\0\x06data-1");
    // Without a serial, nothing is made up.
    assert_eq!(page(&mut rig, 1, 0), [0, 0, 0, 5, 0, 0x83, 0xb0, 0xb1, 0xb2]);
    assert_eq!(page(&mut rig, 1, 0x83), [0, 0x83, 0, 0]);
    assert_eq!(
        ask(&mut rig, 1, &[0x12, 1, 0x80, 0, 255, 0], Data::None),
        check([5, 0x24, 0], 0)
    );
}

#[test]
fn a_disk_tells_how_large_and_of_what_make_it_is() {
    let (mut rig, _) = disks();
    assert_eq!(data(&mut rig, 0, &[0x25]), [0, 0, 0, SECTORS - 1, 0, 0, 2, 0]);
    let long = data(&mut rig, 0, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]);
    // Physical blocks of eight, thin.
    assert_eq!(
        long[..16],
        [0, 0, 0, 0, 0, 0, 0, SECTORS - 1, 0, 0, 2, 0, 0, 3, 0x80, 0]
    );
    assert_eq!(long.len(), 32);
    let limits = page(&mut rig, 0, 0xb0);
    assert_eq!(limits[..8], [0, 0xb0, 0, 60, 1, 0, 0, 8]);
    assert_eq!(limits[8..16], [0, 0, 255, 255, 0, 0, 4, 0]);
    assert_eq!(limits[20..32], [0, 16, 0, 0, 0, 0, 0, 8, 0, 0, 0, 128]);
    assert_eq!(limits[36..44], [0, 0, 0, 0, 0, 0, 255, 255]);
    assert_eq!(page(&mut rig, 0, 0xb1)[4..6], [0, 1]);
    assert_eq!(page(&mut rig, 0, 0xb2), [0, 0xb2, 0, 4, 0, 0xe0, 2, 0]);
    // What can only be read gives nothing back.
    assert_eq!(page(&mut rig, 1, 0xb0)[20..32], [0; 12]);
    assert_eq!(page(&mut rig, 1, 0xb2), [0, 0xb2, 0, 4, 0, 0, 0, 0]);
}

#[test]
fn mode_pages_tell_of_cache_and_protection() {
    let (mut rig, _) = disks();
    let short = data(&mut rig, 0, &[0x1a, 0, 0x3f, 0, 192, 0]);
    assert_eq!(short[..12], [31, 0, 0x10, 8, 0, 0, 0, SECTORS, 0, 0, 2, 0]);
    assert_eq!(short[12..15], [8, 18, 4]);
    assert_eq!(short.len(), 32);
    let long = data(&mut rig, 1, &[0x5a, 8, 8, 0, 0, 0, 0, 0, 64, 0]);
    assert_eq!(long[..11], [0, 26, 0, 0x90, 0, 0, 0, 0, 8, 18, 0]);
    assert_eq!(long.len(), 28);
    let changeable = data(&mut rig, 0, &[0x1a, 8, 0x48, 0, 192, 0]);
    assert_eq!(changeable[4..], [&[8, 18][..], &[0; 18]].concat());
}

#[test]
fn units_are_listed_and_those_that_are_not_say_so() {
    let (mut rig, handle) = disks();
    handle.insert(63, unit(&Platter::new())).unwrap();
    let list = |rig: &mut Rig, lun| data(rig, lun, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
    let expected = [
        [0, 0, 0, 24, 0, 0, 0, 0],
        [0; 8],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [0, 63, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(list(&mut rig, 0), expected.concat());
    assert_eq!(list(&mut rig, 9), expected.concat());
    assert_eq!(data(&mut rig, 9, &[0x12, 0, 0, 0, 36, 0])[..1], [0x7f]);
    let sense = data(&mut rig, 9, &[3, 0, 0, 0, 18, 0]);
    assert_eq!((sense[2], sense[12]), (5, 0x25));
    assert_eq!(ask(&mut rig, 9, &[0], Data::None), check([5, 0x25, 0], 0));
    assert_eq!(ask(&mut rig, 200, &[0], Data::None), check([5, 0x25, 0], 0));
    let mut said = || data(&mut rig, 0, &[3, 0, 0, 0, 18, 0])[..3].to_vec();
    assert_eq!(said(), [0x70, 0, 0], "the list has told it already");
    handle.remove(63);
    assert_eq!(said(), [0x70, 0, 6], "units have gone");
    assert_eq!(said(), [0x70, 0, 0]);
}

#[test]
fn there_is_one_target_and_none_without_a_unit() {
    let (mut rig, handle) = disks();
    let memory = rig.memory.clone();
    let mut elsewhere = |lun: [u8; 4]| {
        (0..3).for_each(|queue| rig.set_ready(queue, false));
        rig.start_queues();
        let mut ring = Ring::new(&memory, REQUESTS);
        let chain = lay(&memory, 0, 0, 1, &[0], Data::None);
        poke(&memory, HEADER, &lun);
        ring.add(&chain);
        rig.run(REQUESTS);
        ring.take_used().unwrap();
        answer_at(&memory, 0, 0).response
    };
    assert_eq!(elsewhere([1, 0, 0, 0]), 0, "the other simple form");
    assert_eq!(
        [[1, 1, 0x40, 0], [0, 0, 0x40, 0], [0xc1, 1, 0, 0]].map(&mut elsewhere),
        [3; 3]
    );
    assert!(handle.remove(0) && handle.remove(1) && !handle.remove(1));
    assert_eq!(elsewhere([1, 0, 0x40, 0]), 3);
}
