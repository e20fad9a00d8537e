//! How much memory a VMI asks for.

use rvm_types::admission::{Cause, Path};
use rvm_types::domain::Domain;
use rvmm_spec::MemorySize;
use rvmm_spec::limits::MEMORY_GRANULE;

/// The guest's memory, rounded up to what the machine can be built with: `128M` is no multiple of a page table's
/// reach, and nobody means less than what they wrote.
///
/// # Errors
/// A size that cannot be read.
pub fn guest(domain: &Domain) -> Result<MemorySize, Cause> {
    let path = Path::new("spec.domain.memory.guest");
    let guest = domain.memory.as_ref().and_then(|memory| memory.guest.as_ref());
    let bytes = guest.ok_or_else(|| path.required("is missing"))?.bytes();
    let bytes = bytes.map_err(|error| path.invalid(error))?;
    let whole = bytes
        .checked_next_multiple_of(MEMORY_GRANULE)
        .ok_or_else(|| path.invalid("is too large"))?;
    Ok(MemorySize::from_bytes(whole))
}
