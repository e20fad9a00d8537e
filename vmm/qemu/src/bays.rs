//! What QEMU is told when a device is plugged in or pulled out: pure, one command after the other.
//!
//! Devices go behind a bridge of their own, as QEMU lets nothing be plugged into its root bus. The bridge is one of
//! conventional PCI with the standard hot-plug controller: a guest whose kernel does not drive that finds a new device when
//! it looks at its bus again, and QEMU takes a device out at once. Ports of PCI Express would keep a new device without
//! power until their driver comes, and wait for it before they let one go.
//!
//! Disks on bus scsi are units of the controller, which tells its guest and waits for nobody.
//!
//! What was opened for a device goes to QEMU over its monitor's socket, so that QEMU opens nothing itself but a passt's.

use std::fs::File;

use rvmm_backends::DiskError;
use rvmm_backends::plugged::{Plugged, PluggedKind};
use rvmm_spec::{CacheMode, DeviceId, Disk, DiskFormat, MemorySize, Net, Network};
use serde_json::{Map, Value, json};

use crate::command::disk::{OPTIMAL, rerror, werror};

/// The bridge, as an option of QEMU: in the root bus's last slot.
pub(crate) const BRIDGE: &str = "pci-bridge,id=bays,chassis_nr=1,shpc=on,bus=pcie.0,addr=0x1f";

/// The name of the SCSI controller; that of its bus follows from it.
pub(crate) const SCSI: &str = "scsi";

/// The number of the first unit's set of descriptors, above those of all slots.
const UNIT_SETS: u16 = 0x100;

/// The name of the bridge's bus.
const BUS: &str = "bays";

/// Slots of the bridge; the controller counts them from 1.
const SLOTS: std::ops::RangeInclusive<u8> = 1..=31;

/// One command, and how it is taken back if a later one fails.
#[derive(Debug)]
pub(crate) struct Step {
    /// The command.
    pub command: Value,
    /// A descriptor that goes along.
    pub along: Option<File>,
    /// What undoes it.
    pub undo: Option<Value>,
    /// The device that has to be gone before the next step.
    pub gone: Option<String>,
}

/// What is where, and what undoes it.
#[derive(Debug, Default)]
pub(crate) struct Bays {
    taken: Vec<(DeviceId, Place, Vec<Value>)>,
}

/// Where a device is. All names of what it needs begin with the place's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind the bridge.
    Slot(u8),
    /// Of the SCSI controller.
    Unit(u8),
}

// === impl Step ===

impl Step {
    fn new(execute: &str, arguments: Value) -> Self {
        Self {
            command: command(execute, arguments),
            along: None,
            undo: None,
            gone: None,
        }
    }

    fn with(mut self, file: File) -> Self {
        self.along = Some(file);
        self
    }

    fn undone_by(mut self, execute: &str, arguments: Value) -> Self {
        self.undo = Some(command(execute, arguments));
        self
    }

    /// A step that only takes one back.
    pub(crate) fn undoing(command: Value) -> Self {
        Self {
            command,
            along: None,
            undo: None,
            gone: None,
        }
    }
}

// === impl Bays ===

impl Bays {
    /// The steps that plug a device into a free slot, which is its from now on; none where there is no free slot.
    pub(crate) fn plug(&mut self, device: Plugged, is_block_device: bool) -> Option<Vec<Step>> {
        let is_free = |place: Place| !self.taken.iter().any(|(_, taken, _)| *taken == place);
        let place = match device.kind {
            PluggedKind::Lun(_, _, lun) => Some(Place::Unit(lun)).filter(|place| is_free(*place)),
            _ => SLOTS.map(Place::Slot).find(|place| is_free(*place)),
        }?;
        let steps = match device.kind {
            PluggedKind::Disk(disk, file) | PluggedKind::Lun(disk, file, _) => {
                disk_steps(place, &disk, file, is_block_device)
            }
            PluggedKind::Net(net, queues) => net_steps(place, &net, queues),
        };
        let undo = steps.iter().rev().filter_map(|step| step.undo.clone());
        self.taken.push((device.id, place, undo.collect()));
        Some(steps)
    }

    /// The steps that pull a device out; none where there is none of this name.
    pub(crate) fn unplug(&self, id: &DeviceId) -> Option<Vec<Step>> {
        let (_, place, undo) = self.taken.iter().find(|(taken, ..)| taken == id)?;
        let mut delete = Step::new("device_del", json!({"id": place.device()}));
        delete.gone = Some(place.device());
        let rest = undo.iter().cloned().map(Step::undoing);
        Some([delete].into_iter().chain(rest).collect())
    }

