//! What tests of the whole share: one file per promise is in `tests/`.

pub mod asked;
pub mod boot;
pub mod brief;
pub mod browser;
pub mod devices;
pub mod disks;
pub mod distribution;
pub mod efi;
pub mod firmware;
pub mod forms;
pub mod full;
pub mod guest;
pub mod hotplug;
pub mod installed;
pub mod kills;
pub mod lab_node;
pub mod machines;
pub mod paused;
pub mod pod_memory;
pub mod scsi;
pub mod shares;
pub mod volumes;
pub mod watchdog;
