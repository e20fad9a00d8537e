//! Words on the serial port.

use core::fmt;

use super::bare::{load8, store8};

const UART: u64 = 0x1000_0000;
const LINE_STATUS: u64 = UART + 5;
const ROOM: u64 = 0x20;

/// The serial port, as something to write to.
pub(super) struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while load8(LINE_STATUS) & ROOM == 0 {}
            store8(UART, u64::from(byte));
        }
        Ok(())
    }
}

/// Prints one line. A case may have left the port in any state: it is set up first.
pub(super) fn line(words: fmt::Arguments<'_>) {
    for (register, value) in [(3, 3), (4, 0), (1, 0), (2, 7)] {
        store8(UART + register, value);
    }
    // The port cannot refuse.
    let _ = fmt::Write::write_fmt(&mut Serial, format_args!("\n{words}\n"));
}