    /// The machine's name of the disk that QEMU calls so, or whose throttle it calls so.
    pub(crate) fn disk_of(&self, node: &str) -> Option<String> {
        if let Some(id) = self.owner(node) {
            return Some(id.to_string());
        }
        let number = node
            .strip_prefix("disk")
            .or_else(|| node.strip_prefix("limited"))?;
        Some(format!("disk{}", number.parse::<u8>().ok()?))
    }

    /// What happened to a node of QEMU's, by the name of the device that it belongs to if that was plugged in.
    pub(crate) fn named(&self, error: DiskError) -> DiskError {
        let owner = self.owner(&error.disk).map(ToString::to_string);
        DiskError {
            disk: owner.unwrap_or(error.disk),
            ..error
        }
    }

    fn owner(&self, node: &str) -> Option<&DeviceId> {
        let is_of = |place: &Place| {
            node.strip_prefix(&place.name())
                .is_some_and(|rest| matches!(rest, "" | "-limited"))
        };
        let (id, ..) = self.taken.iter().find(|(_, place, _)| is_of(place))?;
        Some(id)
    }

    /// A device is out, or never came in.
    pub(crate) fn forget(&mut self, id: &DeviceId) {
        self.taken.retain(|(taken, ..)| taken != id);
    }
}

// === impl Place ===

impl Place {
    fn name(self) -> String {
        match self {
            Self::Slot(slot) => format!("bay{slot}"),
            Self::Unit(lun) => format!("unit{lun}"),
        }
    }

    fn device(self) -> String {
        format!("{}-device", self.name())
    }

    /// The number of its set of descriptors.
    fn set(self) -> u16 {
        match self {
            Self::Slot(slot) => slot.into(),
            Self::Unit(lun) => UNIT_SETS + u16::from(lun),
        }
    }

    /// The options of a disk's device that say what and where it is.
    fn disk(self, disk: &Disk) -> Value {
        match self {
            Self::Slot(slot) => json!({
                "driver": "virtio-blk-pci-non-transitional", "bus": BUS, "addr": format!("{slot:#x}"),
                "num-queues": disk.queues,
            }),
            Self::Unit(lun) => json!({
                "driver": "scsi-hd", "bus": format!("{SCSI}.0"), "channel": 0, "scsi-id": 0, "lun": lun,
                "rotation_rate": 1, "dpofua": true, "opt_io_size": OPTIMAL,
            }),
        }
    }
}

fn command(execute: &str, arguments: Value) -> Value {
    let mut command = json!({"execute": execute, "id": crate::qmp::ERRAND});
    command["arguments"] = arguments;
    command
}

fn disk_steps(place: Place, disk: &Disk, file: File, is_block_device: bool) -> Vec<Step> {
    let name = place.name();
    let set = json!({"fdset-id": place.set()});
    let mut steps = vec![
        Step::new("add-fd", set.clone())
            .with(file)
            .undone_by("remove-fd", set),
    ];
    let mut drive = name.clone();
    steps.push(
        Step::new("blockdev-add", node(place, disk, is_block_device))
            .undone_by("blockdev-del", json!({"node-name": drive})),
    );
    if disk.iops.is_some() || disk.bandwidth.is_some() {
        let group = format!("{name}-limits");
        let mut limits = Map::new();
        limits.extend(disk.iops.map(|iops| ("iops-total".to_owned(), iops.into())));
        let bytes = disk.bandwidth.map(MemorySize::bytes);
        limits.extend(bytes.map(|bytes| ("bps-total".to_owned(), bytes.into())));
        let object = json!({"qom-type": "throttle-group", "id": group, "limits": limits});
        steps.push(Step::new("object-add", object).undone_by("object-del", json!({"id": group})));
        let limited = format!("{name}-limited");
        let node = json!({
            "driver": "throttle", "node-name": limited, "throttle-group": group, "file": drive,
            "read-only": disk.read_only, "discard": "unmap",
        });
        steps.push(Step::new("blockdev-add", node).undone_by("blockdev-del", json!({"node-name": limited})));
        drive = limited;
    }
    let mut options = place.disk(disk);
    options["id"] = place.device().into();
    options["drive"] = drive.into();
    options["werror"] = werror(disk).into();
    options["rerror"] = rerror(disk).into();
    if disk.cache == CacheMode::Writethrough {
        options["write-cache"] = "off".into();
    }
    if let Some(serial) = &disk.serial {
        options["serial"] = serial.as_str().into();
        // By itself QEMU would take the first 20 characters.
        if let Place::Unit(_) = place {
            options["device_id"] = serial.as_str().into();
        }
    }
    steps.push(Step::new("device_add", options));
    steps
}

