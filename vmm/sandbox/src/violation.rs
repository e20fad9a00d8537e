//! What happens when a thread makes a call that its filter traps: one line, and the end.
//!
//! The kernel sends the thread SIGSYS. Its handler runs at any moment, also while the thread holds a lock or allocates; so
//! it makes system calls and nothing else, and only such as every thread's filter lets through.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

use syscalls::Sysno;

use crate::Thread;

/// The exit status of a machine that could not go on.
const STATUS: i32 = 1;

/// Puts back what must not stay changed, such as a raw terminal.
static LAST_DEED: OnceLock<fn()> = OnceLock::new();

/// `deed` is called before the process ends for a call that it may not make. It must do with system calls alone, and
/// wait for nothing. The first one stays.
pub fn on_violation(deed: fn()) {
    // Whoever came first has the same in mind.
    LAST_DEED.set(deed).ok();
}

/// Makes a trap end the process in words.
pub(crate) fn install() -> io::Result<()> {
    #[expect(unsafe_code, reason = "neither std nor rustix offer signal handlers")]
    // SAFETY: a zeroed `sigaction` is a valid one; the handler is of the shape that SA_SIGINFO asks for, and is safe to
    // run at any moment (see above). SIGSYS has no other meaning in this process.
    let result = unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handle as extern "C" fn(_, _, _) as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The kernel's `siginfo_t` of a SIGSYS by seccomp (Linux, include/uapi/asm-generic/siginfo.h).
#[repr(C)]
struct Trapped {
    signal: i32,
    /// The trap's data: the thread's kind.
    data: i32,
    code: i32,
    _padding: i32,
    _address: usize,
    call: i32,
    _architecture: u32,
}

extern "C" fn handle(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    #[expect(unsafe_code, reason = "the kernel hands over a record by its address")]
    // SAFETY: with SA_SIGINFO the kernel gives the address of a `siginfo_t`, which for SIGSYS has this shape and is 128
    // bytes long.
    let trapped = unsafe { &*info.cast::<Trapped>() };
    if let Some(deed) = LAST_DEED.get() {
        deed();
    }
    let name = usize::try_from(trapped.call).ok().and_then(Sysno::new);
    let mut digits = [0; 10];
    say(&[
        b"rvmm: sandbox: the ",
        thread(trapped.data).as_bytes(),
        b" thread made the system call ",
        name.as_ref().map_or("", Sysno::name).as_bytes(),
        b" (",
        decimal(trapped.call.unsigned_abs(), &mut digits),
        b"), which it may not; rvmm ends\n",
    ]);
    #[expect(unsafe_code, reason = "std's exit runs what must not run in a handler")]
    // SAFETY: `_exit` ends the process at once and runs nothing of ours.
    unsafe {
        libc::_exit(STATUS)
    }
}

fn thread(data: i32) -> &'static str {
    let kinds = [Thread::Main, Thread::Vcpu, Thread::Disk, Thread::Launcher];
    let kind = kinds.into_iter().find(|kind| *kind as i32 == data);
    kind.map_or("unknown", Thread::name)
}

/// One line in one call, so that no other thread's words come between.
fn say(parts: &[&[u8]; 7]) {
    let parts = parts.map(io::IoSlice::new);
    // Nobody may be there to hear it.
    rustix::io::writev(rustix::stdio::stderr(), &parts).ok();
}

fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut start = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_help() {
        for number in [0, 7, 220, u32::MAX] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn the_record_begins_like_the_c_librarys() {
        assert_eq!(std::mem::offset_of!(Trapped, call), 24);
        assert!(size_of::<Trapped>() <= size_of::<libc::siginfo_t>());
        assert_eq!(thread(Thread::Disk as i32), "disk");
    }
}
