//! Copies a disk: by sharing its blocks where the file system can, else without its zeroes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// What is copied or left out at once.
const PIECE: usize = 64 << 10;

/// Copies a file to a place where whatever lies there is overwritten, readable for its owner alone.
pub(super) fn clone(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut options = File::options();
    let target = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let (mut piece, mut at) = (vec![0; PIECE], 0);
    loop {
        let length = fill(&mut source, &mut piece)?;
        let bytes = &piece[..length];
        if bytes.iter().any(|byte| *byte != 0) {
            target.write_all_at(bytes, at)?;
        }
        at += length as u64;
        if length < PIECE {
            return target.set_len(at);
        }
    }
}

/// Reads until the piece is full or the file ends.
fn fill(source: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < piece.len() {
        match source.read(&mut piece[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_has_every_byte_and_keeps_its_holes() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        let mut bytes = vec![0; 3 * PIECE + 17];
        bytes[PIECE + 5] = 7;
        fs::write(&from, &bytes).unwrap();
        fs::write(&to, vec![9; 5 * PIECE]).unwrap();
        clone(&from, &to).unwrap();
        assert!(fs::read(&to).unwrap() == bytes);
        let sparse = fs::metadata(&to).unwrap().blocks() * 512;
        assert!(sparse <= fs::metadata(&from).unwrap().blocks() * 512);
    }
}
