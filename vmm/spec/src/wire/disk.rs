//! A disk in JSON. What a document of before does not name has the value that it had then.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::wire_enum;
use crate::{Base, CacheMode, Disk, DiskBus, DiskFormat, MemorySize, OnDiskError};

/// A [`Disk`] as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DiskDocument {
    path: PathBuf,
    #[serde(default, skip_serializing_if = "BusDocument::is_default")]
    bus: BusDocument,
    #[serde(default)]
    format: FormatDocument,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<BaseDocument>,
    #[serde(default)]
    read_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(default)]
    direct: bool,
    #[serde(default)]
    cache: CacheDocument,
    #[serde(default, skip_serializing_if = "OnErrorDocument::is_default")]
    on_error: OnErrorDocument,
    #[serde(default = "one_queue")]
    queues: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iops: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
}

/// A [`Base`] as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BaseDocument {
    path: PathBuf,
    format: FormatDocument,
}
wire_enum!(BusDocument, DiskBus, Virtio, Scsi);
wire_enum!(FormatDocument, DiskFormat, Raw, Qcow2);
wire_enum!(CacheDocument, CacheMode, Writeback, Writethrough, Unsafe);
wire_enum!(OnErrorDocument, OnDiskError, Report, Stop, Enospc, Ignore);

impl BusDocument {
    /// Not written, as [`OnErrorDocument::is_default`].
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl OnErrorDocument {
    /// Not written, so that earlier readers take the document too.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn one_queue() -> u16 {
    1
}

impl From<DiskDocument> for Disk {
    fn from(disk: DiskDocument) -> Self {
        Self {
            path: disk.path,
            bus: disk.bus.into(),
            format: disk.format.into(),
            base: disk.base.map(|base| Base {
                path: base.path,
                format: base.format.into(),
            }),
            read_only: disk.read_only,
            serial: disk.serial,
            direct: disk.direct,
            cache: disk.cache.into(),
            on_error: disk.on_error.into(),
            queues: disk.queues,
            iops: disk.iops,
            bandwidth: disk.bytes_per_second.map(MemorySize::from_bytes),
        }
    }
}

impl From<&Disk> for DiskDocument {
    fn from(disk: &Disk) -> Self {
        Self {
            path: disk.path.clone(),
            bus: disk.bus.into(),
            format: disk.format.into(),
            base: disk.base.as_ref().map(|base| BaseDocument {
                path: base.path.clone(),
                format: base.format.into(),
            }),
            read_only: disk.read_only,
            serial: disk.serial.clone(),
            direct: disk.direct,
            cache: disk.cache.into(),
            on_error: disk.on_error.into(),
            queues: disk.queues,
            iops: disk.iops,
            bytes_per_second: disk.bandwidth.map(MemorySize::bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_before_is_the_raw_disk_that_it_was() {
        let document: DiskDocument =
            serde_json::from_str(r#"{"path":"/d","readOnly":true,"serial":"s"}"#).unwrap();
        let disk = Disk {
            read_only: true,
            serial: Some("s".to_owned()),
            ..Disk::new("/d")
        };
        assert_eq!(Disk::from(document), disk);
    }

    #[test]
    fn every_option_survives_its_json_form() {
        let disk = Disk {
            path: "/d".into(),
            bus: DiskBus::Scsi,
            format: DiskFormat::Qcow2,
            base: Some(Base {
                path: "/b".into(),
                format: DiskFormat::Raw,
            }),
            read_only: true,
            serial: Some("s".to_owned()),
            direct: true,
            cache: CacheMode::Unsafe,
            on_error: OnDiskError::Enospc,
            queues: 3,
            iops: Some(7),
            bandwidth: Some(MemorySize::from_mib(5)),
        };
        let json = serde_json::to_string(&DiskDocument::from(&disk)).unwrap();
        let back: DiskDocument = serde_json::from_str(&json).unwrap();
        assert_eq!(Disk::from(back), disk);
    }
}
