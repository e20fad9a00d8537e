//! The `ioctl` requests that rvmm makes on descriptors other than KVM's. Those of KVM come with the
//! [`Plan`](crate::Plan), from the crate that knows them.

/// Requests of every thread: the terminal is put back by whichever thread panics, or breaks a wall.
pub const EVERY: &[(&str, u32)] = &[
    ("TCGETS", 0x5401),
    ("TCSETS", 0x5402),
    ("TCGETS2", 0x802c_542a),
    ("TCSETS2", 0x402c_542b),
    ("TIOCGPGRP", 0x540f),
];

/// Requests of a vCPU's thread, on which a driver sets a device up and resets it.
pub const VCPU: &[(&str, u32)] = &[
    ("TUNSETOFFLOAD", 0x4004_54d0),
    ("TUNSETQUEUE", 0x4004_54d9),
    ("VHOST_NET_SET_BACKEND", 0x4008_af30),
];

/// Requests of the main thread.
pub const MAIN: &[(&str, u32)] = &[
    ("TIOCGWINSZ", 0x5413),
    ("SIOCGIFINDEX", 0x8933),
    ("FIONBIO", 0x5421),
    ("FIONREAD", 0x541b),
    ("TUNGETFEATURES", 0x8004_54cf),
    ("TUNSETIFF", 0x4004_54ca),
    ("TUNGETIFF", 0x8004_54d2),
    ("TUNSETVNETHDRSZ", 0x4004_54d8),
    ("TUNGETVNETHDRSZ", 0x8004_54d7),
    ("VHOST_SET_OWNER", 0xaf01),
    ("VHOST_GET_FEATURES", 0x8008_af00),
    ("VHOST_SET_FEATURES", 0x4008_af00),
    ("VHOST_SET_MEM_TABLE", 0x4008_af03),
    ("VHOST_SET_VRING_NUM", 0x4008_af10),
    ("VHOST_SET_VRING_ADDR", 0x4028_af11),
    ("VHOST_SET_VRING_BASE", 0x4008_af12),
    ("VHOST_SET_VRING_KICK", 0x4008_af20),
    ("VHOST_SET_VRING_CALL", 0x4008_af21),
];

/// Requests to a disk that is a block device.
pub const DISK: &[(&str, u32)] = &[
    ("BLKGETSIZE64", 0x8008_1272),
    ("BLKSSZGET", 0x1268),
    ("BLKPBSZGET", 0x127b),
    ("BLKDISCARD", 0x1277),
    ("BLKZEROOUT", 0x127f),
    ("BLKFLSBUF", 0x1261),
    ("BLKROGET", 0x125e),
];
