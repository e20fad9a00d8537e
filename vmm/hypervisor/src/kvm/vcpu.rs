//! One vCPU: `KVM_RUN`, and what comes back from it.

use std::io;
use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::registers;
use super::vm::KvmVm;
use crate::{Entry, ExitHandler, HypervisorError, Next, Vcpu, sbi};

/// Exits that kvm-ioctls has no name for (Linux, include/uapi/linux/kvm.h).
const EXIT_SBI: u32 = 35;
const EXIT_CSR: u32 = 36;

/// The `seed` CSR (Zkr), and its status "16 bits of entropy".
const CSR_SEED: u64 = 0x015;
const SEED_ES16: u64 = 0b10 << 30;

pub(super) struct KvmVcpu {
    fd: VcpuFd,
    /// The VM's memory must outlive the vCPU that runs in it.
    _vm: Arc<KvmVm>,
}

// === impl KvmVcpu ===

impl KvmVcpu {
    pub(super) fn new(fd: VcpuFd, vm: Arc<KvmVm>) -> Self {
        Self { fd, _vm: vm }
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
            Ok(VcpuExit::Intr) => return Ok(Next::Interrupted),
            Ok(VcpuExit::FailEntry(reason, _)) => return Err(HypervisorError::Entry(reason)),
            Ok(VcpuExit::Unsupported(reason)) => exits.unknown(reason),
            Ok(VcpuExit::InternalError) => {
                return Err(HypervisorError::GuestFault(io::Error::other(
                    "KVM internal error",
                )));
            }
            Ok(_) => exits.unknown(0),
            Err(errno) if matches!(errno.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Next::Interrupted);
            }
            Err(errno) => return Err(HypervisorError::GuestFault(errno.into())),
        }
        Ok(Next::Continue)
    }
}
