//! How long a kernel's file must be: its PE section table tells, where it has one (EFI stub).

/// As much of a file as may hold its PE headers.
pub const MAX_HEADERS: usize = 4096;

const MAX_SECTIONS: usize = 32;
const SECTION: usize = 40;

/// The end of the last section in the file, from the file's first bytes; `None` where they hold no PE headers.
/// (Microsoft PE format, "Section Table": SizeOfRawData at 16, PointerToRawData at 20.)
pub fn file_size(head: &[u8]) -> Option<u64> {
    if head.get(..2)? != b"MZ" {
        return None;
    }
    let pe = usize::try_from(u32_at(head, 0x3c)?).ok()?;
    if head.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let sections = usize::from(u16_at(head, pe + 6)?).min(MAX_SECTIONS);
    let table = pe + 24 + usize::from(u16_at(head, pe + 20)?);
    let ends = (0..sections).map(|index| {
        let section = table + index * SECTION;
        Some(u64::from(u32_at(head, section + 16)?) + u64::from(u32_at(head, section + 20)?))
    });
    ends.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}
