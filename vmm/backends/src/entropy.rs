//! Random bytes of the host's kernel.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use rvmm_devices::virtio::rng::EntropySource;

/// The kernel's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostEntropy;

impl EntropySource for HostEntropy {
    fn fill(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match getrandom(&mut *buffer, GetRandomFlags::empty()) {
                Ok(count) => buffer = buffer.get_mut(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_filled_to_its_end() {
        let mut bytes = [0; 4096];
        HostEntropy.fill(&mut bytes).unwrap();
        // By chance, 64 zeros in a row come once in 2^503 runs.
        assert!(bytes.chunks(64).all(|chunk| chunk.iter().any(|&byte| byte != 0)));
    }
}
