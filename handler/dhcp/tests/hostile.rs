//! Whatever else a guest sends: it ends nothing, and what is answered goes to that guest and fits its link.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses the half of its protocol")]
mod guest;

use guest::{GUEST, SERVER, over4, over6, responder, solicitation};
use proptest::prelude::*;
use rvm_dhcp::frame;
use rvm_dhcp::link_local;

fn harmless(frame: &[u8]) -> bool {
    responder().answer(frame).is_none_or(|answer| {
        let (link, _) = frame::parse(&answer).unwrap();
        let shared = link.to.0[0] & 1 == 1;
        link.from == SERVER && (link.to == GUEST || shared) && answer.len() <= 1514
    })
}

/// A head that the readers take, so that the options behind it are reached.
fn discover(options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&GUEST.0);
    message.extend_from_slice(&[99, 130, 83, 99, 53, 1, 1]);
    message.extend_from_slice(options);
    message
}

#[test]
fn lengths_that_have_ended_other_servers_end_nothing() {
    // A status shorter than itself, a vendor class shorter than its number, a rapid commit with something in it.
    assert!(harmless(&over6(&[1, 0, 0, 1, 0, 13, 0, 1, 0])));
    assert!(harmless(&over6(&[1, 0, 0, 1, 0, 16, 0, 2, 0, 0, 0, 0])));
    assert!(harmless(&over4(&discover(&[80, 3, 1, 2, 3, 255]))));
}

#[test]
fn a_stranger_behind_the_guest_is_not_answered() {
    let mut frame = solicitation(link_local(GUEST));
    frame[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    assert_eq!(responder().answer(&frame), None);
}

#[test]
fn the_longest_client_identifier_leaves_room_for_the_answer() {
    let mut options = vec![57, 2, 0, 0, 61, 255];
    options.extend_from_slice(&[7; 255]);
    options.push(255);
    let answer = responder().answer(&over4(&discover(&options))).unwrap();
    assert!(answer.len() <= 576 + 14);
}

proptest! {
    #[test]
    fn nonsense_is_harmless(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(harmless(&frame));
    }

    #[test]
    fn nonsense_for_options_is_harmless(options in prop::collection::vec(any::<u8>(), 0..600), kind in 0..14_u8) {
        prop_assert!(harmless(&over4(&discover(&options))));
        let six = [&[kind, 0, 0, 1, 0, 1, 0, 2, 1, 2], options.as_slice()].concat();
        prop_assert!(harmless(&over6(&six)));
    }

    #[test]
    fn options_of_any_length_are_harmless(
        options in prop::collection::vec((0..40_u16, 0..40_u16, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
    ) {
        let bytes: Vec<u8> = options
            .iter()
            .flat_map(|(code, length, value)| [&code.to_be_bytes(), &length.to_be_bytes(), value.as_slice()].concat())
            .collect();
        let six = [&[1, 0, 0, 1, 0, 1, 0, 2, 1, 2], bytes.as_slice()].concat();
        prop_assert!(harmless(&over6(&six)));
    }

    #[test]
    fn a_frame_with_a_wrong_byte_is_harmless(at in 0..300_usize, byte: u8) {
        for mut frame in [over4(&discover(&[50, 4, 10, 0, 2, 2, 255])), over6(&[1, 0, 0, 1, 0, 1, 0, 2, 1, 2]), solicitation(link_local(GUEST))] {
            let at = at % frame.len();
            frame[at] = byte;
            prop_assert!(harmless(&frame));
        }
    }
}
