//! Getting a vCPU's thread out of the guest: a signal whose handler says "leave at once" in the very word that
//! `KVM_RUN` reads when it enters the guest. So a kick is never lost, whenever it comes:
//!
//! ```text
//!   thread looks at its flags ─► ✱ ─► KVM_RUN: looks at the word ─► guest ✱ ─► EINTR
//!                                └ the word is set: EINTR at once      └ the signal itself interrupts
//! ```

use std::io;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};
use std::thread::JoinHandle;

use vmm_sys_util::signal::{Killable, SIGRTMIN, SignalHandler, register_signal_handler};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs; null where it runs none. Without a destructor and made
    /// when the program is built, so that a signal handler may look at it.
    static WORD: AtomicPtr<u8> = const { AtomicPtr::new(std::ptr::null_mut()) };
}

/// Installs the handler that makes [`kick`] interrupt a system call instead of ending the process. Once a process.
///
/// # Errors
/// The kernel's.
pub fn install_kick() -> io::Result<()> {
    let handler: SignalHandler = handle_kick;
    register_signal_handler(SIGRTMIN(), handler).map_err(io::Error::from)
}

/// Makes a thread leave the guest, or not enter it, once.
pub fn kick<T>(thread: &JoinHandle<T>) {
    // A thread that is gone needs no kick.
    thread.kill(SIGRTMIN()).ok();
}

/// From now on kicks of this thread set this word; null for none.
///
/// # Safety
/// The word stays where it is until this is called again on the same thread, and is only used as an atomic.
#[cfg(any(test, all(target_arch = "riscv64", target_os = "linux")))]
#[expect(unsafe_code, reason = "the word is in memory that the kernel shares with us")]
pub(crate) unsafe fn set_word(word: *mut u8) {
    WORD.with(|current| current.store(word, Ordering::Relaxed));
}

extern "C" fn handle_kick(_signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // Fails only while the thread is torn down.
    let word = WORD.try_with(|word| word.load(Ordering::Relaxed));
    if let Ok(word) = word
        && !word.is_null()
    {
        #[expect(unsafe_code, reason = "the word is in memory that the kernel shares with us")]
        // SAFETY: `set_word`'s caller keeps the word there, on this thread, which runs this handler.
        unsafe { AtomicU8::from_ptr(word) }.store(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_kick_that_comes_before_the_guest_is_entered_is_not_lost() {
        install_kick().unwrap();
        let (ready, is_ready) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let word = Box::into_raw(Box::new(0u8));
            #[expect(unsafe_code, reason = "the test plays the vCPU")]
            // SAFETY: the word is leaked, and the handler is taken off it at the end.
            unsafe {
                set_word(word);
                ready.send(()).unwrap();
                goes.recv().unwrap();
                set_word(std::ptr::null_mut());
                AtomicU8::from_ptr(word).load(Ordering::Relaxed)
            }
        });
        is_ready.recv().unwrap();
        kick(&thread);
        go.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), 1);
    }
}
