//! A disk as QEMU's arguments: its image, a throttle in front of it where it has limits, the device.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use rvmm_backends::disk::Devices;
use rvmm_spec::{Base, CacheMode, Disk, DiskFormat, MemorySize, OnDiskError, Transport};

use super::{Arguments, escaped};
use crate::bays::SCSI;

/// What a driver shall like best, in bytes: as rvmm's own disks tell.
pub(crate) const OPTIMAL: u32 = 512 << 10;

impl Arguments {
    /// A disk that is a device of its own.
    pub(super) fn disk(&mut self, index: usize, disk: &Disk, devices: Devices) {
        let mut device = self.drive(index, disk, devices);
        // On PCI QEMU would take a queue for each vCPU.
        if disk.queues > 1 || self.transport == Transport::Pci {
            device.push(format!(",num-queues={}", disk.queues));
        }
        push_serial(&mut device, "serial", disk);
        self.device("virtio-blk", device);
    }

    /// A disk on the SCSI controller. It does not turn, is known by the whole of its serial, and can be told that a write may not
    /// stay in a cache, as under KVM.
    pub(super) fn unit(&mut self, lun: usize, index: usize, disk: &Disk, devices: Devices) {
        let mut device = OsString::from("scsi-hd");
        device.push(self.drive(index, disk, devices));
        push_serial(&mut device, "serial", disk);
        push_serial(&mut device, "device_id", disk);
        device.push(format!(
            ",rotation_rate=1,dpofua=on,bus={SCSI}.0,channel=0,scsi-id=0,lun={lun}"
        ));
        self.option("-device", device);
    }

    /// What is behind a disk, and the device's options that name it.
    fn drive(&mut self, index: usize, disk: &Disk, devices: Devices) -> OsString {
        let limits = limits(disk);
        if let Some(limits) = &limits {
            self.option("-object", format!("throttle-group,id=limits{index}{limits}"));
        }
        if let Some(base) = &disk.base {
            self.option("-blockdev", base_node(index, disk, base, devices.base));
        }
        self.option("-blockdev", node(index, disk, devices.image));
        let mut drive = format!("disk{index}");
        if limits.is_some() {
            drive = format!("limited{index}");
            let read_only = if disk.read_only { "on" } else { "off" };
            let node = format!(
                "driver=throttle,node-name={drive},read-only={read_only},discard=unmap,throttle-group=limits{index},file=disk{index}"
            );
            self.option("-blockdev", node);
        }
        let mut device = OsString::from(format!(
            ",drive={drive},werror={},rerror={},opt_io_size={OPTIMAL}",
            werror(disk),
            rerror(disk)
        ));
        if disk.cache == CacheMode::Writethrough {
            device.push(",write-cache=off");
        }
        device
    }
}

fn push_serial(device: &mut OsString, option: &str, disk: &Disk) {
    if let Some(serial) = &disk.serial {
        device.push(format!(",{option}="));
        device.push(escaped(OsStr::new(serial)));
    }
}

/// The image, on its base if it has one. That it names no other file has been checked.
fn node(index: usize, disk: &Disk, is_device: bool) -> OsString {
    let format = word(disk.format);
    let read_only = if disk.read_only { "on" } else { "off" };
    let mut node = OsString::from(format!(
        "driver={format},node-name=disk{index},read-only={read_only},discard=unmap"
    ));
    if disk.base.is_some() {
        node.push(format!(",backing=base{index}"));
    }
    push_file(&mut node, disk, is_device, &disk.path);
    node
}

/// What is under the image. That it is a whole image of its own has been checked.
fn base_node(index: usize, disk: &Disk, base: &Base, is_device: bool) -> OsString {
    let format = word(base.format);
    let mut node = OsString::from(format!("driver={format},node-name=base{index},read-only=on"));
    push_file(&mut node, disk, is_device, &base.path);
    node
}

/// The rest of a node: how it is cached, and its file.
fn push_file(node: &mut OsString, disk: &Disk, is_device: bool, path: &Path) {
    let protocol = if is_device { "host_device" } else { "file" };
    let mut cache = String::new();
    if disk.direct {
        cache.push_str(",cache.direct=on");
    }
    if disk.cache == CacheMode::Unsafe {
        cache.push_str(",cache.no-flush=on");
    }
    node.push(&cache);
    node.push(format!(",file.driver={protocol}"));
    // Each node has its own; the file's counts for what reaches the host.
    node.push(cache.replace(",cache.", ",file.cache."));
    node.push(",file.filename=");
    node.push(escaped(path.as_os_str()));
}

