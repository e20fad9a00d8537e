//! One vCPU: `KVM_RUN`, and what comes back from it.

use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, ThreadId};

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::registers;
use super::vm::KvmVm;
use crate::kick::set_word;
use crate::{Entry, ExitHandler, HypervisorError, Next, Vcpu, sbi};

/// Exits that kvm-ioctls has no name for (Linux, include/uapi/linux/kvm.h).
const EXIT_SBI: u32 = 35;
const EXIT_CSR: u32 = 36;

/// The `seed` CSR (Zkr), and its status "16 bits of entropy".
const CSR_SEED: u64 = 0x015;
const SEED_ES16: u64 = 0b10 << 30;

pub(super) struct KvmVcpu {
    /// Holds the mapping of `kvm_run`, into which the kick's handler writes.
    fd: ManuallyDrop<VcpuFd>,
    /// The thread whose kicks reach this vCPU: the one that ran it last.
    runner: Option<ThreadId>,
    /// Another thread ran it before, and may still be kicked.
    moved: bool,
    /// The VM's memory must outlive the vCPU that runs in it.
    _vm: Arc<KvmVm>,
}

// === impl KvmVcpu ===

impl KvmVcpu {
    pub(super) fn new(fd: VcpuFd, vm: Arc<KvmVm>) -> Self {
        Self {
            fd: ManuallyDrop::new(fd),
            runner: None,
            moved: false,
            _vm: vm,
        }
    }

    /// Makes kicks of this thread reach the vCPU.
    #[expect(unsafe_code, reason = "the kick's handler writes into kvm_run")]
    fn arm(&mut self) {
        let this = thread::current().id();
        if self.runner != Some(this) {
            self.moved |= self.runner.replace(this).is_some();
            let word = &raw mut self.fd.get_kvm_run().immediate_exit;
            // SAFETY: `kvm_run` stays mapped until `drop`, which takes the word back on this thread, or else leaves
            // the mapping there for good. Beside the handler only `disarm` uses it, and that as an atomic.
            unsafe { set_word(word) };
        }
    }

    /// The kick has done its work.
    #[expect(unsafe_code, reason = "the kick's handler writes into kvm_run")]
    fn disarm(&mut self) {
        let word = &raw mut self.fd.get_kvm_run().immediate_exit;
        // SAFETY: the byte is in a live mapping, and is only used as an atomic.
        unsafe { AtomicU8::from_ptr(word) }.store(0, Ordering::Relaxed);
    }

    #[expect(unsafe_code, reason = "kvm_run holds a union")]
    fn sbi(&mut self, exits: &mut dyn ExitHandler) {
        // SAFETY: KVM said that the exit's reason is an SBI call, so this is the member that it filled.
        let exit = unsafe { &mut self.fd.get_kvm_run().__bindgen_anon_1.riscv_sbi };
        let call = sbi::Call {
            extension: exit.extension_id,
            function: exit.function_id,
            args: exit.args,
        };
        // KVM has put SBI_ERR_NOT_SUPPORTED there before; it stays where nobody answers.
        if let Some(answer) = exits.sbi(&call) {
            exit.ret = [answer.error.cast_unsigned(), answer.value];
        }
    }

    #[expect(unsafe_code, reason = "kvm_run holds a union")]
    fn csr(&mut self, exits: &mut dyn ExitHandler) {
        // SAFETY: KVM said that the exit's reason is a CSR access, so this is the member that it filled.
        let exit = unsafe { &mut self.fd.get_kvm_run().__bindgen_anon_1.riscv_csr };
        if exit.csr_num == CSR_SEED {
            exit.ret_value = SEED_ES16 | u64::from(exits.seed());
        } else {
            exit.ret_value = 0;
            exits.unknown(EXIT_CSR);
        }
    }
}

impl Vcpu for KvmVcpu {
    fn set_entry(&mut self, entry: Entry) -> Result<(), HypervisorError> {
        registers::set_entry(&self.fd, entry)
    }

    fn run(&mut self, exits: &mut dyn ExitHandler) -> Result<Next, HypervisorError> {
        self.arm();
        match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => exits.mmio_read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => exits.mmio_write(address, data),
            Ok(VcpuExit::Unsupported(EXIT_SBI)) => self.sbi(exits),
            Ok(VcpuExit::Unsupported(EXIT_CSR)) => self.csr(exits),
            Ok(VcpuExit::SystemEvent(kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN, _)) => {
                return Ok(Next::Shutdown);
            }
            Ok(VcpuExit::SystemEvent(kvm_bindings::KVM_SYSTEM_EVENT_RESET, _)) => return Ok(Next::Reset),
            Ok(VcpuExit::SystemEvent(kind, _)) => exits.unknown(kind),
            Ok(VcpuExit::Intr) => {
                self.disarm();
                return Ok(Next::Interrupted);
            }
            Ok(VcpuExit::FailEntry(reason, _)) => return Err(HypervisorError::Entry(reason)),
            Ok(VcpuExit::Unsupported(reason)) => exits.unknown(reason),
            Ok(VcpuExit::InternalError) => {
                return Err(HypervisorError::GuestFault(io::Error::other(
                    "KVM internal error",
                )));
            }
            Ok(_) => exits.unknown(0),
            Err(errno) if matches!(errno.errno(), libc::EINTR | libc::EAGAIN) => {
                self.disarm();
                return Ok(Next::Interrupted);
            }
            Err(errno) => return Err(HypervisorError::GuestFault(errno.into())),
        }
        Ok(Next::Continue)
    }
}

impl Drop for KvmVcpu {
    #[expect(unsafe_code, reason = "the kick's handler writes into kvm_run")]
    fn drop(&mut self) {
        if self.runner == Some(thread::current().id()) {
            // SAFETY: null is no word.
            unsafe { set_word(std::ptr::null_mut()) };
        } else {
            self.moved |= self.runner.is_some();
        }
        if self.moved {
            // Another thread's handler may still write there.
            return;
        }
        // SAFETY: this is the end of the vCPU, and nothing uses the descriptor or its mapping any more.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
    }
}
