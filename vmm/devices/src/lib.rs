//! What the guest sees: registers and virtqueues, as pure code.
//!
//! ```text
//!   vCPU exit ──► Bus ──► BusDevice: Uart, Plic, Rtc, Syscon, Flash, MmioTransport
//!                                                                 │
//!   kick (eventfd), back end ready ──► virtio::Core::run_queue ◄──┘
//!                                          │ negotiation, rings, interrupts (virtio::transport)
//!                                          ▼
//!                                      VirtioDevice: Blk, Net, Console, Rng
//!                                          │ traits: BlockBackend, NetBackend, ConsoleOutput, …
//!                                          ▼
//!                                      rvmm-backends: files, taps, sockets
//! ```
//!
//! Invariants: no file, socket, thread, KVM or architecture is known here; what a device needs from outside is a
//! trait that its maker injects. The guest is hostile: a register access that a device does not understand reads
//! as all-ones and writes nothing, a virtqueue that breaks the rules stops its device until the driver resets it,
//! every length and count is bounded by a named constant, and nothing the guest does can panic. A device does not
//! know where it sits: it gets offsets into its own window.

#![forbid(unsafe_code)]

mod blunt;
pub mod bus;
pub mod console;
pub mod flash;
pub mod interrupt;
pub mod pci;
pub mod plic;
pub mod rtc;
pub mod syscon;
pub mod uart;
pub mod virtio;
pub mod watchdog;

pub use bus::{Bus, BusDevice, BusError, Range};
pub use console::ConsoleOutput;
pub use interrupt::{IrqLine, LevelLine};
