//! Builds guests, and the tools to run them, from distribution packages.
//!
//! Everything here starts at a Debian mirror and ends in the [`Cache`]: packages are unpacked without running a
//! line of what is in them ([`debian`]), a stock riscv64 kernel gives its image and modules ([`kernel`]), busybox
//! gives the user space ([`tiny`], [`bench`], [`demo`]), and a recent QEMU that leaves the machine's own alone
//! gives the emulator ([`toolbox`]). Nothing riscv64 is executed on this machine; where a package's own scripts have to
//! run, they do so in a guest ([`distribution`]).

pub mod axe;
pub mod bench;
pub mod busybox;
pub mod cache;
pub mod command;
pub mod cpio;
pub mod cross;
pub mod debian;
pub mod demo;
pub mod distribution;
pub mod efi;
pub mod ext4;
pub mod fence;
pub mod foreign;
pub mod gpt;
pub mod helm;
pub mod hostile;
pub mod image_tools;
pub mod images;
pub mod kernel;
pub mod kube;
pub mod kube_node;
pub mod oci;
pub mod openssh;
pub mod pip;
pub mod product;
pub mod promtool;
#[cfg(feature = "push")]
pub mod push;
pub mod registry;
pub mod sbom;
pub mod tiny;
pub mod toolbox;
pub mod virtiofsd;

pub use cache::Cache;
pub use debian::Debian;
pub use demo::DemoGuest;
pub use kernel::Kernel;
pub use toolbox::Toolbox;
