//! The lab: an emulated riscv64 host with KVM, on any machine.
//!
//! QEMU emulates the hypervisor extension well enough to run KVM, so every claim about KVM is tested in a machine
//! made here. Its life: [`image`] packs a small Debian user space, our kernel and test guests into an initramfs that the
//! cache keeps; [`Lab::start`] puts the programs under test on top of it and has [`emulator`] start QEMU as the
//! [`Profile`] says; the host's `init.sh` loads KVM and starts the agent; the test then runs commands in it.
//!
//! Tests are written against [`Host`], which is a [`Lab`] or this very machine ([`Here`]), so that one body
//! holds for KVM and for emulation.

pub mod bench;
pub mod emulator;
pub mod here;
pub mod host;
pub mod image;
pub mod lab;
pub mod profile;
pub mod qcow2;
pub mod qmp;
pub mod session;
pub mod shell;

pub use here::Here;
pub use host::{Assets, Host};
pub use lab::{Lab, Setup};
pub use profile::Profile;
pub use rustix::process::Signal;
pub use rvm_outer_agent::wire::{End, Program};
pub use session::{Output, Session};
