//! The 16550 serial port: `ttyS0`, and what firmware prints to.
//!
//! The registers are vm-superio's; this file is the adapter around them. Output leaves a byte at a time, because
//! that is how the guest writes it. Input waits in the port's FIFO of 64 bytes: [`Uart::push_input`] says how many
//! it took, and [`InputRoom`] says when to come again.
//!
//! ```text
//!   guest reads IIR, RBR ◄── FIFO ◄── push_input ◄── console hub, main thread
//!                             └─ emptied ─► InputRoom ──────────────▲
//!   guest writes THR ──────► ConsoleOutput
//! ```

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::{BusDevice, ConsoleOutput, IrqLine};

const IER: u8 = 1;
const IER_RECEIVED: u8 = 1;
const IIR: u8 = 2;
/// No interrupt waits.
const IIR_NONE: u8 = 1;
const IIR_ID: u8 = 0x0f;
const IIR_RECEIVED: u8 = 0x04;
const LCR: u8 = 3;
/// The first two registers are the divisor.
const LCR_DLAB: u8 = 1 << 7;
const MODEM_CONTROL: u8 = 4;
const LOOPBACK: u8 = 1 << 4;
const LINE_STATUS: u8 = 5;
const DATA_READY: u8 = 1;

/// Who waits for the FIFO to take more input.
pub trait InputRoom: Send + Sync {
    /// The guest has emptied the FIFO, or has left loopback mode. Called with the UART locked: must only leave a
    /// note, such as a write to an eventfd, for another thread to call [`Uart::push_input`].
    fn input_room(&self);
}

/// One 16550.
pub struct Uart {
    serial: Serial<Line, NoEvents, Output>,
    room: Arc<dyn InputRoom>,
}

struct Line(Arc<dyn IrqLine>);

struct Output(Arc<dyn ConsoleOutput>);

// === impl Uart ===

impl Uart {
    /// A port that has just been reset.
    pub fn new(irq: Arc<dyn IrqLine>, output: Arc<dyn ConsoleOutput>, room: Arc<dyn InputRoom>) -> Self {
        Self {
            serial: Serial::new(Line(irq), Output(output)),
            room,
        }
    }

    /// Offers input to the guest; returns how many bytes the FIFO took. It takes none while it is full or while
    /// the guest has the port in loopback mode; [`InputRoom`] tells when that is over.
    pub fn push_input(&mut self, input: &[u8]) -> usize {
        self.serial.enqueue_raw_bytes(input).unwrap_or(0)
    }

    /// Back to the state after power-on, as when the guest is reset. What was typed and not yet read is lost.
    pub fn reset(&mut self) {
        let (irq, output) = (
            self.serial.interrupt_evt().0.clone(),
            self.serial.writer().0.clone(),
        );
        self.serial = Serial::new(Line(irq), Output(output));
        self.room.input_room();
    }

    /// Whether the driver has to be told of input. The register model forgets that there is some once one byte was
    /// read; a driver that stops before the FIFO is empty, asks why it was interrupted and hears "nothing" would
    /// leave the rest there.
    fn has_input_to_tell(&mut self) -> bool {
        let divisor = self.serial.read(LCR) & LCR_DLAB != 0;
        self.holds_input() && (divisor || self.serial.read(IER) & IER_RECEIVED != 0)
    }

    fn holds_input(&mut self) -> bool {
        self.serial.read(LINE_STATUS) & DATA_READY != 0
    }

    fn in_loopback(&mut self) -> bool {
        self.serial.read(MODEM_CONTROL) & LOOPBACK != 0
    }
}

impl BusDevice for Uart {
    /// Registers are bytes: a wider read has the register in its first byte and zeros above.
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let (Ok(offset), Some(value)) = (u8::try_from(offset), data.first_mut()) else {
            return;
        };
        let held_input = self.holds_input();
        *value = self.serial.read(offset);
        if offset == IIR && *value & IIR_NONE != 0 && self.has_input_to_tell() {
            *value = *value & !IIR_ID | IIR_RECEIVED;
        }
        if held_input && !self.holds_input() {
            self.room.input_room();
        }
    }

    /// Registers are bytes: of a wider write only the first byte counts.
    fn write(&mut self, offset: u64, data: &[u8]) {
        let (Ok(offset), Some(&value)) = (u8::try_from(offset), data.first()) else {
            return;
        };
        let looped = self.in_loopback();
        // The only errors are those of `Line` and `Output`, and they have none.
        let _ = self.serial.write(offset, value);
        if looped && !self.in_loopback() && !self.holds_input() {
            self.room.input_room();
        }
    }
}

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.trigger();
        Ok(())
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
