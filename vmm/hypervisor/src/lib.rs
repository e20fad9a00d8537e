//! The only place that knows KVM and the host's architecture.
//!
//! ```text
//!   probe()  ── can this host run a riscv64 guest in hardware? if not, why
//!   create() ── memory, vCPUs, registers, interrupt controller, in the order that KVM demands
//!      │
//!      ├─ Arc<dyn Vm>          wired interrupts, eventfds for messages and doorbells
//!      ├─ Vec<Box<dyn Vcpu>>   each moved to its own thread: loop { run(exits) }
//!      └─ Facts                what the guest's CPUs are, for the device tree
//! ```
//!
//! Everything above sees the traits [`Vm`] and [`Vcpu`] and is tested with [`fake`] on any architecture. What a
//! guest does that KVM hands to us goes to an [`ExitHandler`]; it cannot make [`Vcpu::run`] panic.

mod error;
mod facts;
pub mod fake;
pub mod isa;
mod kick;
#[cfg(all(target_arch = "riscv64", target_os = "linux"))]
mod kvm;
mod probe;
pub mod requests;
pub mod sbi;

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

pub use error::HypervisorError;
pub use facts::{Facts, Interrupts, Mmu, Offer};
pub use kick::{install_kick, kick};
pub use probe::{Offers, Unavailable, create, offers, probe};

/// What a VM is made of, as far as the hypervisor must know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of vCPUs.
    pub cpus: u8,
    /// Guest RAM, mapped; the VM keeps it alive.
    pub memory: GuestMemoryMmap,
    /// Where the supervisor-level APLIC is, if the host has AIA.
    pub aplic: u64,
    /// Where the IMSIC of vCPU 0 is; the others follow in pages.
    pub imsic: u64,
    /// Wired interrupt sources, numbered from 1 to this.
    pub sources: u32,
    /// Extensions that are to be on or off, by name; all others are as the host has them.
    pub isa: Vec<(String, bool)>,
    /// Memory that the guest may read and execute but not write, once [`Vm::show_rom`] shows it; each is one region.
    pub roms: Vec<GuestMemoryMmap>,
}

/// A VM whose vCPUs have not run yet.
pub struct Created {
    /// The VM as a whole.
    pub vm: Arc<dyn Vm>,
    /// Its vCPUs by number; 0 starts, the others wait for SBI HSM.
    pub vcpus: Vec<Box<dyn Vcpu>>,
    /// What the guest's CPUs are.
    pub facts: Facts,
}

/// A VM as a whole. All methods may be called from any thread while vCPUs run.
pub trait Vm: Send + Sync {
    /// Pulses a wired, edge-triggered source of the in-kernel interrupt controller.
    fn pulse(&self, source: u32);

    /// Raises or lowers a wired, level-triggered source of the in-kernel interrupt controller.
    fn set_level(&self, source: u32, high: bool);

    /// Drives the external interrupt of a vCPU, for an interrupt controller in user space.
    fn set_external(&self, vcpu: usize, high: bool);

    /// Shows the ROM of this number to the guest, or hides it: then reads come to us, as writes always do.
    ///
    /// # Errors
    /// When KVM refuses.
    fn show_rom(&self, rom: usize, shown: bool) -> Result<(), HypervisorError>;

    /// From now on a write to `address` signals `event` instead of reaching user space: one of these 4 bytes, or of any
    /// length and value.
    ///
    /// # Errors
    /// When KVM refuses.
    fn bind_doorbell(&self, address: u64, value: Option<u32>, event: &EventFd)
    -> Result<(), HypervisorError>;

    /// Takes a doorbell back, given as it was bound.
    fn unbind_doorbell(&self, address: u64, value: Option<u32>, event: &EventFd);

    /// From now on `event` sends the message that is routed to this number, one below [`MAX_MESSAGES`]. Only with
    /// AIA: there is nobody else to send it to.
    ///
    /// # Errors
    /// When KVM refuses, or the number is out of range.
    fn attach_message(&self, number: u32, event: &EventFd) -> Result<(), HypervisorError>;

    /// Routes a message to this number, for now and later events.
    ///
    /// # Errors
    /// When KVM refuses, or the number is out of range.
    fn route_message(&self, number: u32, message: Message) -> Result<(), HypervisorError>;

    /// Takes an event back, given as it was attached, and forgets its message.
    fn detach_message(&self, number: u32, event: &EventFd);
}

/// A message-signalled interrupt: `data`, written to `address`, which belongs to an IMSIC if the guest means well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub address: u64,
    /// What.
    pub data: u32,
}

/// How many messages can be told apart.
pub const MAX_MESSAGES: u32 = 2048;

/// One vCPU, owned by the thread that runs it.
pub trait Vcpu: Send {
    /// Where the guest starts, and what it finds in `a0` and `a1`.
    ///
    /// # Errors
    /// When KVM refuses.
    fn set_entry(&mut self, entry: Entry) -> Result<(), HypervisorError>;

    /// Runs the guest until something has to be decided. What can be answered at once goes to `exits`.
    ///
    /// # Errors
    /// The guest did what this host cannot go on from, such as touching a device with a vector load.
    fn run(&mut self, exits: &mut dyn ExitHandler) -> Result<Next, HypervisorError>;
}

/// The state in which a supervisor starts (Linux, Documentation/arch/riscv/boot.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// First instruction.
    pub pc: u64,
    /// `a0`: the hart's number.
    pub hart: u64,
    /// `a1`: the device tree's address.
    pub device_tree: u64,
}

/// What to do after [`Vcpu::run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run again.
    Continue,
    /// The thread was kicked, or a signal came: look whether to stop, else run again.
    Interrupted,
    /// The guest switched the machine off.
    Shutdown,
    /// The guest asked for a reset.
    Reset,
}

/// What answers a guest. Called on the vCPU's thread.
pub trait ExitHandler {
    /// The guest reads `data.len()` bytes (1, 2, 4 or 8) that are not RAM.
    fn mmio_read(&mut self, address: u64, data: &mut [u8]);

    /// The guest writes where no RAM is.
    fn mmio_write(&mut self, address: u64, data: &[u8]);

    /// An SBI call that KVM leaves to us. `None` is answered `SBI_ERR_NOT_SUPPORTED`.
    fn sbi(&mut self, call: &sbi::Call) -> Option<sbi::Answer>;

    /// Sixteen random bits for the guest's `seed` CSR (Zkr).
    fn seed(&mut self) -> u16;

    /// An exit that nobody knows. It is counted, and the guest goes on.
    fn unknown(&mut self, reason: u32);
}
