//! Unpacks zstd (RFC 8878): all frames of a stream, one after the other. Tools that can fetch parts of a layer write it as
//! many frames, with frames of their own in between, which are skipped.

use std::io::{self, BufRead, BufReader, Read, Write};

use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// How far back a frame may refer, which is what unpacking it takes of memory. What tools write by themselves has 8 MiB.
const MAX_WINDOW: u64 = 128 << 20;

/// Unpacks at most `room` bytes; `None` when there are more.
///
/// # Errors
/// It is not zstd, is cut off, or refers too far back; or what reading and writing fails at.
pub fn unpack(from: impl Read, room: u64, to: &mut impl Write) -> io::Result<Option<u64>> {
    let (mut from, mut written) = (BufReader::new(from), 0);
    while !from.fill_buf()?.is_empty() {
        match StreamingDecoder::new_with_max_window_size(&mut from, MAX_WINDOW) {
            Ok(frame) => {
                let left = room - written;
                written += io::copy(&mut frame.take(left.saturating_add(1)), to)?;
                if written > room {
                    return Ok(None);
                }
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => skip(&mut from, length.into())?,
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
    Ok(Some(written))
}

fn skip(from: &mut impl Read, length: u64) -> io::Result<()> {
    match io::copy(&mut from.take(length), &mut io::sink())? {
        skipped if skipped == length => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn packed(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    /// A frame that is not of the stream, with this in it.
    fn skipped(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&0x184d_2a50_u32.to_le_bytes(), &length.to_le_bytes(), bytes].concat()
    }

    fn unpacked(stream: &[u8], room: u64) -> io::Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        let count = unpack(stream, room, &mut out)?;
        Ok(count.map(|count| {
            assert_eq!(count, out.len() as u64);
            out
        }))
    }

    #[test]
    fn all_frames_are_unpacked_and_those_of_others_skipped() {
        let stream = [
            packed(b"one "),
            skipped(b"not this"),
            packed(b"two"),
            skipped(b""),
        ]
        .concat();
        assert_eq!(unpacked(&stream, 7).unwrap().unwrap(), b"one two");
        assert_eq!(unpacked(b"", 7).unwrap().unwrap(), b"");
    }

    #[test]
    fn what_is_more_than_there_is_room_for_is_not_unpacked() {
        let bomb = packed(&vec![0; 1 << 20]);
        let mut out = Vec::new();
        assert_eq!(unpack(&bomb[..], 4096, &mut out).unwrap(), None);
        assert!(out.len() <= 4097);
        assert_eq!(unpacked(&[packed(b"1"), packed(b"2")].concat(), 1).unwrap(), None);
    }

    #[test]
    fn what_is_cut_off_or_no_zstd_is_an_error() {
        let whole = packed(b"a stream of some length, which is cut off at each of its bytes");
        let whole = [whole, skipped(b"and another")].concat();
        let frame = whole.len() - skipped(b"and another").len();
        for end in (1..whole.len()).filter(|end| *end != frame) {
            assert!(unpacked(&whole[..end], 1 << 20).is_err(), "{end}");
        }
        assert!(unpacked(b"\x1f\x8b\x08 is gzip", 1 << 20).is_err());
    }

    #[test]
    fn a_frame_that_would_take_too_much_memory_is_refused() {
        // A window of 2^41 bytes, and one last empty block.
        let frame = [&0xfd2f_b528_u32.to_le_bytes()[..], &[0x00, 31 << 3, 1, 0, 0]].concat();
        assert!(unpacked(&frame, 1 << 20).is_err());
    }
}
