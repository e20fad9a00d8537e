//! What machine cannot be, and what is possible instead.

use std::path::PathBuf;

use crate::limits::{
    MAX_ALLOWED_PATHS, MAX_CMDLINE, MAX_CPUS, MAX_DISK_IOPS, MAX_MEMORY, MAX_MTU, MAX_NAME, MAX_NET_QUEUES,
    MAX_OVERLAYS, MAX_SCSI_DISKS, MAX_SHARE_TAG, MAX_SOCKET_PATH, MAX_VSOCK_PATH, MEMORY_GRANULE,
    MIN_DISK_BANDWIDTH, MIN_MEMORY, MIN_MTU, MIN_RNG_BANDWIDTH,
};
use crate::memory::HugePages;
use crate::{MemorySize, Transport};

/// The machine that was asked for cannot exist. Each text names the field, the value and what is possible.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// A name is needed for logs and files.
    #[error("name '{0}' must be 1 to {MAX_NAME} printable characters without '/'")]
    Name(String),
    /// Too few or too many vCPUs.
    #[error("{0} vCPUs are not possible: 1 to {MAX_CPUS}")]
    Cpus(u64),
    /// Too little or too much RAM.
    #[error("{0} of memory is not possible: {min} to {max}", min = MemorySize::from_bytes(MIN_MEMORY), max = MemorySize::from_bytes(MAX_MEMORY))]
    Memory(MemorySize),
    /// RAM that is no multiple of the granule.
    #[error("{0} of memory is not possible: it must be a multiple of {granule}", granule = MemorySize::from_bytes(MEMORY_GRANULE))]
    MemoryGranule(MemorySize),
    /// RAM that is no whole number of huge pages.
    #[error("{0} of memory is not possible in huge pages of {1}: it must be a multiple")]
    HugePages(MemorySize, HugePages),
    /// More paths than a machine can have use for.
    #[error("the sandbox cannot leave {0} paths open: at most {MAX_ALLOWED_PATHS}")]
    AllowedPaths(usize),
    /// The kernel would cut it off.
    #[error("the kernel command line has {0} bytes; at most {MAX_CMDLINE} are possible")]
    CmdlineLength(usize),
    /// A device tree string cannot hold it.
    #[error("the kernel command line holds a NUL or a line break")]
    CmdlineCharacter,
    /// Nothing to start, or two things.
    #[error("a machine boots either a kernel or a firmware")]
    Payload,
    /// A firmware finds them on its disk.
    #[error("{0} needs a kernel; a firmware takes them from its disk")]
    NeedsKernel(&'static str),
    /// More overlays than anybody needs.
    #[error("{0} device-tree overlays are not possible: at most {MAX_OVERLAYS}")]
    Overlays(usize),
    /// The guest could not read it whole.
    #[error("disk serial '{0}' must be 1 to {1} printable ASCII characters")]
    Serial(String, usize),
    /// What is a hole and what a zero, a raw image does not tell.
    #[error("a disk on a base has to be qcow2: a raw image does not know what was written into it")]
    RawOnBase,
    /// One descriptor comes along.
    #[error("a disk on a base is one that the machine starts with")]
    BasePlugged,
    /// A queue for a vCPU that is not there does nothing.
    #[error("a disk with {0} queues is not possible: 1 to {1}, a queue for each vCPU")]
    DiskQueues(u16, u16),
    /// They are the controller's.
    #[error("a disk on bus scsi with {0} queues is not possible: the controller has one, for all its disks")]
    ScsiQueues(u16),
    /// There is nothing that a disk could be plugged into.
    #[error("disks are plugged in on bus scsi where the machine has a controller: start it with --scsi")]
    NoScsi,
    /// Each has a number.
    #[error("{0} disks on bus scsi are not possible: at most {MAX_SCSI_DISKS}")]
    ScsiDisks(usize),
    /// A limit that is none, or that lets nothing through.
    #[error("a disk with {0} requests a second is not possible: 1 to {MAX_DISK_IOPS}")]
    DiskIops(u64),
    /// A request would take hours.
    #[error("a disk with {0} a second is not possible: at least {min}", min = MemorySize::from_bytes(MIN_DISK_BANDWIDTH))]
    DiskBandwidth(MemorySize),
    /// A request would take long, and a boot that waits for it.
    #[error("an entropy device with {0} a second is not possible: at least {min}", min = MemorySize::from_bytes(MIN_RNG_BANDWIDTH))]
    RngBandwidth(MemorySize),
    /// None, or more than anyone has vCPUs for.
    #[error("a network interface with {0} queues is not possible: 1 to {MAX_NET_QUEUES}")]
    NetQueues(u8),
    /// The host's kernel moves frames between rings and a tap, and serves no commands.
    #[error("vhost=on is for a network interface on a tap, with one pair of queues")]
    Vhost,
    /// It is opened at the start.
    #[error("vhost=on is for a network interface that the machine starts with")]
    VhostPlugged,
    /// Its socket is one stream.
    #[error("a network interface on passt has one queue")]
    PasstQueues,
    /// No address can hold it.
    #[error("passt socket '{}' is not possible: a path has 1 to {MAX_SOCKET_PATH} bytes", .0.display())]
    PasstPath(PathBuf),
    /// No network has it.
    #[error("an MTU of {0} is not possible: {MIN_MTU} to {MAX_MTU}")]
    Mtu(u16),
    /// The host's own numbers, or everyone's.
    #[error("vsock cid {0} is not possible: 3 to 4294967294")]
    Cid(u32),
    /// The name of a port follows it, and both are one address.
    #[error("vsock socket '{}' is not possible: a path has 1 to {MAX_VSOCK_PATH} bytes", .0.display())]
    VsockPath(PathBuf),
    /// The guest could not name it.
    #[error("share tag '{0}' must be 1 to {MAX_SHARE_TAG} bytes without control characters")]
    ShareTag(String),
    /// No address can hold it.
    #[error("share socket '{}' is not possible: a path has 1 to {MAX_SOCKET_PATH} bytes", .0.display())]
    SharePath(PathBuf),
    /// The guest could mount only one of them.
    #[error("two shares have the tag '{0}'")]
    ShareTwice(String),
    /// A server takes one guest, and one device of it.
    #[error("two shares have the socket '{}'", .0.display())]
    ShareSocketTwice(PathBuf),
    /// Its server is another process, and reads and writes guest RAM.
    #[error("share '{0}' needs memory that its server can see: --memory SIZE,shared")]
    ShareMemory(String),
    /// Windows are where they are.
    #[error(
        "devices are plugged in over PCI only: start the machine with --transport pci, or disks on bus scsi with --scsi"
    )]
    NoHotPlug,
    /// The machine has a fixed number of places for devices.
    #[error(
        "{0} devices (disks but those on scsi, networks, console, rng and those asked for) are not possible: at most {max}{more}",
        max = .1.max_devices(),
        more = more_devices(*.1)
    )]
    Devices(usize, Transport),
}

fn more_devices(transport: Transport) -> String {
    match transport {
        Transport::Mmio => format!(" (with transport pci {})", Transport::Pci.max_devices()),
        Transport::Pci => String::new(),
    }
}
