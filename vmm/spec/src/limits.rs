//! The bounds of a machine. Everything that a user or an API may ask for is held against one of these.

/// Most vCPUs: AIA's hart bits and the device tree are laid out for this many.
pub const MAX_CPUS: u8 = 64;

/// Least guest RAM in bytes. A kernel, its page tables and a device tree do not fit below this.
pub const MIN_MEMORY: u64 = 32 << 20;

/// Most guest RAM in bytes: RAM starts at 2 GiB and must stay inside a 39-bit guest-physical space.
pub const MAX_MEMORY: u64 = 256 << 30;

/// Guest RAM comes in multiples of this many bytes.
pub const MEMORY_GRANULE: u64 = 2 << 20;

/// virtio-mmio slots of the machine, as on QEMU's `virt`: disks, nets, console and rng share them.
pub const MAX_VIRTIO_DEVICES: usize = 8;

/// Devices on the machine's PCI bus, if it has one: 32 slots, of which the bridge has the first.
pub const MAX_PCI_DEVICES: usize = 31;

/// Longest kernel command line in bytes, without its NUL (`COMMAND_LINE_SIZE` of riscv Linux is 1024).
pub const MAX_CMDLINE: usize = 1023;

/// Most extensions that are switched; fewer are known.
pub const MAX_SWITCHES: usize = 128;

/// Longest name of an ISA extension in bytes.
pub const MAX_EXTENSION_NAME: usize = 32;

/// Most device-tree overlays.
pub const MAX_OVERLAYS: usize = 16;

/// Longest disk serial in bytes (virtio 1.2, 5.2.6.4: the ID field has 20).
pub const MAX_SERIAL: usize = 20;

/// Longest serial of a disk on SCSI in bytes: what QEMU's disks tell of theirs.
pub const MAX_SCSI_SERIAL: usize = 36;

/// Most disks on the SCSI controller, from the start and plugged in: each has a descriptor or two, and tables of its image.
pub const MAX_SCSI_DISKS: usize = 64;

/// Most request queues of a disk. One thread serves them all; they keep a guest's vCPUs out of each other's way.
pub const MAX_DISK_QUEUES: u16 = 16;

/// Highest limit of a disk's requests a second; above it there is nothing to limit.
pub const MAX_DISK_IOPS: u64 = 100_000_000;

/// Lowest limit of a disk's bytes a second: a request of many megabytes must end within minutes.
pub const MIN_DISK_BANDWIDTH: u64 = 64 << 10;

/// Lowest limit of the entropy device's bytes a second: its largest request.
pub const MIN_RNG_BANDWIDTH: u64 = 1 << 10;

/// Longest name of a device that is plugged in, in bytes.
pub const MAX_DEVICE_ID: usize = 32;

/// Longest name of a network interface on Linux in bytes (`IFNAMSIZ` less its NUL).
pub const MAX_TAP_NAME: usize = 15;

/// Longest machine name in bytes, as for any Kubernetes object.
pub const MAX_NAME: usize = 253;

/// Largest `spec.json` in bytes that is read.
pub const MAX_DOCUMENT: u64 = 1 << 20;

/// Most pairs of queues of a network interface.
pub const MAX_NET_QUEUES: u8 = 16;

/// Smallest MTU: IPv4 demands it of every network (RFC 791).
pub const MIN_MTU: u16 = 68;

/// Largest MTU: what IP can say, less the Ethernet header (virtio 1.3, 5.1.4.1).
pub const MAX_MTU: u16 = 65_521;

/// Longest path of a Unix socket in bytes.
pub const MAX_SOCKET_PATH: usize = 107;

/// Longest tag of a shared folder in bytes (virtio 1.3, 5.11.4).
pub const MAX_SHARE_TAG: usize = 36;

/// Longest path of a vsock's Unix socket in bytes: `_` and a port's ten digits follow.
pub const MAX_VSOCK_PATH: usize = MAX_SOCKET_PATH - 11;

/// Most paths that stay open in the sandbox besides the machine's own.
pub const MAX_ALLOWED_PATHS: usize = 64;
