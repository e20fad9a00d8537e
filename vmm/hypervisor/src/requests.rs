//! The requests that go to KVM's descriptors, for a sandbox that lets no others through (Linux, include/uapi/linux/kvm.h).

/// The letter of KVM's requests.
const KVM: u32 = 0xae;

/// Requests while a guest runs: by a vCPU's thread, or by who raises an interrupt.
pub const RUN: &[u32] = &[
    none(0x80),      // KVM_RUN
    write(0x61, 8),  // KVM_IRQ_LINE
    write(0xa5, 32), // KVM_SIGNAL_MSI
    write(0x86, 4),  // KVM_INTERRUPT
    write(0x79, 64), // KVM_IOEVENTFD: a guest moves a device's registers
    write(0x76, 32), // KVM_IRQFD: a guest sets a message's address
    write(0x6a, 8),  // KVM_SET_GSI_ROUTING
    write(0x46, 32), // KVM_SET_USER_MEMORY_REGION: flash is memory until a guest writes it
];

/// Requests that build a machine, look at one, or stop one.
pub const BUILD: &[u32] = &[
    none(0x00),       // KVM_GET_API_VERSION
    none(0x01),       // KVM_CREATE_VM
    none(0x03),       // KVM_CHECK_EXTENSION
    none(0x04),       // KVM_GET_VCPU_MMAP_SIZE
    none(0x41),       // KVM_CREATE_VCPU
    none(0xce),       // KVM_GET_STATS_FD
    write(0x46, 32),  // KVM_SET_USER_MEMORY_REGION
    write(0xa3, 104), // KVM_ENABLE_CAP
    write(0xab, 16),  // KVM_GET_ONE_REG
    write(0xac, 16),  // KVM_SET_ONE_REG
    both(0xb0, 8),    // KVM_GET_REG_LIST
    both(0xe0, 12),   // KVM_CREATE_DEVICE
    write(0xe1, 24),  // KVM_SET_DEVICE_ATTR
    write(0xe2, 24),  // KVM_GET_DEVICE_ATTR
    write(0xe3, 24),  // KVM_HAS_DEVICE_ATTR
    read(0x98, 4),    // KVM_GET_MP_STATE
    write(0x99, 4),   // KVM_SET_MP_STATE
];

const fn none(number: u32) -> u32 {
    KVM << 8 | number
}

const fn write(number: u32, size: u32) -> u32 {
    1 << 30 | size << 16 | none(number)
}

const fn read(number: u32, size: u32) -> u32 {
    2 << 30 | size << 16 | none(number)
}

const fn both(number: u32, size: u32) -> u32 {
    3 << 30 | size << 16 | none(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernels_headers() {
        assert_eq!((RUN[0], RUN[1], BUILD[1]), (0xae80, 0x4008_ae61, 0xae01));
    }
}
