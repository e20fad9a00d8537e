//! The header before every frame (5.1.6): what is left undone in it.
//!
//! It goes on to the host's network, which acts on it with the rights of the kernel; so a driver's header is held
//! against the features it has accepted and against the frame's length, and only what is understood is passed on.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6,
};

use super::spec::{FEATURE_CSUM, FEATURE_HOST_ECN, FEATURE_HOST_TSO4, FEATURE_HOST_TSO6, MIN_FRAME};

/// Bytes of a header: `struct virtio_net_hdr_v1`.
pub const HEADER_LEN: usize = 12;

/// Where the number of buffers is: the device's to say.
const NUM_BUFFERS: usize = 10;
/// Bytes of a checksum.
const CHECKSUM_LEN: u64 = 2;

/// A driver's header, if it may go on as the header of a frame of this length: what means nothing is cleared.
pub(super) fn checked(header: &[u8; HEADER_LEN], frame_len: u64, acked: u64) -> Option<[u8; HEADER_LEN]> {
    let [flags, gso, a, b, c, d, e, f, g, h, ..] = *header;
    let (header_len, segment) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    let (start, offset) = (u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]));
    let checksum = u32::from(flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
    let segmented = u32::from(gso) != VIRTIO_NET_HDR_GSO_NONE;
    if checksum {
        let end = u64::from(start) + u64::from(offset) + CHECKSUM_LEN;
        if acked & FEATURE_CSUM == 0 || u64::from(start) < MIN_FRAME || end > frame_len {
            return None;
        }
    }
    if segmented {
        let allowed = segmentation(gso).is_some_and(|feature| acked & feature == feature);
        if !allowed || !checksum || segment == 0 || u64::from(header_len) > frame_len {
            return None;
        }
    }
    let mut plain = [0; HEADER_LEN];
    if checksum {
        plain[0] = 1;
        plain[6..10].copy_from_slice(&header[6..10]);
    }
    if segmented {
        plain[1..6].copy_from_slice(&header[1..6]);
    }
    Some(plain)
}

/// The features that a driver must have accepted to have frames segmented in this way.
fn segmentation(gso: u8) -> Option<u64> {
    let ecn = u32::from(gso) & VIRTIO_NET_HDR_GSO_ECN != 0;
    let kind = match u32::from(gso) & !VIRTIO_NET_HDR_GSO_ECN {
        VIRTIO_NET_HDR_GSO_TCPV4 => FEATURE_HOST_TSO4,
        VIRTIO_NET_HDR_GSO_TCPV6 => FEATURE_HOST_TSO6,
        _ => return None,
    };
    Some(kind | if ecn { FEATURE_HOST_ECN } else { 0 })
}

/// Says in how many buffers a received frame lies.
pub(super) fn set_buffers(header: &mut [u8], buffers: u16) {
    if let Some(place) = header.get_mut(NUM_BUFFERS..HEADER_LEN) {
        place.copy_from_slice(&buffers.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = FEATURE_CSUM | FEATURE_HOST_TSO4 | FEATURE_HOST_TSO6 | FEATURE_HOST_ECN;

    fn header(flags: u8, gso: u8, [header_len, segment, start, offset]: [u16; 4]) -> [u8; HEADER_LEN] {
        let mut header = [0xee; HEADER_LEN];
        header[0] = flags;
        header[1] = gso;
        for (place, value) in header[2..10]
            .chunks_mut(2)
            .zip([header_len, segment, start, offset])
        {
            place.copy_from_slice(&value.to_le_bytes());
        }
        header
    }

    #[test]
    fn what_means_nothing_is_cleared() {
        let noise = header(0xfe, 0, [0xffff; 4]);
        assert_eq!(checked(&noise, 60, 0), Some([0; HEADER_LEN]));
        let mut wanted = header(1, 0, [0, 0, 34, 16]);
        wanted[10..].fill(0);
        assert_eq!(checked(&header(0xff, 0, [9, 9, 34, 16]), 60, ALL), Some(wanted));
    }

    #[test]
    fn a_segment_of_tcp_goes_on_as_it_is() {
        for gso in [1, 4, 0x81, 0x84] {
            let mut wanted = header(1, gso, [54, 1448, 34, 16]);
            wanted[10..].fill(0);
            assert_eq!(
                checked(&header(1, gso, [54, 1448, 34, 16]), 3000, ALL),
                Some(wanted)
            );
        }
    }

    #[test]
    fn what_was_not_agreed_upon_is_refused() {
        let checksum = header(1, 0, [0, 0, 34, 16]);
        assert_eq!(checked(&checksum, 60, ALL & !FEATURE_CSUM), None);
        for (gso, feature) in [
            (1, FEATURE_HOST_TSO4),
            (4, FEATURE_HOST_TSO6),
            (0x81, FEATURE_HOST_ECN),
            (0x84, FEATURE_HOST_TSO6),
        ] {
            let segment = header(1, gso, [54, 1448, 34, 16]);
            assert_eq!(checked(&segment, 3000, ALL & !feature), None, "{gso}");
        }
    }

    #[test]
    fn kinds_that_nobody_offered_are_refused() {
        for gso in [2, 3, 5, 6, 0x7f, 0x80, 0x83, 0xff] {
            assert_eq!(
                checked(&header(1, gso, [54, 1448, 34, 16]), 3000, ALL),
                None,
                "{gso}"
            );
        }
    }

    #[test]
    fn places_outside_the_frame_are_refused() {
        for [start, offset] in [[34, 25], [59, 0], [0xffff, 0xffff], [0xffff, 1], [13, 0], [0, 0]] {
            assert_eq!(
                checked(&header(1, 0, [0, 0, start, offset]), 60, ALL),
                None,
                "{start} {offset}"
            );
        }
        assert!(checked(&header(1, 0, [0, 0, 34, 24]), 60, ALL).is_some());
    }

    #[test]
    fn segments_that_cannot_be_are_refused() {
        assert_eq!(checked(&header(1, 1, [54, 0, 34, 16]), 3000, ALL), None);
        assert_eq!(checked(&header(1, 1, [3001, 1448, 34, 16]), 3000, ALL), None);
        assert_eq!(checked(&header(0, 1, [54, 1448, 34, 16]), 3000, ALL), None);
    }
}
