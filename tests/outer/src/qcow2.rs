//! An empty qcow2 image, byte by byte, so that no test needs a tool to make one.

/// Bytes of a cluster, QEMU's default.
const CLUSTER: usize = 64 << 10;
/// Bytes of the disk for which an entry of the L1 table stands: a table's entries times a cluster.
const PER_ENTRY: u64 = (CLUSTER as u64 / 8) * CLUSTER as u64;

/// An image of version 3 for a disk of this many bytes, up to 4 TiB: header, refcount table, refcount block, L1 table, a
/// cluster each.
#[must_use]
pub fn empty(size: u64) -> Vec<u8> {
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let cluster = |number: usize| (number * CLUSTER) as u64;
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &CLUSTER.trailing_zeros().to_be_bytes());
    put(24, &size.to_be_bytes());
    let entries = u32::try_from(size.div_ceil(PER_ENTRY)).unwrap_or(u32::MAX);
    put(36, &entries.to_be_bytes());
    put(40, &cluster(3).to_be_bytes());
    put(48, &cluster(1).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    // Refcounts of 16 bits; a header of 104 bytes, and the end of its extensions.
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(CLUSTER, &cluster(2).to_be_bytes());
    for number in 0..4 {
        put(2 * CLUSTER + 2 * number, &1u16.to_be_bytes());
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_a_disk_fit_into_their_clusters() {
        let image = empty(4 << 40);
        assert_eq!(image.len(), 4 * CLUSTER);
        let entries = u32::from_be_bytes(image[36..40].try_into().unwrap());
        assert_eq!(entries as usize * 8, CLUSTER);
    }
}
