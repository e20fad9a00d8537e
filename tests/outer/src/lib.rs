//! The lab: an emulated riscv64 host with KVM.