/// The image. Who opened it has locked it, too.
fn node(place: Place, disk: &Disk, is_block_device: bool) -> Value {
    let cache = json!({"direct": disk.direct, "no-flush": disk.cache == CacheMode::Unsafe});
    json!({
        "driver": match disk.format { DiskFormat::Raw => "raw", DiskFormat::Qcow2 => "qcow2" },
        "node-name": place.name(),
        "read-only": disk.read_only,
        "discard": "unmap",
        "cache": cache,
        "file": {
            "driver": if is_block_device { "host_device" } else { "file" },
            "filename": format!("/dev/fdset/{}", place.set()),
            "locking": "off",
            "cache": cache,
        },
    })
}

fn net_steps(place: Place, net: &Net, queues: Vec<File>) -> Vec<Step> {
    let id = place.name();
    let count = queues.len();
    let names: Vec<_> = (0..count).map(|queue| format!("{id}-{queue}")).collect();
    let mut steps: Vec<_> = names
        .iter()
        .zip(queues)
        // The network takes it, so that nothing is left to close.
        .map(|(name, queue)| Step::new("getfd", json!({"fdname": name})).with(queue))
        .collect();
    let network = match &net.network {
        Network::Tap(_) => {
            let word = if count > 1 { "fds" } else { "fd" };
            json!({"type": "tap", "id": id, word: names.join(":")})
        }
        Network::Passt(path) => json!({
            "type": "stream", "id": id, "server": false, "addr": {"type": "unix", "path": path},
        }),
    };
    steps.push(Step::new("netdev_add", network).undone_by("netdev_del", json!({"id": id})));
    let mut options = json!({
        "driver": "virtio-net-pci-non-transitional", "id": place.device(), "bus": BUS, "addr": format!("{:#x}", place.set()),
        "netdev": id, "mac": net.mac.to_string(), "mq": count > 1, "romfile": "",
    });
    if let Some(mtu) = net.mtu {
        options["host_mtu"] = mtu.into();
    }
    steps.push(Step::new("device_add", options));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvmm_spec::{NetWish, Spec};

    fn file() -> File {
        File::open("/dev/null").unwrap()
    }

    fn disk(id: &str, disk: Disk) -> Plugged {
        Plugged {
            id: id.parse().unwrap(),
            kind: PluggedKind::Disk(disk, file()),
        }
    }

    fn words(steps: &[Step]) -> Vec<&str> {
        let words = steps.iter().map(|step| step.command["execute"].as_str().unwrap());
        words.collect()
    }

    #[test]
    fn a_disk_comes_as_a_descriptor_and_goes_in_the_opposite_order() {
        let mut bays = Bays::default();
        let limited = Disk {
            iops: Some(100),
            ..Disk::new("/d")
        };
        let steps = bays.plug(disk("a", limited), false).unwrap();
        assert_eq!(
            words(&steps),
            [
                "add-fd",
                "blockdev-add",
                "object-add",
                "blockdev-add",
                "device_add"
            ]
        );
        assert!(steps[0].along.is_some() && steps[1].along.is_none());
        assert_eq!(steps[1].command["arguments"]["file"]["filename"], "/dev/fdset/1");
        assert_eq!(steps[4].command["arguments"]["drive"], "bay1-limited");
        let steps = bays.unplug(&"a".parse().unwrap()).unwrap();
        assert_eq!(
            words(&steps),
            [
                "device_del",
                "blockdev-del",
                "object-del",
                "blockdev-del",
                "remove-fd"
            ]
        );
        assert_eq!(steps[0].gone.as_deref(), Some("bay1-device"));
    }

    #[test]
    fn a_disk_on_the_scsi_controller_has_its_unit_and_no_slot() {
        let mut bays = Bays::default();
        let unit = |id: &str, lun| {
            let disk = Disk {
                serial: Some("s".to_owned()),
                bandwidth: Some(MemorySize::from_mib(1)),
                ..Disk::new("/d")
            };
            Plugged {
                id: id.parse().unwrap(),
                kind: PluggedKind::Lun(disk, file(), lun),
            }
        };
        let steps = bays.plug(unit("a", 7), false).unwrap();
        assert_eq!(
            steps[1].command["arguments"]["file"]["filename"],
            "/dev/fdset/263"
        );
        assert_eq!(
            steps[4].command["arguments"],
            json!({
                "driver": "scsi-hd", "id": "unit7-device", "bus": "scsi.0", "channel": 0, "scsi-id": 0, "lun": 7,
                "drive": "unit7-limited", "werror": "report", "rerror": "report", "rotation_rate": 1, "dpofua": true,
                "opt_io_size": OPTIMAL, "serial": "s", "device_id": "s",
            })
        );
        assert!(bays.plug(unit("b", 7), false).is_none());
        assert_eq!(bays.owner("unit7-limited"), Some(&"a".parse().unwrap()));
        assert_eq!((bays.owner("unit7-x"), bays.owner("unit71")), (None, None));
        let steps = bays.plug(disk("c", Disk::new("/d")), false).unwrap();
        assert_eq!(steps[2].command["arguments"]["addr"], "0x1");
        let steps = bays.unplug(&"a".parse().unwrap()).unwrap();
        assert_eq!(steps[0].gone.as_deref(), Some("unit7-device"));
    }

    #[test]
    fn slots_are_used_again_and_there_are_only_so_many() {
        let mut bays = Bays::default();
        for number in 0..31 {
            assert!(
                bays.plug(disk(&format!("d{number}"), Disk::new("/d")), false)
                    .is_some()
            );
        }
        assert!(bays.plug(disk("more", Disk::new("/d")), false).is_none());
        bays.forget(&"d4".parse().unwrap());
        let steps = bays.plug(disk("more", Disk::new("/d")), true).unwrap();
        assert_eq!(steps[2].command["arguments"]["addr"], "0x5");
        assert_eq!(steps[1].command["arguments"]["file"]["driver"], "host_device");
        assert!(bays.unplug(&"d4".parse().unwrap()).is_none());
        let names = [
            "bay5",
            "bay5-limited",
            "bay4",
            "disk3",
            "limited3",
            "base3",
            "#block1",
            "bay40",
        ]
        .map(|node| bays.disk_of(node));
        let names = names.each_ref().map(Option::as_deref);
        let expected = [
            Some("more"),
            Some("more"),
            Some("d3"),
            Some("disk3"),
            Some("disk3"),
            None,
            None,
            None,
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn qemu_connects_to_a_passt_itself() {
        let wish = NetWish::new(Network::Passt("/p".into()));
        let spec = Spec::builder(rvmm_spec::Boot::new("Image")).build().unwrap();
        let device = Plugged {
            id: "n".parse().unwrap(),
            kind: PluggedKind::Net(spec.check_net(wish, 0).unwrap(), Vec::new()),
        };
        let mut bays = Bays::default();
        let steps = bays.plug(device, false).unwrap();
        assert_eq!(words(&steps), ["netdev_add", "device_add"]);
        let network = &steps[0].command["arguments"];
        assert_eq!(
            (&network["type"], &network["addr"]["path"]),
            (&"stream".into(), &"/p".into())
        );
        let steps = bays.unplug(&"n".parse().unwrap()).unwrap();
        assert_eq!(words(&steps), ["device_del", "netdev_del"]);
    }

    #[test]
    fn an_interface_has_a_descriptor_for_each_queue() {
        let boot = rvmm_spec::Boot::new("Image");
        let wish = NetWish {
            queues: 2,
            ..NetWish::new(Network::Tap("t0".parse().unwrap()))
        };
        let net = Spec::builder(boot).build().unwrap().check_net(wish, 0).unwrap();
        let device = Plugged {
            id: "n".parse().unwrap(),
            kind: PluggedKind::Net(net, vec![file(), file()]),
        };
        let steps = Bays::default().plug(device, false).unwrap();
        assert_eq!(words(&steps), ["getfd", "getfd", "netdev_add", "device_add"]);
        assert_eq!(steps[2].command["arguments"]["fds"], "bay1-0:bay1-1");
        assert_eq!(steps[3].command["arguments"]["mq"], true);
    }
}
