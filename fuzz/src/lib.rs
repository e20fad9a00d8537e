//! Whatever reads what a guest, an image or another program has written, as functions of bytes.
//!
//! ```text
//!   corpus/NAME/*  ─► tests/replay.rs (stable Rust, `make test`)  ─┐
//!   libFuzzer      ─► main.rs (feature `libfuzzer`, `make fuzz`)  ─┴─► TARGETS: NAME → fn(&[u8])
//! ```
//!
//! A target fails by panicking, by not coming back, or by taking more memory than a machine has; it asserts more where
//! more can be known. What it is given is a script: each byte or two is the next thing that a guest does.

mod addresses;
mod files;
mod messages;
mod queues;
mod registers;
mod script;
mod served;
mod sockets;

/// A target.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("queue-blk", queues::blk),
    ("queue-blk-read-only", queues::blk_read_only),
    ("queue-scsi", queues::scsi),
    ("queue-net", queues::net),
    ("queue-console", queues::console),
    ("queue-rng", queues::rng),
    ("queue-balloon", queues::balloon),
    ("queue-vsock", queues::vsock),
    ("queue-fs", served::fs),
    ("registers-uart", registers::uart),
    ("registers-plic", registers::plic),
    ("registers-rtc", registers::rtc),
    ("registers-syscon", registers::syscon),
    ("registers-virtio-mmio", registers::virtio_mmio),
    ("registers-virtio-pci", registers::virtio_pci),
    ("registers-pci-host", registers::pci_host),
    ("registers-flash", registers::flash),
    ("registers-watchdog", registers::watchdog),
    ("registers-bus", registers::bus),
    ("vsock-packets", sockets::packets),
    ("dhcp-frames", addresses::frames),
    ("kernel-image", files::image),
    ("kernel-gzip", files::gzip),
    ("kernel-zboot", files::zboot),
    ("kernel-elf", files::elf),
    ("initrd", files::initrd),
    ("firmware", files::firmware),
    ("device-tree", files::device_tree),
    ("device-tree-overlay", files::device_tree_overlay),
    ("qcow2-open", files::qcow2),
    ("spec-document", messages::document),
    ("control-calls", messages::calls),
    ("control-lines", messages::lines),
    ("spec-words", messages::words),
];
