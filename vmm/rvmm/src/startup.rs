//! Gives back the pages of our own code that only the start needed.
//!
//! Reading arguments, placing a kernel, writing a device tree and raising the sandbox touch nearly all of the program, and a
//! running guest little of it. The kernel maps code in runs of pages as it is executed; here all of it is unmapped once, and
//! what still runs comes back from the page cache by itself. That is done when the guest starts, and once more when it has
//! booted: setting devices up takes other code than serving them. Where most of a VMM is its code, that halves what it holds.

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// The linker's names for the beginning and the end of the program's code.
#[expect(unsafe_code, reason = "these two have no definition that Rust could see")]
mod linker {
    unsafe extern "C" {
        pub static __executable_start: u8;
        pub static etext: u8;
    }
}

/// To be called when what comes next needs little of what came before. That it fails is no fault: the pages stay.
pub fn forget() {
    let start = (&raw const linker::__executable_start).addr();
    let end = (&raw const linker::etext).addr();
    // The last page may hold data besides.
    let length = end.saturating_sub(start) / page_size() * page_size();
    let place = (&raw const linker::__executable_start).cast_mut().cast();
    #[expect(unsafe_code, reason = "the advice goes to the kernel by address")]
    // SAFETY: these pages are the program's code and constants, mapped from its file, which nobody writes: whatever is
    // touched again reads the same from there.
    unsafe { madvise(place, length, Advice::LinuxDontNeed) }.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_goes_on_without_the_pages_of_its_start() {
        forget();
        assert_eq!("the program".len(), 11);
    }
}
