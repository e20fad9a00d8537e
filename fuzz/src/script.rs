//! Bytes as a script: numbers are taken off its front until there is nothing left.

/// What is left of a script.
pub struct Script<'a>(pub &'a [u8]);

// === impl Script ===

impl Script<'_> {
    /// The next `N` bytes, with zeros where the script has ended.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (now, later) = self.0.split_at(N.min(self.0.len()));
        bytes[..now.len()].copy_from_slice(now);
        self.0 = later;
        bytes
    }

    /// The next thing to do; `None` at the end.
    pub fn step(&mut self) -> Option<u8> {
        (!self.0.is_empty()).then(|| self.byte())
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    /// Two bytes.
    pub fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// Four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// Eight bytes.
    pub fn double(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
