//! `--disk FILE[,OPTION…]`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use rvmm_spec::{Base, CacheMode, Disk, DiskBus, DiskFormat, MemorySize, OnDiskError};

/// What `--help` says of the value.
pub const VALUE: &str = "FILE[,OPTION...]";

/// What `--help` says of the option.
pub const HELP: &str = "\
A disk: an image file or a block device; may be repeated. Options: bus=virtio|scsi (a device of its own, or a unit of the SCSI \
controller, which is there then), format=raw|qcow2 (raw if not given, never guessed), \
base=FILE and base-format=raw|qcow2 (what a qcow2 disk holds where nothing was written into it; only read, and so shared by \
many machines), readonly, serial=S (20 characters, on scsi 36), direct (past the host's page cache), cache=writeback|writethrough|unsafe, \
error-policy=report|stop|enospc|ignore (what is done when the host cannot do what the guest asked: it sees the error; the machine \
is paused and tries again when it is resumed; paused where there is no space left; it is told that all is well), queues=N (up to the \
number of vCPUs), iops=N and bps=SIZE (most requests and bytes a second)";

const OPTIONS: &str = "'bus', 'format', 'base', 'base-format', 'readonly', 'serial', 'direct', 'cache', 'error-policy', 'queues', 'iops' and \
'bps' are";

/// Reads the option's value.
///
/// # Errors
/// The word that is not known or not possible.
pub fn parse(text: &str) -> anyhow::Result<Disk> {
    let mut parts = text.split(',');
    let path = parts
        .next()
        .filter(|path| !path.is_empty())
        .context("names no file")?;
    let mut disk = Disk::new(path);
    for part in parts {
        set(&mut disk, part)?;
    }
    if disk
        .base
        .as_ref()
        .is_some_and(|base| base.path.as_os_str().is_empty())
    {
        bail!("'base-format' needs 'base=FILE'");
    }
    Ok(disk)
}

/// Reads the value of each option, in their order.
///
/// # Errors
/// As [`parse`], with the option.
pub fn parse_all(texts: &[String]) -> anyhow::Result<Vec<Disk>> {
    let disks = texts.iter();
    let disks = disks.map(|text| parse(text).with_context(|| format!("--disk '{text}'")));
    disks.collect()
}

fn set(disk: &mut Disk, part: &str) -> anyhow::Result<()> {
    let number = |value: &str| value.parse().with_context(|| format!("'{part}' has no number"));
    match part.split_once('=').unwrap_or((part, "")) {
        ("readonly", "") => disk.read_only = true,
        ("direct", "") => disk.direct = true,
        ("serial", serial) => disk.serial = Some(serial.to_owned()),
        ("bus", "virtio") => disk.bus = DiskBus::Virtio,
        ("bus", "scsi") => disk.bus = DiskBus::Scsi,
        ("bus", _) => bail!("'{part}' is not known; 'virtio' and 'scsi' are"),
        ("format", value) => disk.format = format(part, value)?,
        ("base", path) => base(disk).path = path.into(),
        ("base-format", value) => base(disk).format = format(part, value)?,
        ("cache", "writeback") => disk.cache = CacheMode::Writeback,
        ("cache", "writethrough") => disk.cache = CacheMode::Writethrough,
        ("cache", "unsafe") => disk.cache = CacheMode::Unsafe,
        ("cache", _) => bail!(
            "'{part}' is not known; 'writeback', 'writethrough' and 'unsafe' are, and 'direct' for no page cache"
        ),
        ("error-policy", value) => disk.on_error = on_error(part, value)?,
        ("queues", value) => disk.queues = u16::try_from(number(value)?).unwrap_or(u16::MAX),
        ("iops", value) => disk.iops = Some(number(value)?),
        ("bps", value) => disk.bandwidth = Some(value.parse::<MemorySize>()?),
        ("aio", _) => {
            bail!("'{part}' is not known: each disk has a thread of its own, and there is no other way")
        }
        _ => bail!("'{part}' is not known; {OPTIONS}"),
    }
    Ok(())
}

fn on_error(part: &str, value: &str) -> anyhow::Result<OnDiskError> {
    match value {
        "report" => Ok(OnDiskError::Report),
        "stop" => Ok(OnDiskError::Stop),
        "enospc" => Ok(OnDiskError::Enospc),
        "ignore" => Ok(OnDiskError::Ignore),
        _ => bail!("'{part}' is not known; 'report', 'stop', 'enospc' and 'ignore' are"),
    }
}

fn format(part: &str, value: &str) -> anyhow::Result<DiskFormat> {
    match value {
        "raw" => Ok(DiskFormat::Raw),
        "qcow2" => Ok(DiskFormat::Qcow2),
        _ => bail!("'{part}' is not known; 'raw' and 'qcow2' are"),
    }
}

/// Its options come one by one. One without a path is found in the end.
fn base(disk: &mut Disk) -> &mut Base {
    disk.base.get_or_insert_with(|| Base {
        path: PathBuf::new(),
        format: DiskFormat::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_alone_is_a_raw_disk() {
        assert_eq!(parse("a.img").unwrap(), Disk::new("a.img"));
    }

    #[test]
    fn every_option_is_read() {
        let text = "a.img,bus=scsi,format=qcow2,base=b.img,base-format=qcow2,readonly,serial=s1,direct,cache=unsafe,error-policy=stop,queues=4,iops=100,bps=2M";
        let disk = Disk {
            path: "a.img".into(),
            bus: DiskBus::Scsi,
            format: DiskFormat::Qcow2,
            base: Some(Base {
                path: "b.img".into(),
                format: DiskFormat::Qcow2,
            }),
            read_only: true,
            serial: Some("s1".to_owned()),
            direct: true,
            cache: CacheMode::Unsafe,
            on_error: OnDiskError::Stop,
            queues: 4,
            iops: Some(100),
            bandwidth: Some(MemorySize::from_mib(2)),
        };
        assert_eq!(parse(text).unwrap(), disk);
    }

    #[test]
    fn what_is_not_known_is_named_with_what_is() {
        for (text, said) in [
            ("", "names no file"),
            (
                "a,rw",
                "'rw' is not known; 'bus', 'format', 'base', 'base-format'",
            ),
            (
                "a,format=vmdk",
                "'format=vmdk' is not known; 'raw' and 'qcow2' are",
            ),
            ("a,bus=sata", "'bus=sata' is not known; 'virtio' and 'scsi' are"),
            ("a,base-format=raw", "'base-format' needs 'base=FILE'"),
            ("a,base=b,base-format=vmdk", "'base-format=vmdk' is not known"),
            (
                "a,error-policy=pause",
                "'error-policy=pause' is not known; 'report', 'stop', 'enospc' and",
            ),
            ("a,cache=none", "'cache=none' is not known; 'writeback'"),
            ("a,queues=x", "'queues=x' has no number"),
            ("a,bps=fast", "'fast' is not a size"),
            ("a,aio=io_uring", "each disk has a thread of its own"),
            ("a,readonly=no", "'readonly=no' is not known"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(said) || error.contains(said), "{error}");
        }
    }
}
