//! The TCG backend: one qemu-system-riscv64 for the same Spec.
