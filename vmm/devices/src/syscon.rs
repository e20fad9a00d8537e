//! SiFive's test finisher at `0x10_0000`: how a guest without SBI's reset extension switches itself off.
//!
//! The device tree calls it `syscon` and lets `syscon-poweroff` and `syscon-reboot` write to it.

use crate::BusDevice;

const FAIL: u32 = 0x3333;
const POWEROFF: u32 = 0x5555;
const RESET: u32 = 0x7777;

/// What the guest asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SysconAction {
    /// Switch the machine off; all went well.
    Poweroff,
    /// Start it again.
    Reset,
    /// Switch it off; the guest gives this code for what went wrong.
    Fail(u16),
}

/// The register. What is written there is handed on; it reads as zero.
pub struct Syscon {
    act: Box<dyn Fn(SysconAction) + Send>,
}

// === impl Syscon ===

impl Syscon {
    /// `act` is called on the guest's vCPU thread, with the device locked.
    pub fn new(act: impl Fn(SysconAction) + Send + 'static) -> Self {
        Self { act: Box::new(act) }
    }
}

impl BusDevice for Syscon {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    /// Takes 32 bits, or the lower 16 alone.
    fn write(&mut self, offset: u64, data: &[u8]) {
        let value = match *data {
            [a, b] => u32::from_le_bytes([a, b, 0, 0]),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => return,
        };
        match (offset, value & 0xffff) {
            (0, POWEROFF) => (self.act)(SysconAction::Poweroff),
            (0, RESET) => (self.act)(SysconAction::Reset),
            (0, FAIL) => (self.act)(SysconAction::Fail((value >> 16) as u16)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::mpsc::{Receiver, channel};

    fn syscon() -> (Syscon, Receiver<SysconAction>) {
        let (sender, actions) = channel();
        (Syscon::new(move |action| sender.send(action).unwrap()), actions)
    }

    #[test]
    fn the_three_commands_reach_the_machine() {
        let (mut syscon, actions) = syscon();
        syscon.write(0, &0x5555u32.to_le_bytes());
        syscon.write(0, &0x7777u16.to_le_bytes());
        syscon.write(0, &0x002a_3333u32.to_le_bytes());
        assert_eq!(
            actions.try_iter().collect::<Vec<_>>(),
            [
                SysconAction::Poweroff,
                SysconAction::Reset,
                SysconAction::Fail(42)
            ]
        );
    }

    #[test]
    fn other_places_and_widths_do_nothing() {
        let (mut syscon, actions) = syscon();
        syscon.write(4, &0x5555u32.to_le_bytes());
        syscon.write(0, &[0x55]);
        syscon.write(0, &0x5555u64.to_le_bytes());
        assert_eq!(actions.try_iter().count(), 0);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(offset: u64, mut data: Vec<u8>) {
            let (mut syscon, actions) = syscon();
            syscon.write(offset, &data);
            syscon.read(offset, &mut data);
            prop_assert!(data.iter().all(|&byte| byte == 0));
            prop_assert!(actions.try_iter().count() <= 1);
        }
    }
}
