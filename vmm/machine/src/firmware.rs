//! The SBI calls that KVM leaves to us: consoles. Everything else is not supported, and the guest goes on.

use std::sync::Arc;

use rvmm_devices::console::ConsoleOutput;
use rvmm_hypervisor::sbi::{
    Answer, Call, DEBUG_CONSOLE, INVALID_PARAM, LEGACY_GETCHAR, LEGACY_PUTCHAR, debug_console,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Most bytes of one debug-console call that are taken; the guest is told how many, and calls again for the rest.
const MAX_WRITE: usize = 4096;

/// The firmware's console, as the guest calls it.
#[derive(Clone)]
pub struct Firmware {
    memory: GuestMemoryMmap,
    console: Arc<dyn ConsoleOutput>,
}

// === impl Firmware ===

impl Firmware {
    /// A firmware that prints to this console.
    pub fn new(memory: GuestMemoryMmap, console: Arc<dyn ConsoleOutput>) -> Self {
        Self { memory, console }
    }

    /// Answers a call; `None` is "not supported".
    pub fn call(&self, call: &Call) -> Option<Answer> {
        let [first, low, high, ..] = call.args;
        match (call.extension, call.function) {
            (LEGACY_PUTCHAR, _) => Some(self.put(first)),
            // No input here: the UART has it. -1 is "none" (SBI, 5.3).
            (LEGACY_GETCHAR, _) => Some(Answer::error(-1)),
            (DEBUG_CONSOLE, debug_console::WRITE) => Some(self.write(first, low, high)),
            (DEBUG_CONSOLE, debug_console::READ) => Some(Answer::ok(0)),
            (DEBUG_CONSOLE, debug_console::WRITE_BYTE) => Some(self.put(first)),
            _ => None,
        }
    }

    fn put(&self, byte: u64) -> Answer {
        let [byte, ..] = byte.to_le_bytes();
        self.console.write(&[byte]);
        Answer::ok(0)
    }

    fn write(&self, len: u64, low: u64, high: u64) -> Answer {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_WRITE);
        let mut bytes = [0; MAX_WRITE];
        let Some(bytes) = bytes.get_mut(..len) else {
            return Answer::error(INVALID_PARAM);
        };
        // Addresses have 64 bits here, so the upper word must be 0 (SBI, 12.1).
        if high != 0 || self.memory.read_slice(bytes, GuestAddress(low)).is_err() {
            return Answer::error(INVALID_PARAM);
        }
        self.console.write(bytes);
        Answer::ok(len as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RAM_BASE;
    use rvmm_spec::MemorySize;
    use std::sync::{Mutex, PoisonError};

    #[derive(Default)]
    struct Screen(Mutex<Vec<u8>>);

    impl ConsoleOutput for Screen {
        fn write(&self, bytes: &[u8]) {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
        }
    }

    fn firmware() -> (Firmware, Arc<Screen>) {
        let memory = rvmm_boot::memory::map(MemorySize::from_mib(32)).unwrap();
        memory.write_slice(b"hello", GuestAddress(RAM_BASE)).unwrap();
        let screen = Arc::new(Screen::default());
        (Firmware::new(memory, Arc::<Screen>::clone(&screen)), screen)
    }

    fn dbcn(function: u64, args: [u64; 3]) -> Call {
        Call {
            extension: DEBUG_CONSOLE,
            function,
            args: [args[0], args[1], args[2], 0, 0, 0],
        }
    }

    #[test]
    fn the_debug_console_prints_guest_memory() {
        let (firmware, screen) = firmware();
        assert_eq!(
            firmware.call(&dbcn(debug_console::WRITE, [5, RAM_BASE, 0])),
            Some(Answer::ok(5))
        );
        assert_eq!(
            firmware.call(&dbcn(debug_console::WRITE_BYTE, [0x121, 0, 0])),
            Some(Answer::ok(0))
        );
        assert_eq!(*screen.0.lock().unwrap(), b"hello!");
    }

    #[test]
    fn memory_that_is_not_there_is_an_invalid_parameter() {
        let (firmware, screen) = firmware();
        let end = RAM_BASE + (32 << 20);
        for args in [[5, 0, 0], [5, end - 4, 0], [5, u64::MAX - 2, 0], [5, RAM_BASE, 1]] {
            assert_eq!(
                firmware.call(&dbcn(debug_console::WRITE, args)),
                Some(Answer::error(INVALID_PARAM)),
                "{args:x?}"
            );
        }
        assert!(screen.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_huge_write_is_cut_and_the_guest_told() {
        let (firmware, _) = firmware();
        assert_eq!(
            firmware.call(&dbcn(debug_console::WRITE, [1 << 63, RAM_BASE, 0])),
            Some(Answer::ok(4096))
        );
    }

    #[test]
    fn unknown_calls_are_not_supported() {
        let (firmware, _) = firmware();
        assert_eq!(
            firmware.call(&Call {
                extension: 0x0900_0000,
                function: 0,
                args: [0; 6]
            }),
            None
        );
        assert_eq!(firmware.call(&dbcn(7, [0; 3])), None);
    }
}
