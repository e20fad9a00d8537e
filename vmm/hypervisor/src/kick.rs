//! Getting a vCPU's thread out of the guest: a signal that does nothing but interrupt `KVM_RUN`.

use std::io;
use std::thread::JoinHandle;

use vmm_sys_util::signal::{Killable, SIGRTMIN, SignalHandler, register_signal_handler};

/// Installs the handler that makes [`kick`] interrupt a system call instead of ending the process. Once a process.
///
/// # Errors
/// The kernel's.
pub fn install_kick() -> io::Result<()> {
    let nothing: SignalHandler = handle_kick;
    register_signal_handler(SIGRTMIN(), nothing).map_err(io::Error::from)
}

/// Interrupts a thread's system call. A kick that comes just before the thread enters the guest is lost, so whoever
/// wants a thread to stop kicks until it has.
pub fn kick<T>(thread: &JoinHandle<T>) {
    // A thread that is gone needs no kick.
    thread.kill(SIGRTMIN()).ok();
}

extern "C" fn handle_kick(_signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {}