/// What QEMU does where a write or a flush fails.
pub(crate) fn werror(disk: &Disk) -> &'static str {
    match disk.on_error {
        OnDiskError::Report => "report",
        OnDiskError::Stop => "stop",
        OnDiskError::Enospc => "enospc",
        OnDiskError::Ignore => "ignore",
    }
}

/// What QEMU does where a read fails, which is never for want of space.
pub(crate) fn rerror(disk: &Disk) -> &'static str {
    match disk.on_error {
        OnDiskError::Enospc => "report",
        _ => werror(disk),
    }
}

fn word(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    }
}

fn limits(disk: &Disk) -> Option<String> {
    let iops = disk.iops.map(|iops| format!(",x-iops-total={iops}"));
    let bytes = disk.bandwidth.map(MemorySize::bytes);
    let bytes = bytes.map(|bytes| format!(",x-bps-total={bytes}"));
    match (iops, bytes) {
        (None, None) => None,
        (iops, bytes) => Some(iops.unwrap_or_default() + &bytes.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvmm_spec::DiskBus;

    fn text(disk: &Disk) -> String {
        let mut arguments = Arguments::default();
        arguments.disk(0, disk, Devices::default());
        let words = arguments.words.iter().map(|word| word.to_str().unwrap());
        words.collect::<Vec<_>>().join(" ").replace(" -", "\n-")
    }

    #[test]
    fn every_option_reaches_qemu() {
        let disk = Disk {
            path: "/d".into(),
            bus: DiskBus::Virtio,
            format: DiskFormat::Qcow2,
            base: None,
            read_only: true,
            serial: Some("s".to_owned()),
            direct: true,
            cache: CacheMode::Unsafe,
            on_error: OnDiskError::Stop,
            queues: 4,
            iops: Some(100),
            bandwidth: Some(MemorySize::from_mib(1)),
        };
        assert_eq!(
            text(&disk),
            "-object throttle-group,id=limits0,x-iops-total=100,x-bps-total=1048576\n\
             -blockdev driver=qcow2,node-name=disk0,read-only=on,discard=unmap,cache.direct=on,cache.no-flush=on,\
             file.driver=file,file.cache.direct=on,file.cache.no-flush=on,file.filename=/d\n\
             -blockdev driver=throttle,node-name=limited0,read-only=on,discard=unmap,throttle-group=limits0,file=disk0\n\
             -device virtio-blk-device,drive=limited0,werror=stop,rerror=stop,opt_io_size=524288,num-queues=4,serial=s,\
             bus=virtio-mmio-bus.7"
        );
    }

    #[test]
    fn a_disk_on_the_scsi_controller_is_a_unit_of_it() {
        let disk = Disk {
            bus: DiskBus::Scsi,
            serial: Some("a-serial-of-more-than-20-characters".to_owned()),
            cache: CacheMode::Writethrough,
            ..Disk::new("/d")
        };
        let mut arguments = Arguments::default();
        arguments.unit(3, 5, &disk, Devices::default());
        assert_eq!(
            arguments.words[3],
            "scsi-hd,drive=disk5,werror=report,rerror=report,opt_io_size=524288,write-cache=off,\
             serial=a-serial-of-more-than-20-characters,device_id=a-serial-of-more-than-20-characters,\
             rotation_rate=1,dpofua=on,bus=scsi.0,channel=0,scsi-id=0,lun=3"
        );
    }

    #[test]
    fn a_base_is_named_to_qemu_and_is_only_read() {
        let disk = Disk {
            format: DiskFormat::Qcow2,
            base: Some(Base {
                path: "/b,1".into(),
                format: DiskFormat::Raw,
            }),
            ..Disk::new("/d")
        };
        assert!(
            text(&disk).starts_with(
                "-blockdev driver=raw,node-name=base0,read-only=on,file.driver=file,file.filename=/b,,1\n\
             -blockdev driver=qcow2,node-name=disk0,read-only=off,discard=unmap,backing=base0,\
             file.driver=file,file.filename=/d\n"
            ),
            "{}",
            text(&disk)
        );
    }

    #[test]
    fn a_disk_that_stops_for_want_of_space_reports_what_it_cannot_read() {
        let disk = Disk {
            on_error: OnDiskError::Enospc,
            ..Disk::new("/d")
        };
        assert!(text(&disk).contains(",werror=enospc,rerror=report,"));
    }

    #[test]
    fn a_write_through_disk_has_no_write_cache() {
        let disk = Disk {
            cache: CacheMode::Writethrough,
            ..Disk::new("/d")
        };
        assert!(text(&disk).contains("opt_io_size=524288,write-cache=off,bus="));
    }
}
